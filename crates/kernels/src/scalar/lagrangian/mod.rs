//! The price λ of a cluster at which exactly k are bought: optimal 1-D k-means, by Lagrangian relaxation.
//!
//! The least cost with k clusters is convex in k, so each k is the answer at some λ (a Lagrange multiplier), and
//! the answer for the right one is provably optimal. It is guessed from the density (Panter and Dite: cost
//! proportional to the cube of the integral of density^(1/3), over k²), bracketed with a few of the borders, for many clusters with more, and at
//! last with all of them.
//!
//! Cost: 1 to 3 passes of O(n log n), hardly dependent on k. Memory O(n), never k × n.
//! Source: Aggarwal, Schieber and Tokuyama 1994; Grønlund et al. 2017 (arXiv 1701.07204).
//! Our deviations: (1) ties: several k can share one λ, and then none buys exactly k; the two
//! neighbouring solutions are spliced where an edge of one spans an edge of the other, which the Monge property
//! proves to be optimal. (2) A bracket that does not shrink is cut at the slope of the chord between its two
//! ends, which either finds a new corner of the convex hull or proves the tie. (3) Where the digits of
//! the prefix sums do not suffice, the search is repeated with twice as many, or begun with them if what the few borders gave says so.

mod initial;
mod search;

use super::double_double::DoubleDoubleSums;
use super::points::Points;
use super::prefix_sums::{IntervalCosts, PrefixSums};
pub(crate) use initial::{MANY_CLUSTERS, cube_root, initial, near_optimum};
use search::search;

/// How much smaller the rounding is with twice the digits; some are left for the arithmetic.
const DIGITS: f64 = 1.0 / (1_u64 << 46) as f64;
/// Doubt about the optimum that is let pass, relative to the cost.
const CLEAR: f64 = 5e-10;
/// Doubt about a partition that is nearly the optimum, relative to its cost, which tells that more digits are needed.
const HOPELESS: f64 = 100.0 * CLEAR;

/// Optimal clusters of one group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clusters {
    /// Means of the clusters, ascending.
    pub centroids: Vec<f64>,
    /// Weighted squared error at these centroids.
    pub cost: f64,
    /// Proven upper bound on `(cost - optimum) / optimum`; 0 when exact.
    ///
    /// Exact means within 1e-9. Only values whose squares differ by more than some 25 orders of magnitude from
    /// the cost can make the bound larger than [`Precision::Refined`](crate::Precision::Refined) allows: twice the digits of a float are not
    /// enough for them.
    pub gap: f64,
}

/// Optimal clusters of `points`.
pub(crate) fn cluster(points: &Points<'_>, k: usize) -> Clusters {
    if points.len() == 0 || points.stop.requested() {
        return Clusters::default();
    }
    partition(points, &PrefixSums::new(points), None, k.max(1), None).clusters()
}

/// An optimal partition into intervals.
pub(crate) struct Partition {
    /// First and last included.
    pub(crate) borders: Vec<u32>,
    /// λ at which it was found.
    pub(crate) lambda: f64,
    /// Mean and cost of each interval.
    intervals: Vec<(f64, f64)>,
    /// What rounding may have cost, relative to the cost.
    rounding: f64,
}

impl Partition {
    pub(crate) fn new(points: &Points<'_>, borders: Vec<u32>, lambda: f64) -> Self {
        let intervals = borders
            .windows(2)
            .map(|run| points.cluster(run[0] as usize, run[1] as usize))
            .collect();
        Partition {
            borders,
            lambda,
            intervals,
            rounding: 0.0,
        }
    }

    /// The same by the prefix sums alone, as far as their digits go.
    fn of_sums(prefix: &PrefixSums<'_>, borders: Vec<u32>, lambda: f64) -> Self {
        let interval = |run: &[u32]| {
            let (lo, hi) = (run[0] as usize, run[1] as usize);
            let mean = (prefix.s1[hi] - prefix.s1[lo]) / (prefix.w[hi] - prefix.w[lo]);
            (prefix.anchor + mean, prefix.cost(lo, hi))
        };
        Partition {
            intervals: borders.windows(2).map(interval).collect(),
            borders,
            lambda,
            rounding: 0.0,
        }
    }

    pub(crate) fn cost(&self) -> f64 {
        self.intervals.iter().map(|run| run.1).sum()
    }

    /// These intervals as clusters with other centroids, and what they cost with those.
    pub(crate) fn moved(&self, points: &Points<'_>, centroids: Vec<f64>) -> Clusters {
        let weight = |run: &[u32]| {
            points.w[run[0] as usize..run[1] as usize]
                .iter()
                .sum::<f64>()
        };
        let runs = self.borders.windows(2).zip(&self.intervals).zip(&centroids);
        let more = runs.map(|((run, (mean, _)), c)| weight(run) * (c - mean) * (c - mean));
        Clusters {
            cost: self.cost() + more.sum::<f64>(),
            centroids,
            gap: 0.0,
        }
    }

    pub(crate) fn clusters(&self) -> Clusters {
        Clusters {
            centroids: self.intervals.iter().map(|run| run.0).collect(),
            cost: self.cost(),
            gap: self.rounding,
        }
    }
}

/// The optimal partition into `k` intervals, or as many as there are points; `hint` is a λ to try first. With `among`, it
/// is known that an optimum has no other borders than those, which include the first and the last.
pub(crate) fn partition(
    points: &Points<'_>,
    prefix: &PrefixSums<'_>,
    among: Option<&[u32]>,
    k: usize,
    hint: Option<f64>,
) -> Partition {
    let m = points.len();
    if m <= k {
        return Partition::new(points, (0..=m as u32).collect(), 0.0);
    }
    if k <= 1 {
        return Partition::new(points, vec![0, m as u32], f64::INFINITY);
    }
    let (mut lambda, like) = match hint {
        Some(lambda) => (lambda, None),
        None => initial(points, prefix, k),
    };
    let doubt = |found: &Partition| prefix.rounding_error(&found.borders, &found.intervals);
    // Where the digits do not suffice for about the optimum, they will not for itself.
    let like = like.map(|borders| Partition::of_sums(prefix, borders, lambda));
    if like.is_none_or(|like| doubt(&like) <= HOPELESS * like.cost()) {
        let mut found = match among {
            None => search(prefix, k, lambda),
            Some(among) => search(&prefix.at_borders(among), k, lambda),
        };
        if let Some(among) = among {
            let borders = found.borders.iter_mut();
            borders.for_each(|border| *border = among[*border as usize]);
        }
        lambda = found.lambda;
        let found = Partition::new(points, found.borders, lambda);
        if doubt(&found) <= CLEAR * found.cost() || points.stop.requested() {
            return found;
        }
    }
    if points.stop.requested() {
        return Partition::new(points, vec![0, m as u32], lambda);
    }
    let found = search(&DoubleDoubleSums::new(points), k, lambda);
    let mut found = Partition::new(points, found.borders, found.lambda);
    let rounding = doubt(&found) * DIGITS;
    if found.cost() > 0.0 && rounding > CLEAR * found.cost() {
        found.rounding = rounding / found.cost();
    }
    found
}
