//! Sorted values with prefix sums: the cost of any interval in O(1).
//!
//! The cost of the interval `i..j` is `Σ w x² - (Σ w x)² / Σ w`, three differences of prefix sums. Plain prefix sums lose
//! everything when the values sit far from zero or one outlier dwarfs the rest, so ours
//!
//! 1. are taken of `x - anchor`, the anchor being the weighted median, and
//! 2. start at the anchor and grow outwards on both sides, so that an interval in the bulk is the difference of two small
//!    numbers however large the tails are, and
//! 3. are accumulated in double-double and rounded once.
//!
//! The rounding of the sums of squares cancels along a path from end to end; that of the other sums is
//! multiplied by the distance of neighbouring centroids only. [`PrefixSums::rounding_error`] bounds what remains.

use super::points::Points;
use crate::buffer::Buffer;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx2::Avx2;
use crate::simd::dispatch;
use crate::simd::f64x8::{F64x8, LANES, prefetch};
use crate::simd::portable::Portable;
use crate::stop::Stop;

/// Sums of weight, weighted value and weighted square of the blocks so far, compensated (Neumaier): the rounding error of each
/// addition is kept.
#[derive(Debug, Default, Clone, Copy)]
struct CompensatedSums {
    hi: [f64; 3],
    lo: [f64; 3],
}

impl CompensatedSums {
    /// Takes in a block, and gives the sums after each of its points.
    ///
    /// Within a block nothing is kept, so that points go side by side: its own sum is small beside what it is added to, but for
    /// the first block, in which sums are of no more than [`LANES`] points.
    #[inline(always)]
    fn add<V: F64x8>(&mut self, x: V, w: V) -> [V; 3] {
        let wx = w * x;
        let mut sums = [w.running(), wx.running(), (wx * x).running()];
        for (sums, (hi, lo)) in sums.iter_mut().zip(self.hi.iter_mut().zip(&mut self.lo)) {
            let block = sums.array()[LANES - 1];
            *sums = V::splat(*hi) + (V::splat(*lo) + *sums);
            let sum = *hi + block;
            let part = sum - *hi;
            *lo += (*hi - (sum - part)) + (block - part);
            *hi = sum;
        }
        sums
    }
}

dispatch! {
    fn sum_outwards(points: &Points<'_>, middle: usize, anchor: f64, sums: [&mut [f64]; 3])
        = sum_outwards_body::<Portable>, sum_outwards_body::<Avx2>
}

/// The sums of weight, value and square at each border, from the point `middle` outwards. If it is stopped, the rest are zeros.
#[inline(always)]
fn sum_outwards_body<V: F64x8>(
    points: &Points<'_>,
    middle: usize,
    anchor: f64,
    [w, s1, s2]: [&mut [f64]; 3],
) {
    let anchor = V::splat(anchor);
    let mut sums = CompensatedSums::default();
    let mut at = middle;
    while at < points.len() && !points.stopped(at - middle) {
        let len = LANES.min(points.len() - at);
        let (x, weight): (V, V) = (load(&points.x, at, len), load(&points.w, at, len));
        let [w8, s1_8, s2_8] = sums.add(x - anchor, weight);
        store(w, at + 1, len, w8);
        store(s1, at + 1, len, s1_8);
        store(s2, at + 1, len, s2_8);
        at += len;
    }
    let zero = V::splat(0.0);
    sums = CompensatedSums::default();
    at = middle;
    while at > 0 && !points.stopped(middle - at) {
        let len = LANES.min(at);
        at -= len;
        let (x, weight): (V, V) = (load(&points.x, at, len), load(&points.w, at, len));
        let [w8, s1_8, s2_8] = sums.add(x.reversed() - anchor, weight.reversed());
        store(w, at, len, zero - w8.reversed());
        store(s1, at, len, zero - s1_8.reversed());
        store(s2, at, len, zero - s2_8.reversed());
    }
}

/// Some entries, and zeros in the other lanes.
#[inline(always)]
fn load<V: F64x8>(values: &[f64], at: usize, len: usize) -> V {
    if len == LANES {
        return V::load(values, at);
    }
    let mut block = [0.0; LANES];
    block[..len].copy_from_slice(&values[at..at + len]);
    V::load(&block, 0)
}

/// Sets as many entries to the first lanes.
#[inline(always)]
fn store<V: F64x8>(to: &mut [f64], at: usize, len: usize, block: V) {
    let block = block.array();
    if len == LANES {
        to[at..at + LANES].copy_from_slice(&block);
    } else {
        to[at..at + len].copy_from_slice(&block[..len]);
    }
}

/// Whether these are whole numbers, as far as adding a large one tells: it leaves no room for digits after the point.
fn are_whole(weights: &[f64]) -> bool {
    const LARGE: f64 = (1_u64 << 52) as f64;
    weights
        .iter()
        .fold(true, |whole, w| whole & ((w + LARGE) - LARGE == *w))
}

/// Prefix sums over [`Points`]; entry `i` stands for the border before point `i`. Padded at the end, for readers of
/// whole blocks.
#[derive(Debug, Default)]
pub(crate) struct PrefixSums<'s> {
    len: usize,
    /// Value that the sums are relative to.
    pub(crate) anchor: f64,
    /// Whether all weights are whole numbers, whose sums are exact.
    counts: bool,
    pub(crate) w: Buffer,
    pub(crate) s1: Buffer,
    pub(crate) s2: Buffer,
    /// Taken off the cost of a path for each border it visits; empty for none.
    pub(crate) discount: Buffer,
    stop: Stop<'s>,
}

impl<'s> PrefixSums<'s> {
    pub(crate) fn new(points: &Points<'s>) -> Self {
        let m = points.len();
        let zeros = || Buffer::zeros(m + 1 + LANES);
        let middle = points.median();
        let anchor = points.x.get(middle).copied().unwrap_or(0.0);
        let (mut w, mut s1, mut s2) = (zeros(), zeros(), zeros());
        sum_outwards(points, middle, anchor, [&mut w, &mut s1, &mut s2]);
        PrefixSums {
            len: m,
            anchor,
            counts: points.w.chunks(64).all(are_whole),
            w,
            s1,
            s2,
            discount: Buffer::default(),
            stop: points.stop,
        }
    }

    /// The same sums at some of the borders only; they include the first and the last.
    pub(crate) fn at_borders(&self, borders: &[u32]) -> Self {
        let pick = |sums: &[f64]| {
            let mut out: Buffer = borders.iter().map(|&b| sums[b as usize]).collect();
            out.resize(borders.len() + LANES, 0.0);
            out
        };
        PrefixSums {
            len: borders.len() - 1,
            anchor: self.anchor,
            counts: self.counts,
            w: pick(&self.w),
            s1: pick(&self.s1),
            s2: pick(&self.s2),
            discount: Buffer::default(),
            stop: self.stop,
        }
    }

    /// Sets a discount for each border; the first and the last get none.
    pub(crate) fn set_discount(&mut self, discount: Buffer) {
        self.discount = discount;
        self.discount.resize(self.len + 1 + LANES, 0.0);
    }

    /// The same points from right to left, as the negatives of their values.
    pub(crate) fn mirrored(&self) -> Self {
        let m = self.len;
        let turn = |sums: &[f64], sign: f64| {
            let mut out: Buffer = sums[..=m].iter().rev().map(|s| sign * s).collect();
            out.resize(m + 1 + LANES, 0.0);
            out
        };
        let discount = if self.discount.is_empty() {
            Buffer::default()
        } else {
            turn(&self.discount, 1.0)
        };
        PrefixSums {
            len: m,
            anchor: -self.anchor,
            counts: self.counts,
            w: turn(&self.w, -1.0),
            s1: turn(&self.s1, 1.0),
            s2: turn(&self.s2, -1.0),
            discount,
            stop: self.stop,
        }
    }

    /// Bound on what rounding can do to the cost of a path, for paths like this one.
    ///
    /// The sums of squares cancel from border to border but for the rounding of each difference. An error in the sum of
    /// values at a border counts by the distance of the centroids on its sides, one in the sum of weights by the
    /// difference of their squares.
    pub(crate) fn rounding_error(&self, borders: &[u32], intervals: &[(f64, f64)]) -> f64 {
        let mut rounding = 4.0 * self.sum_of_squares();
        for (intervals, &at) in intervals.windows(2).zip(&borders[1..]) {
            let [a, b] = [0, 1].map(|side: usize| intervals[side].0 - self.anchor);
            let at = at as usize;
            let weight = match self.counts {
                true => 0.0,
                false => (a + b).abs() * self.w[at].abs(),
            };
            rounding += (b - a) * (2.0 * self.s1[at].abs() + weight);
        }
        rounding * f64::EPSILON
    }

    /// Sum of squares relative to the anchor.
    pub(crate) fn sum_of_squares(&self) -> f64 {
        self.s2[self.len] - self.s2[0]
    }
}

/// Costs of intervals of points, for several intervals at a time.
pub(crate) trait IntervalCosts {
    /// What is known of [`LANES`] borders.
    type Sums<V: F64x8>: Copy;

    /// Number of points; there is one border more.
    fn len(&self) -> usize;

    /// One border, in all lanes.
    fn at<V: F64x8>(&self, border: usize) -> Self::Sums<V>;

    /// The border and those after it; beyond the last one, anything.
    fn from<V: F64x8>(&self, border: usize) -> Self::Sums<V>;

    /// Costs of the intervals from each of `a` to the same lane of `b`, where that is one, else anything.
    fn costs<V: F64x8>(a: &Self::Sums<V>, b: &Self::Sums<V>) -> V;

    /// Taken off the cost of a path for each border it visits; empty for none.
    fn discount(&self) -> &[f64] {
        &[]
    }

    /// Fetches the borders `lo..hi` from memory.
    fn prefetch(&self, lo: usize, hi: usize);

    /// Whether nobody waits for what is made of them any longer.
    fn stopped(&self) -> bool;

    /// Cost of one interval.
    #[inline(always)]
    fn cost(&self, i: usize, j: usize) -> f64 {
        Self::costs::<Portable>(&self.at(i), &self.at(j)).array()[0]
    }
}

impl IntervalCosts for PrefixSums<'_> {
    type Sums<V: F64x8> = [V; 3];

    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn at<V: F64x8>(&self, i: usize) -> [V; 3] {
        [
            V::splat(self.w[i]),
            V::splat(self.s1[i]),
            V::splat(self.s2[i]),
        ]
    }

    #[inline(always)]
    fn from<V: F64x8>(&self, i: usize) -> [V; 3] {
        [
            V::load(&self.w, i),
            V::load(&self.s1, i),
            V::load(&self.s2, i),
        ]
    }

    #[inline(always)]
    fn costs<V: F64x8>(a: &[V; 3], b: &[V; 3]) -> V {
        let s1 = b[1] - a[1];
        ((b[2] - a[2]) - s1 * s1 / (b[0] - a[0])).positive()
    }

    fn discount(&self) -> &[f64] {
        &self.discount
    }

    fn prefetch(&self, lo: usize, hi: usize) {
        for sums in [&self.w, &self.s1, &self.s2] {
            prefetch(sums, lo, hi);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.requested()
    }

    #[inline(always)]
    fn cost(&self, i: usize, j: usize) -> f64 {
        let s1 = self.s1[j] - self.s1[i];
        let cost = (self.s2[j] - self.s2[i]) - s1 * s1 / (self.w[j] - self.w[i]);
        if cost > 0.0 { cost } else { 0.0 }
    }
}
