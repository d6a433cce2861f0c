//! Work that is no longer wanted.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::draws::Draw;
use super::naive;
use super::{Kind, Noise};
use crate::scalar::double_double::DoubleDoubleSums;
use crate::scalar::lagrangian;
use crate::scalar::least_weight_path::LeastWeightPath;
use crate::scalar::points::Points;
use crate::scalar::prefix_sums::{IntervalCosts, PrefixSums};
use crate::scalar::radix_sort::radix;
use crate::simd::f64x8::F64x8;
use crate::stop::Stop;
use crate::{Precision, ValueHistogram, VectorOptions, Weights, assign_vectors, cluster_vectors};

/// Costs that are no longer wanted once somebody has asked `patience` times; counts how often a border is looked at.
struct Impatient<R> {
    costs: R,
    patience: Cell<usize>,
    looked_at: Cell<usize>,
}

impl<R: IntervalCosts> IntervalCosts for Impatient<R> {
    type Sums<V: F64x8> = R::Sums<V>;

    fn len(&self) -> usize {
        self.costs.len()
    }

    #[inline(always)]
    fn at<V: F64x8>(&self, border: usize) -> R::Sums<V> {
        self.looked_at.set(self.looked_at.get() + 1);
        self.costs.at(border)
    }

    #[inline(always)]
    fn from<V: F64x8>(&self, border: usize) -> R::Sums<V> {
        self.looked_at.set(self.looked_at.get() + 1);
        self.costs.from(border)
    }

    #[inline(always)]
    fn costs<V: F64x8>(a: &R::Sums<V>, b: &R::Sums<V>) -> V {
        R::costs(a, b)
    }

    fn prefetch(&self, lo: usize, hi: usize) {
        self.costs.prefetch(lo, hi);
    }

    fn stopped(&self) -> bool {
        let left = self.patience.get();
        self.patience.set(left.saturating_sub(1));
        left == 0
    }
}

/// How often borders are looked at by a search that is stopped when asked for the `patience + 1`st time.
fn looks<R: IntervalCosts>(costs: R, patience: usize) -> usize {
    let costs = Impatient {
        costs,
        patience: Cell::new(patience),
        looked_at: Cell::new(0),
    };
    LeastWeightPath::default().find(&costs, 1e-3);
    costs.looked_at.get()
}

#[test]
fn a_path_asks_often_and_ends_at_once() {
    let mut noise = Noise(5);
    let pairs: Vec<(f64, f64)> = (0..200_000).map(|_| (noise.normal(), 1.0)).collect();
    let points = naive::points(&pairs);
    let all = looks(PrefixSums::new(&points), usize::MAX);
    assert!(looks(PrefixSums::new(&points), 0) < all / 50);
    let mut before = 0;
    for patience in 1..20 {
        let some = looks(PrefixSums::new(&points), patience);
        assert!(before <= some && some < before + all / 5, "{patience}");
        before = some;
    }
    assert!(looks(DoubleDoubleSums::new(&points), 0) < all / 50);
}

#[test]
fn any_values_can_be_stopped_at_any_time() {
    let mut noise = Noise(9);
    let weights: Vec<f32> = (0..30_000).map(|_| noise.unit() as f32).collect();
    let stop = AtomicBool::new(true);
    let mut groups: Vec<Vec<f32>> = Draw::ALL
        .map(|draw| draw.values(30_000, f32::MAX, 3))
        .to_vec();
    groups.push(noise.values(Kind::Cauchy, 30_000));
    for values in &groups {
        for given in [Weights::Equal, Weights::Each(&weights)] {
            for precision in [Precision::Refined, Precision::Exact] {
                for k in [1, 2, 16, 64, 256] {
                    let histogram = ValueHistogram::new(values, given, precision);
                    let histogram = histogram.with_stop(Some(&stop));
                    assert!(histogram.cluster(k).centroids.len() <= k.max(1));
                }
            }
        }
    }
}

#[test]
fn what_is_not_stopped_is_right() {
    let values = Noise(11).values(Kind::Cauchy, 200_000);
    let whole = ValueHistogram::new(&values, Weights::Equal, Precision::Exact).cluster(64);
    let mut stopped = 0;
    for after in [0, 200, 2_000, 10_000, 1_000_000_000] {
        let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut left = after;
                while left > 0 && !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(200));
                    left -= 200_i32.min(left);
                }
                stop.store(!done.load(Ordering::Relaxed), Ordering::Relaxed);
            });
            let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Exact);
            let found = histogram.with_stop(Some(&stop)).cluster(64);
            done.store(true, Ordering::Relaxed);
            found
        });
        match stop.load(Ordering::Relaxed) {
            true => stopped += 1,
            false => assert_eq!(found, whole, "{after}"),
        }
    }
    assert!(stopped < 5);
}

/// Each of these goes over all values, of which there may be millions.
#[test]
fn passes_over_sorted_values_end_early() {
    let stop = AtomicBool::new(true);
    let flag = Stop(Some(&stop));
    let keys: Vec<u32> = (0..10_000).rev().collect();
    assert_eq!(radix(keys.clone(), |key| key, flag), keys);
    let mut points = Points::new(flag);
    (0..200_000).for_each(|x| points.push(f64::from(x), 1.0));
    assert!(lagrangian::cluster(&points, 4).centroids.is_empty());
    let ends = |points: &Points<'_>| DoubleDoubleSums::new(points).cost(0, points.len());
    assert_eq!(ends(&points), 0.0);
    stop.store(false, Ordering::Relaxed);
    assert!(ends(&points) > 1e14);
    assert_eq!(lagrangian::cluster(&points, 4).centroids.len(), 4);
}

#[test]
fn vectors_can_be_stopped_at_any_time() {
    let stop = AtomicBool::new(true);
    for draw in Draw::ALL {
        let values = draw.values(6_000, 1e18, 3);
        let finite: Vec<f32> = values.into_iter().filter(|x| x.is_finite()).collect();
        for dim in [1, 2, 4, 6] {
            for k in [1, 16, 256] {
                let options = VectorOptions {
                    stop: Some(&stop),
                    ..VectorOptions::default()
                };
                let found = cluster_vectors(&finite, dim, k, None, options);
                assert_eq!(found.indices.len(), finite.len() / dim);
                let mut indices = found.indices;
                let centroid = finite.get(..dim).unwrap_or_default();
                let error = assign_vectors(&finite, dim, centroid, &mut indices, Some(&stop));
                assert_eq!(error, 0.0);
            }
        }
    }
}
