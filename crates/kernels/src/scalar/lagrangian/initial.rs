//! A λ to begin the search with, from the density of the values.
//!
//! Source: Panter and Dite 1951: an optimal quantizer of many levels puts them in proportion to the integral of density^(1/3).

use super::search::{Corner, middle, search};
use crate::scalar::least_weight_path::LeastWeightPath;
use crate::scalar::points::Points;
use crate::scalar::prefix_sums::{IntervalCosts, PrefixSums};

/// What to add to a count in the formula of Panter and Dite, which is exact for many clusters only: nothing would suit
/// uniform values, and 0.85 normal ones.
const SHIFT: f64 = 0.45;
/// Borders per cluster in the selections that λ is looked for in, one after the other.
const STAGES: [usize; 3] = [10, 40, 160];
/// From so many clusters on, the range of λ that buys them is easily missed.
pub(crate) const MANY_CLUSTERS: usize = 64;

/// A λ to begin with: that of a selection of the borders, for which a guess will do.
pub(crate) fn initial_lambda(points: &Points, prefix: &PrefixSums, k: usize) -> f64 {
    let m = points.len();
    let mut lambda = None;
    for nodes in STAGES.map(|stage| stage * k) {
        if lambda.is_some() && nodes > m / 3 {
            break;
        }
        let (selection, integral) = select_borders(points, prefix, nodes.min(m));
        let start = lambda.unwrap_or(integral.powi(3) / (6.0 * (k as f64 + SHIFT).powi(3)));
        if nodes > m / 3 || selection.len() <= 2 * k {
            return start;
        }
        let thin = prefix.at_borders(&selection);
        let found = search(&thin, k, start);
        lambda = Some(found.middle.unwrap_or_else(|| {
            if k < MANY_CLUSTERS {
                return found.lambda;
            }
            // At once: then it may be at an end of its range. Look at a λ that is higher by about that range.
            let higher = found.lambda * (1.0 + 3.0 / k as f64);
            let mut path = LeastWeightPath::default();
            path.find(&thin, higher);
            let other = Corner::new(&thin, higher, path.borders(thin.len()));
            let found = Corner::new(&thin, found.lambda, found.borders);
            middle(&found, [&other; 2]).unwrap_or(f64::midpoint(found.lambda, higher))
        }));
    }
    lambda.unwrap_or(0.0)
}

/// About `nodes` borders between which an optimal quantizer would put equally many centroids, first and last
/// included, and Σ weight^(1/3) width^(2/3) over the intervals between them.
fn select_borders(points: &Points, prefix: &PrefixSums, nodes: usize) -> (Vec<u32>, f64) {
    let m = points.len();
    let step = (m / (2 * nodes).max(1)).clamp(1, 1 << 16);
    let ends: Vec<usize> = (1..=m.div_ceil(step)).map(|i| (i * step).min(m)).collect();
    let mut at = 0;
    let mut total = 0.0;
    let sums: Vec<f64> = ends
        .iter()
        .map(|&end| {
            let width = points.x[end.min(m - 1)] - points.x[at];
            total += cube_root((prefix.w[end] - prefix.w[at]) * width * width);
            at = end;
            total
        })
        .collect();
    let share = total / nodes as f64;
    let mut borders = vec![0];
    let mut next = share;
    for (&end, &sum) in ends.iter().zip(&sums) {
        if sum >= next || end == m {
            borders.push(end as u32);
            next = sum + share * 0.75;
        }
    }
    (borders, total)
}

/// Cube root of a number that is not negative, to within a hundredth.
pub(crate) fn cube_root(x: f64) -> f64 {
    if x < f64::MIN_POSITIVE {
        return 0.0;
    }
    // A third of the exponent, and then a step of Newton.
    let y = f64::from_bits(x.to_bits() / 3 + 0x2a9f_7893_0000_0000);
    (y + y + x / (y * y)) / 3.0
}
