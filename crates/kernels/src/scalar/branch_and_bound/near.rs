//! Clusters from moments alone, and the proof that they are near the optimum.
//!
//! An upper bound: borders are found among a selection, then among all near those, and [settled](super::settle) inside the bins. A lower
//! bound: the least-weight path where each border gets its discount, at a price λ that buys as many clusters; at any other λ it is a
//! bound, too, but a lower one.
//!
//! Cost: a search over all bins, mostly one. Wrong choice: see [`branch_and_bound`](super), which goes on where this gives up.

use std::cmp::Ordering;

use super::coarse::Coarse;
use super::settle::settle;
use super::{LIMIT, NEAR};
use crate::scalar::lagrangian::{self, Clusters, Partition};
use crate::scalar::least_weight_path::LeastWeightPath;
use crate::scalar::prefix_sums::PrefixSums;

/// Searches for a lower bound at most.
const TRIES: usize = 6;

/// Clusters of bins that all are open, and their gap, if it is small enough. `ends` are the first and the last value.
pub(super) fn near(coarse: &mut Coarse<'_>, k: usize, ends: (f64, f64)) -> Option<(Clusters, f64)> {
    let mut prefix = PrefixSums::new(&coarse.points);
    let (mut lambda, borders) = lagrangian::near_optimum(&coarse.points, &prefix, k)?;
    let spread = coarse.spread();
    let rounding = 16.0 * f64::EPSILON * prefix.sum_of_squares();
    let settled = |coarse: &Coarse<'_>, prefix: &PrefixSums<'_>, borders: &[u32]| {
        let settled = settle(coarse, prefix, borders)?;
        let clusters = Partition::new(&coarse.points, settled.borders, 0.0);
        Some(clusters.moved(&coarse.points, settled.centroids))
    };
    let mut best = settled(coarse, &prefix, &borders);
    let mut path = LeastWeightPath::default();
    let mut bracket = (0.0, f64::INFINITY);
    for _ in 0..TRIES {
        let limit = LIMIT * lambda;
        coarse.bound(&prefix, k, ends, limit);
        prefix.set_discount(coarse.discount(lambda));
        path.find(&prefix, lambda);
        let lower = spread + path.best[coarse.points.len()] - lambda * k as f64 - rounding;
        let borders = path.borders(coarse.points.len());
        let found = borders.len() - 1;
        if found == k {
            // This path knows of all borders, but presumes that any bin is cut for the best.
            prefix.discount.clear();
            let other = settled(coarse, &prefix, &borders);
            let better = |other: &Clusters| best.as_ref().is_none_or(|best| other.cost < best.cost);
            best = other.filter(better).or(best);
        }
        if let Some(best) = &best {
            let upper = spread + best.cost;
            if lower > 0.0 && upper <= lower * (1.0 + NEAR) && lambda + (upper - lower) <= limit {
                return Some((best.clone(), ((upper - lower) / lower).max(0.0)));
            }
        }
        // The range of λ that buys k clusters is between those that buy less and more; that of a wrong number ends towards it.
        let toward = match found.cmp(&k) {
            Ordering::Equal => return None,
            Ordering::Less => {
                bracket.1 = lambda;
                0.5
            }
            Ordering::Greater => {
                bracket.0 = lambda;
                -0.5
            }
        };
        let next = lambda * ((found as f64 + toward) / k as f64).powi(3);
        lambda = match bracket.0 < next && next < bracket.1 {
            true => next,
            false => f64::midpoint(bracket.0, bracket.1),
        };
    }
    None
}
