//! Short and obviously right.

use crate::scalar::double_double::DoubleDoubleSums;
use crate::scalar::points::Points;
use crate::scalar::prefix_sums::IntervalCosts;

/// Distinct ascending values with their weights added up.
pub(super) fn points(pairs: &[(f64, f64)]) -> Points<'static> {
    let mut pairs: Vec<(f64, f64)> = pairs.iter().copied().filter(|p| p.1 > 0.0).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut points = Points::default();
    for run in pairs.chunk_by(|a, b| a.0 == b.0) {
        points.push(run[0].0 + 0.0, run.iter().map(|p| p.1).sum());
    }
    points
}

/// Cost of one run, in two passes.
pub(super) fn run(points: &Points<'_>, lo: usize, hi: usize) -> f64 {
    let pairs = || points.x[lo..hi].iter().zip(&points.w[lo..hi]);
    let origin = points.x[lo];
    let total: f64 = pairs().map(|(_, w)| w).sum();
    let mean = pairs().map(|(x, w)| w * (x - origin)).sum::<f64>() / total;
    pairs().map(|(x, w)| w * (x - origin - mean).powi(2)).sum()
}

/// Least cost of any partition into at most `k` runs, by trying all.
pub(super) fn brute(points: &Points<'_>, from: usize, k: usize) -> f64 {
    let m = points.len();
    if from == m {
        return 0.0;
    }
    if k == 1 {
        return run(points, from, m);
    }
    (from + 1..=m)
        .map(|i| run(points, from, i) + brute(points, i, k - 1))
        .fold(f64::INFINITY, f64::min)
}

/// The same by dynamic programming over all pairs, for up to some hundred points.
pub(super) fn quadratic(points: &Points<'_>, k: usize) -> f64 {
    let m = points.len();
    let costs: Vec<Vec<f64>> = (0..m)
        .map(|i| (i + 1..=m).map(|j| run(points, i, j)).collect())
        .collect();
    let mut best = vec![f64::INFINITY; m + 1];
    best[0] = 0.0;
    for _ in 0..k.min(m) {
        for j in (1..=m).rev() {
            best[j] = (0..j)
                .map(|i| best[i] + costs[i][j - i - 1])
                .fold(best[j], f64::min);
        }
    }
    best[m]
}

/// The same by divide and conquer for each number of runs, for some thousand points.
pub(super) fn divide(points: &Points<'_>, k: usize) -> f64 {
    let m = points.len();
    let prefix = DoubleDoubleSums::new(points);
    let mut last: Vec<f64> = (0..=m)
        .map(|j| if j == 0 { 0.0 } else { prefix.cost(0, j) })
        .collect();
    for _ in 1..k.min(m) {
        let mut next = last.clone();
        conquer(&prefix, &last, &mut next, (1, m), (0, m - 1));
        last = next;
    }
    last[m]
}

fn conquer(
    prefix: &DoubleDoubleSums<'_>,
    last: &[f64],
    next: &mut [f64],
    rows: (usize, usize),
    columns: (usize, usize),
) {
    if rows.0 > rows.1 {
        return;
    }
    let j = (rows.0 + rows.1) / 2;
    let mut best = (f64::INFINITY, columns.0);
    for (i, last) in last
        .iter()
        .enumerate()
        .take(columns.1.min(j - 1) + 1)
        .skip(columns.0)
    {
        let cost = last + prefix.cost(i, j);
        if cost < best.0 {
            best = (cost, i);
        }
    }
    next[j] = next[j].min(best.0);
    if j > rows.0 {
        conquer(prefix, last, next, (rows.0, j - 1), (columns.0, best.1));
    }
    conquer(prefix, last, next, (j + 1, rows.1), (best.1, columns.1));
}
