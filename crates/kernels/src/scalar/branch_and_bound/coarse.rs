//! What is kept of the bins that values were put into, and what a border may save by cutting one of them.
//!
//! Only bins that may hold a border of an optimum are open; of the others, only mean and weight matter.
//!
//! Cost: a few ns a bin. Wrong choice: none; [`branch_and_bound`](super) says when to have no bins.

use super::moments::Moments;
use crate::buffer::Buffer;
use crate::scalar::lagrangian::{self, Partition};
use crate::scalar::points::Points;
use crate::scalar::prefix_sums::PrefixSums;
use crate::stop::Stop;

/// Runs of bins for each cluster, the distances of whose bins are bounded together.
const RUNS: usize = 32;
/// Rounding error of a spread relative to the sum of squares it is the rest of.
const ROUNDING: f64 = 8.0 * f64::EPSILON;
/// Room for rounding in the bounds.
const ROOM: f64 = 1.0 + 1e-9;

/// The bins that are not empty, and the borders that an optimum may have between them or next to one that it cuts.
#[derive(Default)]
pub(super) struct Coarse<'s> {
    /// Means of the bins, relative to the anchor, and weights.
    pub(super) points: Points<'s>,
    pub(super) bins: Vec<Bin>,
    /// Ascending, the first and the last included.
    pub(super) borders: Vec<u32>,
    /// Sum of the spreads of closed bins.
    closed: f64,
    /// Bound on the rounding errors of all spreads.
    pub(super) rounding: f64,
}

/// What matters of an open bin; all zero for others and for single values.
#[derive(Clone, Copy, Default)]
pub(super) struct Bin {
    pub(super) id: u32,
    /// How many values it has.
    pub(super) number: u32,
    /// Sum of squares around the mean.
    spread: f64,
    /// Bound on its rounding error.
    rounding: f64,
    /// How far a border in the bin can be from the nearer centroid at its sides.
    pub(super) distance: f64,
}

/// What an optimum may have, of a coarse problem: a flag for each border, and one for each bin that it may cut.
pub(super) struct Open {
    borders: Vec<bool>,
    bins: Vec<bool>,
}

impl Open {
    pub(super) fn none(coarse: &Coarse<'_>) -> Self {
        let len = coarse.bins.len();
        Open {
            borders: vec![false; len + 1],
            bins: vec![false; len],
        }
    }

    /// Opens a border, and the bins on its sides that have more than one value.
    pub(super) fn border(&mut self, coarse: &Coarse<'_>, at: usize) {
        self.borders[at] = true;
        for bin in [at.wrapping_sub(1), at] {
            if coarse.bins.get(bin).is_some_and(|bin| bin.number > 1) {
                self.bins[bin] = true;
            }
        }
    }

    /// The bins that may be cut.
    pub(super) fn bins<'a>(&'a self, coarse: &'a Coarse<'_>) -> impl Iterator<Item = &'a Bin> {
        let bins = coarse.bins.iter().zip(&self.bins);
        bins.filter(|(_, open)| **open).map(|(bin, _)| bin)
    }
}

impl<'s> Coarse<'s> {
    /// All of these bins are open, and their distances not known yet.
    pub(super) fn new(moments: &[Moments], stop: Stop<'s>) -> Self {
        let mut coarse = Coarse::default();
        coarse.points.stop = stop;
        coarse.open(moments, 0, f64::INFINITY);
        coarse.border();
        coarse
    }

    /// Adds open bins, the first of which is called `id`.
    pub(super) fn open(&mut self, moments: &[Moments], id: usize, distance: f64) {
        let first = self.points.len();
        let end = first + moments.iter().filter(|bin| bin[3] > 0.0).count();
        self.points.x.resize(end, 0.0);
        self.points.w.resize(end, 0.0);
        self.bins.resize(end, Bin::default());
        let mut at = first;
        // Each is written, the next over one that is empty: how many values a bin has is hard to guess for the processor.
        for (id, &[w, s1, s2, number]) in (id as u32..).zip(moments) {
            if at == end {
                break;
            }
            let mean = s1 / w;
            let squares = if number > 1.0 { s2 } else { 0.0 };
            let spread = squares - s1 * mean;
            self.points.x[at] = mean;
            self.points.w[at] = w;
            self.bins[at] = Bin {
                id,
                number: number as u32,
                spread: if spread > 0.0 { spread } else { 0.0 },
                rounding: squares * ROUNDING,
                distance,
            };
            self.rounding += squares * f64::EPSILON;
            at += usize::from(number > 0.0);
        }
        let known = usize::from(self.borders.last() == Some(&(first as u32)));
        self.borders
            .extend((first + known..end).map(|at| at as u32));
    }

    /// Adds a value that is alone.
    pub(super) fn value(&mut self, x: f64, w: f64) {
        self.border();
        self.points.push(x, w);
        self.bins.push(Bin::default());
    }

    /// Notes that an optimum may have a border after what was added so far.
    fn border(&mut self) {
        let at = self.points.len() as u32;
        if self.borders.last() != Some(&at) {
            self.borders.push(at);
        }
    }

    /// The same with each open bin replaced by what `resolve` adds for it, and with no borders but those that are open or
    /// next to an open bin; the other bins are closed.
    pub(super) fn refined(&self, open: &Open, mut resolve: impl FnMut(&mut Self, Bin)) -> Self {
        let mut next = Coarse {
            closed: self.closed,
            rounding: self.rounding,
            points: Points::new(self.points.stop),
            ..Coarse::default()
        };
        for (b, &bin) in self.bins.iter().enumerate() {
            if b == 0 || open.borders[b] {
                next.border();
            }
            if open.bins[b] {
                resolve(&mut next, bin);
                next.border();
            } else {
                next.points.push(self.points.x[b], self.points.w[b]);
                next.bins.push(Bin::default());
                next.closed += bin.spread;
            }
        }
        next.border();
        next
    }

    /// Bounds all distances, given that no split of a cluster of an optimum of `k` gains more than `limit`. `ends` are
    /// the first and the last value.
    pub(super) fn bound(
        &mut self,
        prefix: &PrefixSums<'_>,
        k: usize,
        ends: (f64, f64),
        limit: f64,
    ) {
        let m = self.points.len();
        // Distances differ little from bin to bin, so they are bounded for some neighbours at once.
        let step = (m / (RUNS * k)).max(1);
        let runs = m.div_ceil(step);
        let borders: Vec<u32> = (0..=runs).map(|r| (r * step).min(m) as u32).collect();
        let thin = prefix.at_borders(&borders);
        let means: Vec<f64> = (0..runs)
            .map(|r| prefix.anchor + (thin.s1[r + 1] - thin.s1[r]) / (thin.w[r + 1] - thin.w[r]))
            .collect();
        let left = reach(&means, ends, &thin, limit);
        // The same from the other side, on the mirrored line.
        let back: Vec<f64> = means.iter().rev().map(|x| -x).collect();
        let right = reach(&back, (-ends.1, -ends.0), &thin.mirrored(), limit);
        let distances = left.iter().zip(right.iter().rev());
        for (bins, (&left, &right)) in self.bins.chunks_mut(step).zip(distances) {
            bins.iter_mut()
                .for_each(|bin| bin.distance = left.min(right));
        }
    }

    /// Sum of the squares around the means of all bins.
    pub(super) fn spread(&self) -> f64 {
        self.closed + self.bins.iter().map(|bin| bin.spread).sum::<f64>()
    }

    /// Half the width of a bin whose values are spread evenly.
    pub(super) fn half_width(&self, bin: usize) -> f64 {
        (3.0 * self.bins[bin].spread / self.points.w[bin]).sqrt()
    }

    /// The optimal partition that cuts no bin; `hint` is a λ to try first.
    pub(super) fn partition(
        &self,
        prefix: &PrefixSums<'_>,
        k: usize,
        hint: Option<f64>,
    ) -> Partition {
        let some = k + 1 < self.borders.len() && self.borders.len() <= self.points.len();
        let among = some.then_some(&self.borders[..]);
        lagrangian::partition(&self.points, prefix, among, k, hint)
    }

    /// For each border, how much less a path may cost for bins that its clusters cut there instead of passing by.
    pub(super) fn discount(&self, lambda: f64) -> Buffer {
        // None for a bin of one value, which has no spread.
        let saving = |(bin, w): (&Bin, &f64)| {
            let spread = bin.spread + bin.rounding;
            let saved = 2.0 * bin.distance * (w * spread).sqrt();
            let saved = if saved > spread { saved } else { spread };
            let most = spread + lambda;
            ROOM * if saved < most { saved } else { most }
        };
        let savings: Buffer = self
            .bins
            .iter()
            .zip(self.points.w.iter())
            .map(saving)
            .collect();
        let m = self.points.len();
        let discount = |&at: &u32| {
            let at = at as usize;
            if at == 0 || at == m {
                return 0.0;
            }
            let (before, after) = (savings[at - 1], savings[at]);
            before.max(after) + (before.min(after) - lambda).max(0.0)
        };
        self.borders.iter().map(discount).collect()
    }
}

/// For each bin, how far the centroid left of a border in that bin can be from the border.
///
/// A cluster that ends in the bin and holds the run of bins from `start` up to it could be split like that run, which gains no less
/// (the costs are Monge). If the best split of the run gains more than `limit`, no cluster of an optimum holds it: the cluster begins
/// inside, and its centroid is no farther away than the mean of the run. `start` moves along with the bin; any split gives a bound, and
/// we take the one at the mean. `ends` are the first and the last value.
fn reach(x: &[f64], ends: (f64, f64), prefix: &PrefixSums<'_>, limit: f64) -> Vec<f64> {
    let m = x.len();
    let sums = |lo: usize, hi: usize| (prefix.w[hi] - prefix.w[lo], prefix.s1[hi] - prefix.s1[lo]);
    let (mut start, mut middle) = (0, 0);
    let bound = |b: usize| {
        // Values of a bin lie before the mean of the next.
        let end = if b + 1 < m { x[b + 1] } else { ends.1 };
        if b == 0 {
            return end - ends.0;
        }
        while start + 1 < b {
            let next = start + 1;
            let (w, s1) = sums(next, b);
            // Means and gains are compared without a division.
            while middle + 1 < b && (middle <= next || (x[middle] - prefix.anchor) * w < s1) {
                middle += 1;
            }
            let split = middle > next && {
                let ((w0, s0), (w1, s1)) = (sums(next, middle), sums(middle, b));
                let apart = s1 * w0 - s0 * w1;
                apart * apart > limit * (w0 * w1 * (w0 + w1))
            };
            if !split {
                break;
            }
            start = next;
        }
        let (w, s1) = sums(start, b);
        end - (prefix.anchor + s1 / w)
    };
    (0..m).map(bound).collect()
}
