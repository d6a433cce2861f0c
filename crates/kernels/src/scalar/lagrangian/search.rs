//! The search for the λ at which exactly k clusters are the cheapest.
//!
//! λ is bracketed by two corners of the convex hull of (clusters, cost). Cost: a least-weight path for each guess, 1 to 3 mostly.

use crate::scalar::least_weight_path::LeastWeightPath;
use crate::scalar::prefix_sums::IntervalCosts;

/// Corners with so few clusters between them are followed along the chord, which finds one between them if there is one.
const CLOSE: usize = 6;

/// What a search has found.
pub(super) struct Found {
    pub(super) borders: Vec<u32>,
    pub(super) lambda: f64,
    /// Estimate of the middle of the λ that buy as many clusters.
    pub(super) middle: Option<f64>,
}

/// Brackets λ, beginning with `lambda`. If it is stopped, whatever it is at comes out.
pub(super) fn search(intervals: &impl IntervalCosts, k: usize, mut lambda: f64) -> Found {
    let m = intervals.len();
    if intervals.stopped() {
        return Found {
            borders: vec![0, m as u32],
            lambda,
            middle: None,
        };
    }
    let mut few = Corner::new(intervals, f64::INFINITY, vec![0, m as u32]);
    let mut many = Corner {
        lambda: 0.0,
        cost: 0.0,
        borders: (0..=m as u32).collect(),
    };
    let mut path = LeastWeightPath::default();
    // Guesses since one end of the bracket moved for the first time, or since the chord was tried.
    let mut misses = 0;
    loop {
        let bracketed = few.lambda.is_finite() && many.lambda > 0.0;
        let cut = !(lambda > many.lambda && lambda < few.lambda)
            || misses > if bracketed { 1 } else { 8 }
            || bracketed && many.clusters() - few.clusters() <= CLOSE;
        if cut {
            lambda = (few.cost - many.cost) / (many.clusters() - few.clusters()) as f64;
            misses = 0;
        }
        path.find(intervals, lambda);
        if intervals.stopped() {
            return Found {
                borders: few.borders,
                lambda,
                middle: None,
            };
        }
        let found = Corner::new(intervals, lambda, path.borders(m));
        if found.clusters() == k {
            return Found {
                middle: middle(&found, [&few, &many]),
                borders: found.borders,
                lambda,
            };
        }
        let stuck = found.clusters() <= few.clusters() || found.clusters() >= many.clusters();
        if cut && stuck {
            return Found {
                borders: splice(&few.borders, &many.borders, k),
                lambda,
                middle: Some(lambda),
            };
        }
        // Prices below the rounding of costs may buy fewer clusters than higher ones do. The ends never part again for that, or this
        // would not end: every cut brings them nearer.
        if found.clusters() < few.clusters() || found.clusters() > many.clusters() {
            misses = usize::MAX;
            continue;
        }
        // A count stands for a range of λ; of a wrong one, the end towards `k` is the better guess. Steps
        // that do not reach the other side grow.
        let toward = if found.clusters() < k { 0.5 } else { -0.5 };
        let ratio = (found.clusters() as f64 + toward) / k as f64;
        let next = lambda * ratio.powi(3 << misses);
        misses += 1;
        if found.clusters() < k {
            few = found;
        } else {
            many = found;
        }
        lambda = match interpolate(&few, &many, k) {
            Some(between) => {
                misses = if bracketed { misses } else { 0 };
                between
            }
            None => next,
        };
    }
}

/// λ between two corners, on the line through their logarithms.
fn interpolate(few: &Corner, many: &Corner, k: usize) -> Option<f64> {
    if !few.lambda.is_finite() || many.lambda <= 0.0 {
        return None;
    }
    let (low, high) = (
        (few.clusters() as f64 + 0.5).ln(),
        (many.clusters() as f64 - 0.5).ln(),
    );
    let part = ((k as f64).ln() - low) / (high - low);
    Some((few.lambda.ln() * (1.0 - part) + many.lambda.ln() * part).exp())
}

/// Where the middle of the λ of `found` must be, given corners with a few clusters less or more. λ goes with the
/// third power of the number of clusters.
fn middle(found: &Corner, others: [&Corner; 2]) -> Option<f64> {
    let k = found.clusters() as f64;
    let (mut sum, mut weight) = (0.0, 0.0);
    for other in others {
        let more = other.clusters() as f64 - k;
        if more != 0.0 && more.abs() <= 4.0 + k / 32.0 {
            let slope = (found.cost - other.cost) / more;
            sum += slope * (1.0 + more / (2.0 * k)).powi(3) / (more * more);
            weight += 1.0 / (more * more);
        }
    }
    // It is in the same range as the λ that bought them; where it is far away, costs do not follow that rule.
    let near = |middle: &f64| (middle / found.lambda - 1.0).abs() <= 4.0 / k;
    (weight > 0.0).then(|| sum / weight).filter(near)
}

/// One corner of the convex hull of (clusters, cost).
struct Corner {
    lambda: f64,
    cost: f64,
    borders: Vec<u32>,
}

impl Corner {
    fn new(intervals: &impl IntervalCosts, lambda: f64, borders: Vec<u32>) -> Self {
        let cost = borders
            .windows(2)
            .map(|edge| intervals.cost(edge[0] as usize, edge[1] as usize))
            .sum();
        Corner {
            lambda,
            cost,
            borders,
        }
    }

    fn clusters(&self) -> usize {
        self.borders.len() - 1
    }
}

/// A path of `k` edges from one of fewer and one of more, all optimal at one λ.
fn splice(few: &[u32], many: &[u32], k: usize) -> Vec<u32> {
    let ahead = k + 1 - few.len();
    for i in 0..few.len() - 1 {
        if many[i + ahead + 1] <= few[i + 1] {
            let mut borders = many[..=i + ahead].to_vec();
            borders.extend_from_slice(&few[i + 1..]);
            return borders;
        }
    }
    few.to_vec()
}
