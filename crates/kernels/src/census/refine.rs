//! Optimal clusters of very many values, most of which are never sorted.
//!
//! 1. Values are put into bins, of which only weight, sum and sum of squares are kept.
//! 2. The best clusters that do not cut a bin are found, at some price λ for a cluster. That is an upper bound.
//! 3. Cutting a bin saves at most `2 d · sqrt(weight · spread)`, where `d` is the distance from a border in
//!    the bin to the centroids on its sides. In an optimum `d` is bounded: if the centroid were farther, splitting off
//!    the values next to the border would gain more than λ. With that much credit for each border, the same
//!    search gives a lower bound, for the whole and for each single border (forwards plus backwards).
//! 4. A border whose lower bound exceeds the upper bound is in no optimum. The values in the bins next to the
//!    others are gathered, sorted, and the search runs once more with those values one by one. Its answer is optimal.
//!
//! Cost: two passes over the values, and sorting of about `1.4 k² / bins` of them. Wrong choice: for few values or
//! very many clusters, where nearly all bins stay; then [`cluster`] gives up and all values are sorted.
//! Source: ours; reduction by bounds as in branch and bound, credits as in Lagrangian relaxation.

use rayon::prelude::*;

use super::Precision;
use super::bins::{Bins, Moments};
use super::wide::unkey;
use crate::buffer::Buffer;
use crate::line::{Line, Points, Runs};
use crate::path::{Path, cheapest};
use crate::price::{self, Clusters, NARROW, Partition};
use crate::weights::Weights;

/// A coarse answer this near to its bound is good enough for [`Precision::Refined`].
const NEAR: f64 = 1e-6;
/// Above this part of the values, sorting all of them is as quick.
const MANY: f64 = 0.6;
/// Fewer values than this are sorted at once if about all bins would have to be resolved.
const LARGE: usize = 1 << 22;
/// Runs of bins per cluster for which distances are bounded.
const RUNS: usize = 64;
/// Values summed up by one task.
const CHUNK: usize = 1 << 17;
/// Rounding errors up to this part of the cost are left in it.
const CLEAR: f64 = 1e-11;
/// Rounding error of a spread relative to the sum of squares it is the rest of.
const NOISE: f64 = 8.0 * f64::EPSILON;
/// No split of a cluster of an optimum gains more than this many times the price.
const LIMIT: f64 = 1.5;
/// Room for rounding in the bounds.
const ROOM: f64 = 1.0 + 1e-9;

/// Group of values to be clustered.
pub(super) struct Group<'a> {
    pub(super) values: &'a [f32],
    pub(super) weights: Weights<'a>,
    pub(super) range: (f32, f32),
    pub(super) finite: bool,
    pub(super) precision: Precision,
}

/// Clusters, or `None` if sorting all values is no slower.
pub(super) fn cluster(group: &Group<'_>, k: usize) -> Option<Clusters> {
    let target = (64 * k * k)
        .clamp(1 << 13, if k <= 64 { 1 << 16 } else { 1 << 17 })
        .min(group.values.len() / 8);
    if k * k > target && group.values.len() < LARGE {
        return None;
    }
    let bins = Bins::new(group.values, group.range, target);
    let moments = bins.moments(group.values, group.weights, group.finite);
    let coarse = Coarse::new(&moments);
    if coarse.points.len() < 8 * k {
        return None;
    }
    let mut line = Line::new(&coarse.points);
    let spread: f64 = coarse.spread.iter().sum();
    if k == 1 {
        let whole = price::partition(&coarse.points, &line, None, k, None).clusters();
        return Some(finished(group, whole, &bins, coarse.noise, spread, 0.0));
    }

    let anchor = f64::from(bins.anchor);
    let ends = (
        f64::from(group.range.0) - anchor,
        f64::from(group.range.1) - anchor,
    );
    let m = line.len();
    let (mut forward, mut backward) = (Path::default(), Path::default());
    // A better upper bound leaves less to resolve. That is worth a search where clusters are many.
    let known = (k >= NARROW).then(|| price::partition(&coarse.points, &line, None, k, None));
    let mut price = match &known {
        Some(rough) => rough.price,
        None => price::approach(&coarse.points, &line, k),
    };
    let credit = coarse.credit(&line, k, ends, LIMIT * price, price);
    line.set_credit(credit);
    cheapest(&line, price, &mut forward);
    let rough = known.unwrap_or_else(|| {
        let borders = forward.borders(m);
        if borders.len() == k + 1 {
            return Partition::new(&coarse.points, borders, price);
        }
        line.credit.clear();
        let rough = price::partition(&coarse.points, &line, None, k, Some(price));
        price = rough.price;
        let credit = coarse.credit(&line, k, ends, LIMIT * price, price);
        line.set_credit(credit);
        cheapest(&line, price, &mut forward);
        rough
    });
    let upper = spread + rough.cost();
    let rounding = 16.0 * f64::EPSILON * line.noise();
    let lower = spread + forward.best[m] - price * k as f64 - rounding;
    // The distance bound presumed that no split gains more than the limit.
    if lower <= 0.0 || price + (upper - lower) > LIMIT * price {
        return None;
    }
    let gap = ((upper - lower) / lower).max(0.0);
    if group.precision == Precision::Refined && gap <= NEAR {
        return Some(finished(
            group,
            rough.clusters(),
            &bins,
            coarse.noise,
            spread,
            gap,
        ));
    }
    cheapest(&line.mirrored(), price, &mut backward);
    let open = |e: usize| {
        let bound =
            spread + forward.best[e] + backward.best[m - e] + line.credit[e] - price * k as f64;
        bound - 2.0 * rounding <= upper * ROOM
    };
    let open: Vec<bool> = (0..=m).map(open).collect();
    let marked: Vec<bool> = (0..m)
        .map(|b| coarse.number[b] > 1.0 && (open[b] || open[b + 1]))
        .collect();
    let number: f64 = (0..m)
        .filter(|&b| marked[b])
        .map(|b| coarse.number[b])
        .sum();
    if number > MANY * group.values.len() as f64 {
        return None;
    }
    let mut flags = vec![false; bins.len];
    for (&bin, &mark) in coarse.bin.iter().zip(&marked) {
        flags[bin as usize] = mark;
    }
    let sorted = bins.gather(group.values, group.weights, &flags);
    let (points, borders) = coarse.resolve(&marked, &open, &sorted, anchor);
    let rest: f64 = (0..m)
        .filter(|&b| !marked[b])
        .map(|b| coarse.spread[b])
        .sum();
    let line = Line::new(&points);
    let found = price::partition(
        &points,
        &line,
        Some(&borders[..]).filter(|borders| borders.len() > k + 1),
        k,
        Some(price),
    )
    .clusters();
    Some(finished(group, found, &bins, coarse.noise, rest, 0.0))
}

/// Back from positions relative to the anchor, with the spread inside bins.
fn finished(
    group: &Group<'_>,
    mut clusters: Clusters,
    bins: &Bins,
    noise: f64,
    spread: f64,
    gap: f64,
) -> Clusters {
    clusters
        .centroids
        .iter_mut()
        .for_each(|c| *c += f64::from(bins.anchor));
    clusters.cost += spread;
    clusters.gap += gap;
    if noise > CLEAR * clusters.cost {
        clusters.cost = cost(group, &clusters.centroids);
    }
    clusters
}

/// Cost from scratch.
fn cost(group: &Group<'_>, centroids: &[f64]) -> f64 {
    let borders: Vec<f64> = centroids
        .windows(2)
        .map(|pair| f64::midpoint(pair[0], pair[1]))
        .collect();
    let part = |c: usize, chunk: &[f32]| {
        let mut sum = 0.0;
        group.weights.each(c * CHUNK, chunk.len(), |i, w| {
            let x = f64::from(chunk[i]);
            if x.is_finite() {
                let d = x - centroids[borders.partition_point(|&border| x > border)];
                sum += w * (d * d);
            }
        });
        sum
    };
    let parts: Vec<f64> = group
        .values
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(c, chunk)| part(c, chunk))
        .collect();
    parts.iter().sum()
}

/// The bins that are not empty.
struct Coarse {
    /// Their means, relative to the anchor, and weights.
    points: Points,
    /// Sum of squares around the mean.
    spread: Buffer,
    /// Sum of squares around the anchor; its last digits are lost in the spread.
    square: Buffer,
    number: Buffer,
    bin: Vec<u32>,
    /// Bound on the rounding errors of all spreads.
    noise: f64,
}

impl Coarse {
    fn new(moments: &[Moments]) -> Self {
        let mut coarse = Coarse {
            points: Points::default(),
            spread: Buffer::default(),
            square: Buffer::default(),
            number: Buffer::default(),
            bin: Vec::new(),
            noise: 0.0,
        };
        for (bin, &[w, s1, s2, number]) in moments.iter().enumerate() {
            if number > 0.0 {
                let mean = s1 / w;
                coarse.points.push(mean, w);
                coarse.spread.push(if number > 1.0 {
                    (s2 - s1 * mean).max(0.0)
                } else {
                    0.0
                });
                coarse.square.push(s2);
                coarse.number.push(number);
                coarse.noise += if number > 1.0 { s2 * f64::EPSILON } else { 0.0 };
                coarse.bin.push(bin as u32);
            }
        }
        coarse
    }

    /// How much less a path of `k` clusters may cost for bins that a border cuts instead of passing by, for each border.
    fn credit(&self, line: &Line, k: usize, ends: (f64, f64), limit: f64, price: f64) -> Buffer {
        let m = self.points.len();
        // Distances differ little from bin to bin, so they are bounded for some neighbours at once.
        let step = (m / (RUNS * k)).max(1);
        let runs = m.div_ceil(step);
        let borders: Vec<u32> = (0..=runs).map(|r| (r * step).min(m) as u32).collect();
        let thin = line.at_borders(&borders);
        let means: Vec<f64> = (0..runs)
            .map(|r| line.anchor + (thin.s1[r + 1] - thin.s1[r]) / (thin.w[r + 1] - thin.w[r]))
            .collect();
        let left = reach(&means, ends, &thin, limit);
        // The same from the other side, on the mirrored line.
        let back: Vec<f64> = means.iter().rev().map(|x| -x).collect();
        let right = reach(&back, (-ends.1, -ends.0), &thin.mirrored(), limit);
        let distance: Vec<f64> = left
            .iter()
            .zip(right.iter().rev())
            .map(|(&left, &right)| left.min(right))
            .collect();
        let saving = |b: usize| {
            if self.number[b] <= 1.0 {
                return 0.0;
            }
            let (w, spread) = (self.points.w[b], self.spread[b] + self.square[b] * NOISE);
            let saved = 2.0 * distance[b / step] * (w * spread).sqrt();
            saved.max(spread).min(spread + price) * ROOM
        };
        let mut credit = Buffer::zeros(m + 1);
        let mut before = saving(0);
        for b in 1..m {
            let after = saving(b);
            credit[b] = before.max(after) + (before.min(after) - price).max(0.0);
            before = after;
        }
        credit
    }

    /// Points in which the marked bins are resolved into the given values, and the borders between them that are open.
    fn resolve(
        &self,
        marked: &[bool],
        open: &[bool],
        sorted: &[(u32, f32)],
        anchor: f64,
    ) -> (Points, Vec<u32>) {
        let mut points = Points::default();
        let mut borders = vec![0];
        let mut at = 0;
        for (b, &marked) in marked.iter().enumerate() {
            if b > 0 && open[b] {
                borders.push(points.len() as u32);
            }
            if !marked {
                points.push(self.points.x[b], self.points.w[b]);
                continue;
            }
            let end = (at + self.number[b] as usize).min(sorted.len());
            let first = points.len();
            for run in sorted[at..end].chunk_by(|a, b| a.0 == b.0) {
                if points.len() > first {
                    borders.push(points.len() as u32);
                }
                points.push(
                    f64::from(unkey(run[0].0)) - anchor,
                    run.iter().map(|pair| f64::from(pair.1)).sum(),
                );
            }
            at = end;
        }
        borders.push(points.len() as u32);
        (points, borders)
    }
}

/// For each bin, how far the centroid left of a border in that bin can be from the border.
///
/// Take any run of bins before it. If the cluster begins inside the run, so does its centroid; it does so if the run
/// begins at the first value. Else splitting it before the run would gain at least
/// `weight of run · (mean of run - centroid)²`, which is at most `limit`. Every run gives a bound; we move its start
/// along with the bin and keep the best seen. `ends` are the first and the last value.
fn reach(x: &[f64], ends: (f64, f64), line: &Line, limit: f64) -> Vec<f64> {
    let m = x.len();
    let bound = |b: usize, start: usize| {
        // Values of a bin lie before the mean of the next, and after that of the one before.
        let end = if b + 1 < m { x[b + 1] } else { ends.1 };
        if start == 0 {
            return end - ends.0;
        }
        let w = line.w[b] - line.w[start];
        if w <= 0.0 {
            return f64::INFINITY;
        }
        let mean = line.anchor + (line.s1[b] - line.s1[start]) / w;
        (end - x[start - 1]).max(end - mean + (limit / w).sqrt())
    };
    let mut start = 0;
    let mut out = Vec::with_capacity(m);
    for b in 0..m {
        let mut best = bound(b, start);
        while start + 1 < b {
            let next = bound(b, start + 1);
            if next > best {
                break;
            }
            (best, start) = (next, start + 1);
        }
        out.push(best);
    }
    out
}
