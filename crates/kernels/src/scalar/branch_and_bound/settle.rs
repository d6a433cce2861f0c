//! Borders inside bins, from what is known of the bins: where the middle between two centroids falls into a bin, the bin is cut there.
//!
//! The values of a bin are taken to be spread evenly, over the width that their mean and their sum of squares say. The optimum is
//! where each border is midway between the centroids on its sides; a few steps of Newton's method lead there, whose equations are
//! tridiagonal since a border moves only the two centroids beside it.
//!
//! Cost: a few steps over the borders, none over the bins. Wrong choice: where there are hardly more bins than clusters.
//! Source: the conditions are those of Lloyd 1957 (printed 1982) and Max 1960.

use super::coarse::Coarse;
use crate::scalar::prefix_sums::PrefixSums;

/// Steps at most; the error of a step is about the square of that of the one before.
const STEPS: usize = 8;
/// A step is halved at most so often if it makes matters worse.
const HALVINGS: i32 = 4;
/// A gain this small, relative to all there is, ends the search.
const DONE: f64 = 1e-13;
/// The density at a border is taken from this part of a cluster, on each side.
const WINDOW: usize = 32;
/// Fewer values say nothing about it.
const FEW: u32 = 12;

/// Clusters that may cut bins.
pub(super) struct Settled {
    /// Borders between the clusters in units of bins, both ends included: where each border comes to lie if no bin is cut.
    pub(super) borders: Vec<u32>,
    /// Relative to the anchor of the bins.
    pub(super) centroids: Vec<f64>,
}

/// Everything before one border.
#[derive(Clone, Copy, Default)]
struct Before {
    /// Bins whose mean lies before it.
    bins: usize,
    w: f64,
    s1: f64,
}

/// One set of borders and what follows from it.
struct State {
    borders: Vec<f64>,
    before: Vec<Before>,
    centroids: Vec<f64>,
    /// What the sum of squares is less for the clusters: the greater, the better.
    gain: f64,
}

/// Settles the borders of an answer that cuts no bin. `None` where a cluster has no bin of its own.
pub(super) fn settle(
    coarse: &Coarse<'_>,
    prefix: &PrefixSums<'_>,
    borders: &[u32],
) -> Option<Settled> {
    let clusters = borders.len() - 1;
    let inner = &borders[1..clusters];
    let x = &coarse.points.x;
    let start = inner.iter().map(|&b| {
        let b = b as usize;
        (f64::midpoint(x[b - 1], x[b]), b)
    });
    let mut state = State::new(coarse, prefix, start)?;
    for _ in 0..STEPS {
        let step = state.step(coarse, prefix);
        let better = (0..HALVINGS).find_map(|halvings| {
            state
                .moved(coarse, prefix, &step, 0.5_f64.powi(halvings))
                .filter(|next| next.gain > state.gain)
        });
        let Some(better) = better else { break };
        let gained = better.gain - state.gain;
        state = better;
        if gained <= DONE * state.gain {
            break;
        }
    }
    let borders: Vec<u32> = state
        .before
        .iter()
        .map(|before| before.bins as u32)
        .collect();
    borders.is_sorted_by(|a, b| a < b).then_some(Settled {
        borders,
        centroids: state.centroids,
    })
}

impl State {
    /// From borders in order, each with a bin near it. `None` if they are not in order, or a cluster is empty.
    fn new(
        coarse: &Coarse<'_>,
        prefix: &PrefixSums<'_>,
        borders: impl Iterator<Item = (f64, usize)>,
    ) -> Option<Self> {
        let mut before = vec![Before::at(prefix, 0)];
        let mut places = Vec::new();
        for (border, near) in borders {
            before.push(Before::new(coarse, prefix, border, near));
            places.push(border);
        }
        before.push(Before::at(prefix, coarse.points.len()));
        let mut gain = 0.0;
        let mut centroids = Vec::with_capacity(before.len() - 1);
        for pair in before.windows(2) {
            let (w, s1) = (pair[1].w - pair[0].w, pair[1].s1 - pair[0].s1);
            if w <= 0.0 {
                return None;
            }
            gain += s1 / w * s1;
            centroids.push(prefix.anchor + s1 / w);
        }
        places.is_sorted().then_some(State {
            borders: places,
            before,
            centroids,
            gain,
        })
    }

    /// After part of a step.
    fn moved(
        &self,
        coarse: &Coarse<'_>,
        prefix: &PrefixSums<'_>,
        step: &[f64],
        part: f64,
    ) -> Option<Self> {
        let moved = self.borders.iter().zip(step).map(|(t, d)| t + part * d);
        let near = self.before[1..].iter().map(|before| before.bins);
        State::new(coarse, prefix, moved.zip(near))
    }

    /// How far a step of Newton's method moves each border.
    fn step(&self, coarse: &Coarse<'_>, prefix: &PrefixSums<'_>) -> Vec<f64> {
        let around = (coarse.points.len() / (WINDOW * self.centroids.len())).max(2);
        let density = |before: &Before| {
            let lo = before.bins.saturating_sub(around + 1);
            let hi = (before.bins + around).min(coarse.points.len() - 1);
            let number: u32 = coarse.bins[lo..=hi].iter().map(|bin| bin.number).sum();
            let width = coarse.points.x[hi] - coarse.points.x[lo];
            // half of the bins at the ends are outside
            let w =
                prefix.w[hi + 1] - prefix.w[lo] - 0.5 * (coarse.points.w[lo] + coarse.points.w[hi]);
            if number >= FEW && width > 0.0 {
                w / width
            } else {
                0.0
            }
        };
        let weight = |j: usize| self.before[j + 1].w - self.before[j].w;
        // How a centroid follows the border on its side.
        let follow = |border: usize, j: usize| {
            let at = self.borders[border];
            0.5 * density(&self.before[border + 1]) * (at - self.centroids[j]).abs() / weight(j)
        };
        let len = self.borders.len();
        // The matrix without its last column, solved from the first row on (Thomas).
        let (mut above, mut step) = (vec![0.0; len], vec![0.0; len]);
        for j in 0..len {
            let left = if j > 0 { follow(j - 1, j) } else { 0.0 };
            let right = if j + 1 < len {
                follow(j + 1, j + 1)
            } else {
                0.0
            };
            let own = 1.0 - follow(j, j) - follow(j, j + 1);
            let miss = f64::midpoint(self.centroids[j], self.centroids[j + 1]) - self.borders[j];
            let (over, moved) = if j > 0 {
                (above[j - 1], step[j - 1])
            } else {
                (0.0, 0.0)
            };
            // Where density changes fast the row may say nothing: then the border goes to the middle.
            let pivot = own - left * over;
            let pivot = if pivot > 0.05 { pivot } else { 1.0 };
            above[j] = right / pivot;
            step[j] = (miss + left * moved) / pivot;
        }
        for j in (0..len).rev() {
            step[j] += if j + 1 < len {
                above[j] * step[j + 1]
            } else {
                0.0
            };
        }
        for (step, pair) in step.iter_mut().zip(self.centroids.windows(2)) {
            let room = 0.25 * (pair[1] - pair[0]);
            *step = step.clamp(-room, room);
        }
        step
    }
}

impl Before {
    /// Everything before a bin.
    fn at(prefix: &PrefixSums<'_>, bins: usize) -> Self {
        Before {
            bins,
            w: prefix.w[bins],
            s1: prefix.s1[bins],
        }
    }

    /// Everything before a border, which lies near a bin.
    fn new(coarse: &Coarse<'_>, prefix: &PrefixSums<'_>, border: f64, near: usize) -> Self {
        let x = &coarse.points.x;
        let mut bins = near;
        while bins > 0 && x[bins - 1] > border {
            bins -= 1;
        }
        while bins < x.len() && x[bins] <= border {
            bins += 1;
        }
        let mut before = Before::at(prefix, bins);
        let mut cut = |bin: usize, sign: f64| {
            let half = coarse.half_width(bin);
            // What is beyond the border of a bin whose mean is on this side of it.
            let beyond = half - (border - x[bin]).abs();
            if beyond > 0.0 {
                let w = coarse.points.w[bin] * beyond / (2.0 * half);
                let mean = border - sign * 0.5 * beyond;
                before.w += sign * w;
                before.s1 += sign * w * (mean - prefix.anchor);
            }
        };
        if bins > 0 {
            cut(bins - 1, -1.0);
        }
        if bins < x.len() {
            cut(bins, 1.0);
        }
        before
    }
}
