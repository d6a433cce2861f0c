//! Bins and bounds against sorting all values.

use super::any_values::cost;
use super::{KINDS, Kind, Noise, naive};
use crate::scalar::lagrangian;
use crate::{Precision, ValueHistogram, Weights};

#[test]
fn refined_is_optimal() {
    for (kind, n) in KINDS
        .into_iter()
        .zip([20_000, 30_000, 50_000].into_iter().cycle())
    {
        let values = Noise(11).values(kind, n);
        let pairs: Vec<(f64, f64)> = values.iter().map(|&x| (f64::from(x), 1.0)).collect();
        let points = naive::points(&pairs);
        for k in [2, 5, 16, 40] {
            let best = lagrangian::cluster(&points, k);
            for precision in [Precision::Refined, Precision::Exact] {
                let found = ValueHistogram::new(&values, Weights::Equal, precision).cluster(k);
                let excess = found.cost - best.cost;
                assert!(found.gap <= 1e-4 && (precision == Precision::Refined || found.gap == 0.0));
                assert!(
                    excess <= (found.gap + 1e-9) * best.cost,
                    "{kind:?} {precision:?} k = {k}: {excess}"
                );
                assert!(excess >= -1e-9 * best.cost);
                assert_eq!(found.centroids.len(), best.centroids.len());
            }
        }
    }
}

/// What [`Precision::Refined`] promises, against values of which all are sorted: the gap holds, the cost is no less than that of the
/// centroids, and most answers are much nearer than the promise.
#[test]
fn refined_is_near_the_optimum() {
    let mut noise = Noise(15);
    let mut excesses = Vec::new();
    for (kind, n) in KINDS
        .into_iter()
        .zip([8192, 60_000, 150_000].into_iter().cycle())
    {
        let mut values = noise.values(kind, n);
        values[n / 2] = f32::NAN;
        let weights: Vec<f32> = (0..n).map(|_| noise.normal().exp() as f32).collect();
        for given in [Weights::Equal, Weights::Each(&weights)] {
            let mut pairs = Vec::new();
            given.each(0, n, |i, w| {
                if values[i].is_finite() {
                    pairs.push((f64::from(values[i]), w));
                }
            });
            let points = naive::points(&pairs);
            let histogram = ValueHistogram::new(&values, given, Precision::Refined);
            for k in [2, 3, 8, 16, 64, 256] {
                let best = lagrangian::cluster(&points, k);
                let found = histogram.cluster(k);
                let real = cost(&points, &found.centroids);
                let context = format!("{kind:?}, {n} values, k = {k}");
                assert!(found.gap <= 1e-4, "{context}: {}", found.gap);
                assert!(real <= found.cost * (1.0 + 1e-9), "{context}: {real}");
                if best.cost == 0.0 {
                    assert_eq!(found.cost, 0.0);
                    continue;
                }
                let excess = real / best.cost - 1.0;
                assert!(
                    (-1e-9..=found.gap + 1e-9).contains(&excess),
                    "{context}: {excess}"
                );
                excesses.push(excess);
            }
        }
    }
    excesses.sort_by(f64::total_cmp);
    let (middle, most) = (excesses[excesses.len() / 2], excesses[excesses.len() - 1]);
    assert!(middle < 2e-6 && most < 5e-5, "{middle} {most}");
}

#[test]
fn refined_is_optimal_with_weights() {
    let mut noise = Noise(12);
    for kind in [Kind::Normal, Kind::Cauchy, Kind::Clumps, Kind::Sparse] {
        let mut values = noise.values(kind, 24_000);
        let weights: Vec<f32> = (0..240)
            .map(|_| (3.0 * noise.normal()).exp() as f32)
            .collect();
        values[77] = f32::NAN;
        values[5000] = f32::NEG_INFINITY;
        let rows = Weights::Rows {
            len: 100,
            weights: &weights,
        };
        let finite = values.iter().enumerate().filter(|(_, x)| x.is_finite());
        let pairs: Vec<(f64, f64)> = finite
            .map(|(i, &x)| (f64::from(x), f64::from(weights[i / 100])))
            .collect();
        let points = naive::points(&pairs);
        for k in [3, 16] {
            let best = lagrangian::cluster(&points, k);
            let found = ValueHistogram::new(&values, rows, Precision::Exact).cluster(k);
            assert!(
                (found.cost - best.cost).abs() <= 1e-9 * best.cost,
                "{kind:?} k = {k}"
            );
        }
    }
}

#[test]
fn refined_agrees_with_divide_and_conquer() {
    let values = Noise(13).values(Kind::Lognormal, 20_000);
    let pairs: Vec<(f64, f64)> = values.iter().map(|&x| (f64::from(x), 1.0)).collect();
    let best = naive::divide(&naive::points(&pairs), 6);
    let found = ValueHistogram::new(&values, Weights::Equal, Precision::Refined).cluster(6);
    assert!((found.cost - best).abs() <= 1e-4 * best);
}

/// So many values to a bin that bins are split before any value is sorted.
#[test]
fn split_bins_are_optimal() {
    let mut values = Noise(14).values(Kind::Normal, 700_000);
    values[99] = f32::NAN;
    let weights: Vec<f32> = (0..7).map(|i| [1.0, 0.0, 0.5, 3.0][i % 4]).collect();
    let rows = Weights::Rows {
        len: 100_000,
        weights: &weights,
    };
    for given in [Weights::Equal, rows] {
        let mut pairs = Vec::new();
        given.each(0, values.len(), |i, w| {
            if values[i].is_finite() && w > 0.0 {
                pairs.push((f64::from(values[i]), w));
            }
        });
        let points = naive::points(&pairs);
        for (k, precision) in [(16, Precision::Refined), (4, Precision::Exact)] {
            let best = lagrangian::cluster(&points, k);
            let found = ValueHistogram::new(&values, given, precision).cluster(k);
            // A gap means that no values were sorted.
            assert_eq!(found.gap > 0.0, precision == Precision::Refined);
            assert!(found.gap <= 1e-4);
            let excess = found.cost - best.cost;
            assert!(
                excess <= (found.gap + 1e-9) * best.cost,
                "k = {k}: {excess}"
            );
            assert!(excess >= -1e-9 * best.cost);
        }
    }
}

/// Many values and many clusters take the way of few, fine bins; 16-bit values are counted one by one, which knows no bins.
#[test]
fn many_clusters_of_many_values_are_those_of_16_bits() {
    let narrow: Vec<half::f16> = Noise(13)
        .values(Kind::Normal, 1 << 22)
        .into_iter()
        .map(half::f16::from_f32)
        .collect();
    let wide: Vec<f32> = narrow.iter().map(|value| value.to_f32()).collect();
    let best = ValueHistogram::new(&narrow, Weights::Equal, Precision::Exact).cluster(256);
    let histogram = ValueHistogram::new(&wide, Weights::Equal, Precision::Refined);
    let found = histogram.cluster(256);
    let excess = (found.cost - best.cost) / best.cost;
    assert!(found.gap <= 1e-4, "{}", found.gap);
    assert!((-1e-9..=found.gap + 1e-9).contains(&excess), "{excess}");
    assert_eq!(found.centroids.len(), 256);
}
