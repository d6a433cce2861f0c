//! 1-D k-means: every implementation against its twins.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{KINDS, Kind, Noise, naive};
use crate::scalar::double_double::DoubleDoubleSums;
use crate::scalar::lagrangian;
use crate::scalar::least_weight_path::LeastWeightPath;
use crate::scalar::points::Points;
use crate::scalar::prefix_sums::{IntervalCosts, PrefixSums};
use crate::{Clusters, Element, Precision, ValueHistogram, Weights};

/// Clusters by every implementation that takes any values.
fn all<T: Element>(values: &[T], weights: Weights<'_>, k: usize) -> Vec<Clusters> {
    [Precision::Exact, Precision::Refined]
        .map(|p| ValueHistogram::new(values, weights, p).cluster(k))
        .to_vec()
}

fn pairs<T: Element>(values: &[T], weights: Option<&[f32]>) -> Points<'static> {
    let weight = |i: usize| weights.map_or(1.0, |w| f64::from(w[i]));
    let pairs: Vec<(f64, f64)> = values
        .iter()
        .enumerate()
        .map(|(i, v)| (f64::from(v.to_f32()), weight(i)))
        .collect();
    naive::points(&pairs)
}

/// That clusters are consistent and as good as they can be.
fn check(found: &Clusters, points: &Points<'_>, k: usize, best: f64) {
    let tolerance = 1e-9 * best + found.gap * best + 1e-300;
    assert!(
        (found.cost - best).abs() <= tolerance,
        "cost {} is not {best} (k = {k})",
        found.cost
    );
    assert_eq!(found.centroids.len(), k.min(points.len()));
    assert!(found.centroids.is_sorted());
    let nearest = |x: f64| {
        found
            .centroids
            .iter()
            .map(|c| (x - c).powi(2))
            .fold(f64::INFINITY, f64::min)
    };
    let cost: f64 = points
        .x
        .iter()
        .zip(points.w.iter())
        .map(|(x, w)| w * nearest(*x))
        .sum();
    assert!(
        (found.cost - cost).abs() <= 1e-9 * cost + 1e-300,
        "cost {} at centroids of cost {cost}",
        found.cost
    );
}

fn check_types(
    values: &[f32],
    weights: Option<&[f32]>,
    k: usize,
    best: impl Fn(&Points<'_>, usize) -> f64,
) {
    let given = weights.map_or(Weights::Equal, Weights::Each);
    let points = pairs(values, weights);
    all(values, given, k)
        .iter()
        .for_each(|found| check(found, &points, k, best(&points, k)));
    let narrow: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    let points = pairs(&narrow, weights);
    all(&narrow, given, k)
        .iter()
        .for_each(|found| check(found, &points, k, best(&points, k)));
    let narrow: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
    let points = pairs(&narrow, weights);
    all(&narrow, given, k)
        .iter()
        .for_each(|found| check(found, &points, k, best(&points, k)));
}

fn awkward() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-20_i32..20).prop_map(|v| v as f32 / 4.0),
        2 => -1.0_f32..1.0,
        1 => (0_i32..3).prop_map(|v| 1000.0 + v as f32),
        1 => (-30_i32..15).prop_map(|e| (e as f32).exp2()),
        1 => Just(60_000.0),
        1 => Just(-0.0),
    ]
}

proptest! {
    #[test]
    fn as_good_as_brute_force(values in prop::collection::vec(awkward(), 1..11), k in 1_usize..6) {
        check_types(&values, None, k, |points, k| naive::brute(points, 0, k));
    }

    #[test]
    fn as_good_as_quadratic(
        pairs in prop::collection::vec((awkward(), 0.01_f32..10.0), 1..50),
        k in 1_usize..20,
        weighted: bool,
    ) {
        let (values, weights): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        check_types(&values, weighted.then_some(&weights[..]), k, naive::quadratic);
    }

    #[test]
    fn weights_stand_for_copies(pairs in prop::collection::vec((awkward(), 1_usize..5), 1..30), k in 1_usize..8) {
        let values: Vec<f32> = pairs.iter().map(|p| p.0).collect();
        let weights: Vec<f32> = pairs.iter().map(|p| p.1 as f32).collect();
        let copies: Vec<f32> = pairs.iter().flat_map(|&(x, n)| std::iter::repeat_n(x, n)).collect();
        let one = ValueHistogram::new(&values, Weights::Each(&weights), Precision::Exact).cluster(k);
        let other = ValueHistogram::new(&copies, Weights::Equal, Precision::Exact).cluster(k);
        prop_assert!((one.cost - other.cost).abs() <= 1e-9 * one.cost);
    }

    #[test]
    fn path_agrees_with_its_plain_twin(seed: u64, m in 1_usize..400, lambda in 0.0_f64..4.0, discounts: bool) {
        let mut noise = Noise(seed);
        let pairs: Vec<(f64, f64)> = (0..m).map(|_| (noise.normal() * 3.0, noise.unit() + 0.1)).collect();
        let points = naive::points(&pairs);
        let m = points.len();
        let mut prefix = PrefixSums::new(&points);
        if discounts {
            let mut discount: Vec<f64> = (0..=m).map(|_| noise.unit() * 0.3 * lambda).collect();
            (discount[0], discount[m]) = (0.0, 0.0);
            prefix.set_discount(discount.into_iter().collect());
        }
        let mut path = LeastWeightPath::default();
        path.find(&prefix, lambda);
        let mut best = vec![0.0];
        for j in 1..=m {
            let discount = prefix.discount.get(j).copied().unwrap_or(0.0);
            let costs = (0..j).map(|i| best[i] + naive::run(&points, i, j) + lambda - discount);
            best.push(costs.fold(f64::INFINITY, f64::min));
        }
        for (found, best) in path.best.iter().zip(&best) {
            prop_assert!((found - best).abs() <= 1e-9 * (1.0 + best.abs()));
        }
        if !discounts {
            let mut twin = LeastWeightPath::default();
            twin.find(&DoubleDoubleSums::new(&points), lambda);
            prop_assert!((twin.best[m] - best[m]).abs() <= 1e-9 * (1.0 + best[m].abs()));
        }
        // And from the other side.
        path.find(&prefix.mirrored(), lambda);
        prop_assert!((path.best[m] - best[m]).abs() <= 1e-9 * (1.0 + best[m].abs()));
    }
}

/// Equal steps with equal weights: many k share a price, and the solutions must be spliced.
#[test]
fn ties_are_spliced() {
    for m in 2..40 {
        for step in [1, 3] {
            let pairs: Vec<(f64, f64)> = (0..m)
                .map(|i| (f64::from(i / step * step), f64::from(i % 2 + 1)))
                .collect();
            let points = naive::points(&pairs);
            for k in 1..=points.len() {
                check(
                    &lagrangian::cluster(&points, k),
                    &points,
                    k,
                    naive::quadratic(&points, k),
                );
            }
        }
    }
}

#[test]
fn precise_costs_are_precise() {
    for kind in KINDS {
        let values = Noise(3).values(kind, 300);
        let points = pairs(&values, None);
        let prefix = DoubleDoubleSums::new(&points);
        for (i, j) in
            (0..points.len()).flat_map(|i| (i + 1..=points.len()).step_by(7).map(move |j| (i, j)))
        {
            let cost = naive::run(&points, i, j);
            assert!(
                (prefix.cost(i, j) - cost).abs() <= 1e-12 * cost,
                "{kind:?} {i}..{j}"
            );
        }
    }
}

#[test]
fn as_good_as_divide_and_conquer() {
    for kind in KINDS {
        let values = Noise(5).values(kind, 1500);
        for k in [2, 3, 16, 50] {
            check_types(&values, None, k, naive::divide);
        }
    }
}

#[test]
fn outliers_cost_nothing() {
    // One value of 60,000 among values of a thousandth: the bulk must be clustered as if it were alone.
    let mut values = Noise(1).values(Kind::Outlier, 2000);
    let all = ValueHistogram::new(&values, Weights::Equal, Precision::Exact).cluster(17);
    values.remove(0);
    let bulk = ValueHistogram::new(&values, Weights::Equal, Precision::Exact).cluster(16);
    assert!((all.cost - bulk.cost).abs() <= 1e-9 * bulk.cost);
    assert_eq!(all.centroids[16], 60_000.0);
}

/// Else each step of a search goes over all values, five times and more.
#[test]
fn the_first_price_is_nearly_right() {
    for kind in [
        Kind::Normal,
        Kind::Uniform,
        Kind::Cauchy,
        Kind::Lognormal,
        Kind::Outlier,
    ] {
        for (n, k) in [(4608, 4), (4608, 16), (40_000, 64), (60_000, 256)] {
            let points = pairs(&Noise(5).values(kind, n), None);
            let prefix = PrefixSums::new(&points);
            let (lambda, like) = lagrangian::initial(&points, &prefix, k);
            let mut path = LeastWeightPath::default();
            path.find(&prefix, lambda);
            let bought = path.borders(points.len()).len() - 1;
            assert!(
                bought.abs_diff(k) <= 1 + k / 64,
                "{kind:?}: {bought} of {k}"
            );
            let like = like.expect("a selection");
            assert_eq!(
                (like.len(), like[0], like[k] as usize),
                (k + 1, 0, points.len())
            );
        }
    }
}

#[test]
fn nothing_and_next_to_nothing() {
    let none: [f32; 0] = [];
    let found = ValueHistogram::new(&none, Weights::Equal, Precision::Refined).cluster(4);
    assert_eq!(
        (found.centroids.len(), found.cost, found.gap),
        (0, 0.0, 0.0)
    );
    let odd = [f32::NAN, f32::INFINITY];
    assert_eq!(
        ValueHistogram::new(&odd, Weights::Equal, Precision::Refined)
            .cluster(4)
            .centroids
            .len(),
        0
    );
    let same = [2.5_f32; 9];
    assert_eq!(
        ValueHistogram::new(&same, Weights::Equal, Precision::Refined)
            .cluster(0)
            .centroids,
        [2.5]
    );
    // Weights that say nothing.
    let found = ValueHistogram::new(
        &[1.0_f32, 3.0],
        Weights::Each(&[0.0, -1.0]),
        Precision::Exact,
    )
    .cluster(1);
    assert_eq!(found.centroids, [2.0]);
}
