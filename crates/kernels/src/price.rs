//! The price of a cluster at which exactly k are bought: optimal 1-D k-means.
//!
//! The least cost with k clusters is convex in k, so each k is the answer at some price (a Lagrange multiplier), and
//! the answer for the right price is provably optimal. The price is guessed from the density (Panter and Dite: cost
//! proportional to the cube of the integral of density^(1/3), over k²) and then bracketed.
//!
//! Cost: 2 to 6 passes of O(n log n), hardly dependent on k. Memory O(n), never k × n.
//! Source: Aggarwal, Schieber and Tokuyama 1994; Grønlund et al. 2017 (arXiv 1701.07204).
//! Our deviations: (1) ties: several k can share one price, and then no price buys exactly k; the two
//! neighbouring solutions are spliced where an edge of one spans an edge of the other, which the Monge property
//! proves to be optimal. (2) A bracket that does not shrink is cut at the slope of the chord between its two
//! ends, which either finds a new corner of the convex hull or proves the tie.

use crate::census::Clusters;
use crate::line::{Line, Points};
use crate::path::{Path, cheapest};

/// Optimal clusters of `points`.
pub(crate) fn cluster(points: &Points, k: usize) -> Clusters {
    if points.len() == 0 {
        return Clusters { centroids: Vec::new(), cost: 0.0, gap: 0.0 };
    }
    let line = Line::new(points);
    clusters(points, &partition(points, &line, k.max(1), None).0)
}

/// Centroids and cost of a partition.
pub(crate) fn clusters(points: &Points, borders: &[u32]) -> Clusters {
    let mut clusters = Clusters { centroids: Vec::new(), cost: 0.0, gap: 0.0 };
    for run in borders.windows(2) {
        let (mean, cost) = points.cluster(run[0] as usize, run[1] as usize);
        clusters.centroids.push(mean);
        clusters.cost += cost;
    }
    clusters
}

/// One corner of the convex hull of (clusters, cost).
struct Corner {
    price: f64,
    cost: f64,
    borders: Vec<u32>,
}

impl Corner {
    fn new(line: &Line, price: f64, borders: Vec<u32>) -> Self {
        let cost = borders.windows(2).map(|edge| line.cost(edge[0] as usize, edge[1] as usize)).sum();
        Corner { price, cost, borders }
    }

    fn clusters(&self) -> usize {
        self.borders.len() - 1
    }
}

/// Borders of the optimal partition into `k` runs (or as many as there are points), first and last included, and the
/// price at which it was found; `hint` is a price to try first.
pub(crate) fn partition(points: &Points, line: &Line, k: usize, hint: Option<f64>) -> (Vec<u32>, f64) {
    let m = points.len();
    if m <= k {
        return ((0..=m as u32).collect(), 0.0);
    }
    if k <= 1 {
        return (vec![0, m as u32], f64::INFINITY);
    }
    let mut few = Corner::new(line, f64::INFINITY, vec![0, m as u32]);
    let mut many = Corner { price: 0.0, cost: 0.0, borders: (0..=m as u32).collect() };
    let mut path = Path::default();
    let mut price = hint.unwrap_or_else(|| guess(points, k));
    for round in 0.. {
        let chord = (few.cost - many.cost) / (many.clusters() - few.clusters()) as f64;
        let cut = round % 3 == 2 || !(price > many.price && price < few.price);
        if cut {
            price = chord;
        }
        cheapest(line, price, &mut path);
        let found = Corner::new(line, price, path.borders(m));
        if found.clusters() == k {
            return (found.borders, price);
        }
        let stuck = found.clusters() <= few.clusters() || found.clusters() >= many.clusters();
        if cut && stuck {
            return (splice(&few.borders, &many.borders, k), price);
        }
        let (seen, at) = (found.clusters() as f64, price);
        if found.clusters() < k { few = found } else { many = found }
        price = interpolate(&few, &many, k).unwrap_or(at * (seen / k as f64).powi(3));
    }
    (few.borders, price)
}

/// Price between two corners, on the line through their logarithms.
fn interpolate(few: &Corner, many: &Corner, k: usize) -> Option<f64> {
    if !few.price.is_finite() || many.price <= 0.0 {
        return None;
    }
    let ln = |n: usize| (n as f64).ln();
    let part = (ln(k) - ln(few.clusters())) / (ln(many.clusters()) - ln(few.clusters()));
    Some((few.price.ln() * (1.0 - part) + many.price.ln() * part).exp())
}

/// Panter and Dite: cost ≈ (Σ weight^(1/3) width^(2/3))³ / 12 k², whose slope in k is the price.
fn guess(points: &Points, k: usize) -> f64 {
    let m = points.len();
    let step = (m / 1024).max(1);
    let mut integral = 0.0;
    let mut at = 0;
    while at < m {
        let end = (at + step).min(m);
        let width = points.x[end.min(m - 1)] - points.x[at];
        let weight: f64 = points.w[at..end].iter().sum();
        integral += (weight * width * width).cbrt();
        at = end;
    }
    integral.powi(3) / (6.0 * (k as f64).powi(3))
}

/// A path of `k` edges from one of fewer and one of more, all optimal at one price.
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
