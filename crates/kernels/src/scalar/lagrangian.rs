//! The price λ of a cluster at which exactly k are bought: optimal 1-D k-means, by Lagrangian relaxation.
//!
//! The least cost with k clusters is convex in k, so each k is the answer at some λ (a Lagrange multiplier), and
//! the answer for the right one is provably optimal. It is guessed from the density (Panter and Dite: cost
//! proportional to the cube of the integral of density^(1/3), over k²), bracketed with a few of the borders, then with more, and at
//! last with all of them.
//!
//! Cost: 1 to 3 passes of O(n log n), hardly dependent on k. Memory O(n), never k × n.
//! Source: Aggarwal, Schieber and Tokuyama 1994; Grønlund et al. 2017 (arXiv 1701.07204).
//! Our deviations: (1) ties: several k can share one λ, and then none buys exactly k; the two
//! neighbouring solutions are spliced where an edge of one spans an edge of the other, which the Monge property
//! proves to be optimal. (2) A bracket that does not shrink is cut at the slope of the chord between its two
//! ends, which either finds a new corner of the convex hull or proves the tie. (3) Where the digits of
//! the prefix sums do not suffice, the search is repeated with twice as many.

use super::double_double::DoubleDoubleSums;
use super::least_weight_path::{LeastWeightPath, least_weight_path, least_weight_path_double};
use super::points::Points;
use super::prefix_sums::{IntervalCosts, PrefixSums};

/// What to add to a count in the formula of Panter and Dite, which is exact for many clusters only: nothing would suit
/// uniform values, and 0.85 normal ones.
const SHIFT: f64 = 0.45;
/// Borders per cluster in the selections that λ is looked for in, one after the other.
const STAGES: [usize; 3] = [10, 40, 160];
/// From so many clusters on, the range of λ that buys them is easily missed.
pub(crate) const MANY_CLUSTERS: usize = 64;
/// How much smaller the rounding is with twice the digits; some are left for the arithmetic.
const DIGITS: f64 = 1.0 / (1_u64 << 46) as f64;
/// Doubt about the optimum that is let pass, relative to the cost.
const CLEAR: f64 = 5e-10;

/// Optimal clusters of one group.
#[derive(Debug, Clone, PartialEq)]
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
pub(crate) fn cluster(points: &Points, k: usize) -> Clusters {
    if points.len() == 0 {
        return Clusters {
            centroids: Vec::new(),
            cost: 0.0,
            gap: 0.0,
        };
    }
    partition(points, &PrefixSums::new(points), None, k.max(1), None).clusters()
}

/// An optimal partition into intervals.
pub(crate) struct Partition {
    /// First and last included.
    pub(crate) borders: Vec<u32>,
    /// Price at which it was found.
    pub(crate) lambda: f64,
    /// Mean and cost of each interval.
    intervals: Vec<(f64, f64)>,
    /// What rounding may have cost, relative to the cost.
    rounding: f64,
}

impl Partition {
    pub(crate) fn new(points: &Points, borders: Vec<u32>, lambda: f64) -> Self {
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

    pub(crate) fn cost(&self) -> f64 {
        self.intervals.iter().map(|run| run.1).sum()
    }

    pub(crate) fn clusters(&self) -> Clusters {
        Clusters {
            centroids: self.intervals.iter().map(|run| run.0).collect(),
            cost: self.cost(),
            gap: self.rounding,
        }
    }
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

/// The optimal partition into `k` intervals, or as many as there are points; `hint` is a λ to try first. With `among`, it
/// is known that an optimum has no other borders than those, which include the first and the last.
pub(crate) fn partition(
    points: &Points,
    prefix: &PrefixSums,
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
    let lambda = hint.unwrap_or_else(|| initial_lambda(points, prefix, k));
    let Found {
        borders, lambda, ..
    } = match among {
        None => search(prefix, least_weight_path, k, lambda),
        Some(among) => {
            let mut found = search(&prefix.at_borders(among), least_weight_path, k, lambda);
            for border in &mut found.borders {
                *border = among[*border as usize];
            }
            found
        }
    };
    let found = Partition::new(points, borders, lambda);
    if prefix.rounding(&found.borders, &found.intervals) <= CLEAR * found.cost() {
        return found;
    }
    let Found {
        borders, lambda, ..
    } = search(
        &DoubleDoubleSums::new(points),
        least_weight_path_double,
        k,
        lambda,
    );
    let mut found = Partition::new(points, borders, lambda);
    let rounding = prefix.rounding(&found.borders, &found.intervals) * DIGITS;
    if found.cost() > 0.0 && rounding > CLEAR * found.cost() {
        found.rounding = rounding / found.cost();
    }
    found
}

/// What a search has found.
struct Found {
    borders: Vec<u32>,
    lambda: f64,
    /// Estimate of the middle of the λ that buy as many clusters.
    middle: Option<f64>,
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
    (weight > 0.0).then(|| sum / weight)
}

/// Brackets λ, beginning with `lambda`.
fn search<R: IntervalCosts>(
    intervals: &R,
    least_weight_path: fn(&R, f64, &mut LeastWeightPath),
    k: usize,
    mut lambda: f64,
) -> Found {
    let m = intervals.len();
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
            || misses > if bracketed { 1 } else { 8 };
        if cut {
            lambda = (few.cost - many.cost) / (many.clusters() - few.clusters()) as f64;
            misses = 0;
        }
        least_weight_path(intervals, lambda, &mut path);
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
        let found = search(&thin, least_weight_path, k, start);
        lambda = Some(found.middle.unwrap_or_else(|| {
            if k < MANY_CLUSTERS {
                return found.lambda;
            }
            // At once: then it may be at an end of its range. Look at a λ that is higher by about that range.
            let higher = found.lambda * (1.0 + 3.0 / k as f64);
            let mut path = LeastWeightPath::default();
            least_weight_path(&thin, higher, &mut path);
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
