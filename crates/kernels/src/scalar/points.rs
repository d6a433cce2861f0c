//! The values of a group as solvers want them: ascending, each once, with a weight.

use crate::buffer::Buffer;
use crate::stop::Stop;

/// Whether to stop is asked for so often.
const OFTEN: usize = 1 << 16;
/// Weights that are summed up together.
const RUN: usize = 64;

/// Ascending distinct values and their weights, all positive.
#[derive(Debug, Default)]
pub(crate) struct Points<'s> {
    pub(crate) x: Buffer,
    pub(crate) w: Buffer,
    /// Set when nobody waits for what is made of them.
    pub(crate) stop: Stop<'s>,
}

impl<'s> Points<'s> {
    /// None yet.
    pub(crate) fn new(stop: Stop<'s>) -> Self {
        Points {
            stop,
            ..Points::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.x.len()
    }

    pub(crate) fn push(&mut self, x: f64, w: f64) {
        self.x.push(x);
        self.w.push(w);
    }

    /// Index of the weighted median: the value there is the anchor, which sums are taken relative to.
    pub(super) fn median(&self) -> usize {
        let runs: Vec<f64> = self.w.chunks(RUN).map(|w| sum(w, w, |w, _| w)).collect();
        let half = runs.iter().sum::<f64>() / 2.0;
        let mut below = 0.0;
        for (r, run) in runs.iter().enumerate() {
            if below + run < half {
                below += run;
                continue;
            }
            for (i, w) in self.w[r * RUN..].iter().enumerate() {
                below += w;
                if below >= half {
                    return r * RUN + i;
                }
            }
        }
        self.len().saturating_sub(1)
    }

    /// Whether to stop after so many points; that is asked now and then.
    #[inline(always)]
    pub(super) fn stopped(&self, done: usize) -> bool {
        done.is_multiple_of(OFTEN) && self.stop.requested()
    }

    /// Sums that grow from the weighted median outwards on both sides: `add` takes in one point more, and `set` gets a border, the sums
    /// up to it, and the sign that they count with. If it is stopped, the rest of the borders get none.
    #[inline(always)]
    pub(super) fn sum_outwards<S: Default>(
        &self,
        middle: usize,
        add: impl Fn(&mut S, usize),
        mut set: impl FnMut(usize, &S, f64),
    ) {
        let mut sums = S::default();
        for i in (middle..self.len()).take_while(|&i| !self.stopped(i)) {
            add(&mut sums, i);
            set(i + 1, &sums, 1.0);
        }
        sums = S::default();
        for i in (0..middle).rev().take_while(|&i| !self.stopped(i)) {
            add(&mut sums, i);
            set(i, &sums, -1.0);
        }
    }

    /// Centroid and cost of the interval `lo..hi`, from scratch: two passes, around a value of it.
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
