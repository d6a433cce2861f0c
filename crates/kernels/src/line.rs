//! Sorted values with prefix sums: the cost of any run in O(1).
//!
//! The cost of the run `i..j` is `Σ w x² - (Σ w x)² / Σ w`, three differences of prefix sums. Plain prefix sums lose
//! everything when the values sit far from zero or one outlier dwarfs the rest, so ours
//!
//! 1. are taken of `x - anchor`, the anchor being the weighted median, and
//! 2. start at the anchor and grow outwards on both sides, so that a run in the bulk is the difference of two small
//!    numbers however large the tails are, and
//! 3. are accumulated in double-double and rounded once.
//!
//! The rounding of the sums of squares cancels along a path from end to end; that of the other sums is
//! multiplied by the distance of neighbouring centroids only. [`Line::doubt`] bounds what remains.

use crate::buffer::Buffer;
use crate::lanes::{LANES, Lanes, Plain, warm};

/// Ascending distinct values and their weights, all positive.
#[derive(Debug, Default, Clone)]
pub(crate) struct Points {
    pub(crate) x: Buffer,
    pub(crate) w: Buffer,
}

impl Points {
    pub(crate) fn len(&self) -> usize {
        self.x.len()
    }

    pub(crate) fn push(&mut self, x: f64, w: f64) {
        self.x.push(x);
        self.w.push(w);
    }

    /// Index of the weighted median.
    pub(crate) fn median(&self) -> usize {
        let half = self.w.iter().sum::<f64>() / 2.0;
        let mut below = 0.0;
        for (i, w) in self.w.iter().enumerate() {
            below += w;
            if below >= half {
                return i;
            }
        }
        self.len().saturating_sub(1)
    }

    /// Centroid and cost of the run `lo..hi`, from scratch: two passes, around a value of the run.
    pub(crate) fn cluster(&self, lo: usize, hi: usize) -> (f64, f64) {
        let (x, w) = (&self.x[lo..hi], &self.w[lo..hi]);
        let Some(&origin) = x.get(x.len() / 2) else {
            return (0.0, 0.0);
        };
        let total = sum(x, w, |_, w| w);
        let mean = origin + sum(x, w, |x, w| w * (x - origin)) / total;
        (mean, sum(x, w, |x, w| w * ((x - mean) * (x - mean))))
    }
}

/// A sum over values and weights in eight strands.
fn sum(x: &[f64], w: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let (x8, w8) = (x.chunks_exact(8), w.chunks_exact(8));
    for (i, (&x, &w)) in x8.remainder().iter().zip(w8.remainder()).enumerate() {
        sums[i] += term(x, w);
    }
    for (x, w) in x8.zip(w8) {
        for l in 0..8 {
            sums[l] += term(x[l], w[l]);
        }
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}

/// A compensated sum (Neumaier): the rounding error of each addition is kept and added at the end.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sum {
    hi: f64,
    lo: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        let sum = self.hi + value;
        let part = sum - self.hi;
        self.lo += (self.hi - (sum - part)) + (value - part);
        self.hi = sum;
    }

    pub(crate) fn value(self) -> f64 {
        self.hi + self.lo
    }
}

/// Prefix sums over [`Points`]; entry `i` stands for the border before point `i`. Padded at the end, for readers of
/// whole blocks.
#[derive(Debug, Default)]
pub(crate) struct Line {
    len: usize,
    /// Value that the sums are relative to.
    pub(crate) anchor: f64,
    /// Whether all weights are whole numbers, whose sums are exact.
    counts: bool,
    pub(crate) w: Buffer,
    pub(crate) s1: Buffer,
    pub(crate) s2: Buffer,
    /// Taken off the cost of a path for each border it visits; empty for none.
    pub(crate) credit: Buffer,
}

impl Line {
    pub(crate) fn new(points: &Points) -> Self {
        let m = points.len();
        let zeros = || Buffer::zeros(m + 1 + LANES);
        let middle = points.median();
        let anchor = points.x.get(middle).copied().unwrap_or(0.0);
        let mut line = Line {
            len: m,
            anchor,
            counts: points.w.iter().all(|w| w.fract() == 0.0),
            w: zeros(),
            s1: zeros(),
            s2: zeros(),
            credit: Buffer::default(),
        };
        let mut sums = [Sum::default(); 3];
        for i in middle..m {
            let values = line.step(points, anchor, i, &mut sums);
            line.set(i + 1, values, 1.0);
        }
        let mut sums = [Sum::default(); 3];
        for i in (0..middle).rev() {
            let values = line.step(points, anchor, i, &mut sums);
            line.set(i, values, -1.0);
        }
        line
    }

    fn step(&self, points: &Points, anchor: f64, i: usize, sums: &mut [Sum; 3]) -> [f64; 3] {
        let (x, w) = (points.x[i] - anchor, points.w[i]);
        sums[0].add(w);
        sums[1].add(w * x);
        sums[2].add(w * x * x);
        [sums[0].value(), sums[1].value(), sums[2].value()]
    }

    fn set(&mut self, i: usize, values: [f64; 3], sign: f64) {
        self.w[i] = sign * values[0];
        self.s1[i] = sign * values[1];
        self.s2[i] = sign * values[2];
    }

    /// The same line with some of its borders only; they include the first and the last.
    pub(crate) fn at_borders(&self, borders: &[u32]) -> Self {
        let pick = |sums: &[f64]| {
            let mut out: Buffer = borders.iter().map(|&b| sums[b as usize]).collect();
            out.resize(borders.len() + LANES, 0.0);
            out
        };
        Line {
            len: borders.len() - 1,
            anchor: self.anchor,
            counts: self.counts,
            w: pick(&self.w),
            s1: pick(&self.s1),
            s2: pick(&self.s2),
            credit: Buffer::default(),
        }
    }

    /// Sets a credit for each border; the first and the last get none.
    pub(crate) fn set_credit(&mut self, credit: impl Into<Buffer>) {
        self.credit = credit.into();
        self.credit.resize(self.len + 1 + LANES, 0.0);
    }

    /// The same points from right to left, as the negatives of their values.
    pub(crate) fn mirrored(&self) -> Self {
        let m = self.len;
        let turn = |sums: &[f64], sign: f64| {
            let mut out: Buffer = sums[..=m].iter().rev().map(|s| sign * s).collect();
            out.resize(m + 1 + LANES, 0.0);
            out
        };
        let credit = if self.credit.is_empty() {
            Buffer::default()
        } else {
            turn(&self.credit, 1.0)
        };
        Line {
            len: m,
            anchor: -self.anchor,
            counts: self.counts,
            w: turn(&self.w, -1.0),
            s1: turn(&self.s1, 1.0),
            s2: turn(&self.s2, -1.0),
            credit,
        }
    }

    /// Bound on what rounding can do to the cost of a path, for paths like this one.
    ///
    /// The sums of squares cancel from border to border but for the rounding of each difference. An error in the sum of
    /// values at a border counts by the distance of the centroids on its sides, one in the sum of weights by the
    /// difference of their squares.
    pub(crate) fn doubt(&self, borders: &[u32], runs: &[(f64, f64)]) -> f64 {
        let mut doubt = 4.0 * self.noise();
        for (runs, &at) in runs.windows(2).zip(&borders[1..]) {
            let (a, b, at) = (
                runs[0].0 - self.anchor,
                runs[1].0 - self.anchor,
                at as usize,
            );
            let weight = if self.counts {
                0.0
            } else {
                (a + b).abs() * self.w[at].abs()
            };
            doubt += (b - a) * (2.0 * self.s1[at].abs() + weight);
        }
        doubt * f64::EPSILON
    }

    /// Sum of squares relative to the anchor.
    pub(crate) fn noise(&self) -> f64 {
        self.s2[self.len] - self.s2[0]
    }
}

/// Costs of runs of points, for several runs at a time.
pub(crate) trait Runs {
    /// What is known of [`LANES`] borders.
    type Sums<V: Lanes>: Copy;

    /// Number of points; there is one border more.
    fn len(&self) -> usize;

    /// One border, in all lanes.
    fn at<V: Lanes>(&self, border: usize) -> Self::Sums<V>;

    /// The border and those after it; beyond the last one, anything.
    fn from<V: Lanes>(&self, border: usize) -> Self::Sums<V>;

    /// Costs of the runs from each of `a` to the same lane of `b`, where that is a run, else anything.
    fn costs<V: Lanes>(a: &Self::Sums<V>, b: &Self::Sums<V>) -> V;

    /// Fetches the borders `lo..hi` from memory.
    fn warm(&self, lo: usize, hi: usize);

    /// Cost of one run.
    #[inline(always)]
    fn cost(&self, i: usize, j: usize) -> f64 {
        Self::costs::<Plain>(&self.at(i), &self.at(j)).array()[0]
    }
}

impl Runs for Line {
    type Sums<V: Lanes> = [V; 3];

    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn at<V: Lanes>(&self, i: usize) -> [V; 3] {
        [
            V::splat(self.w[i]),
            V::splat(self.s1[i]),
            V::splat(self.s2[i]),
        ]
    }

    #[inline(always)]
    fn from<V: Lanes>(&self, i: usize) -> [V; 3] {
        [
            V::load(&self.w, i),
            V::load(&self.s1, i),
            V::load(&self.s2, i),
        ]
    }

    #[inline(always)]
    fn costs<V: Lanes>(a: &[V; 3], b: &[V; 3]) -> V {
        let s1 = b[1] - a[1];
        ((b[2] - a[2]) - s1 * s1 / (b[0] - a[0])).positive()
    }

    fn warm(&self, lo: usize, hi: usize) {
        for sums in [&self.w, &self.s1, &self.s2] {
            warm(sums, lo, hi);
        }
    }

    #[inline(always)]
    fn cost(&self, i: usize, j: usize) -> f64 {
        let s1 = self.s1[j] - self.s1[i];
        let cost = (self.s2[j] - self.s2[i]) - s1 * s1 / (self.w[j] - self.w[i]);
        if cost > 0.0 { cost } else { 0.0 }
    }
}
