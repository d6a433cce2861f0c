//! Prefix sums in double-double, for values that lie in tight clumps far apart.
//!
//! There the cost of an interval is a difference of sums that agree in nearly all digits of a 64-bit float. A double-double
//! is the unevaluated sum of two floats and has twice the digits. Cost: about 5 times that of
//! [`PrefixSums`](crate::scalar::prefix_sums::PrefixSums).
//! Wrong choice: whenever [`PrefixSums::rounding_error`](crate::scalar::prefix_sums::PrefixSums::rounding_error) is small, which is nearly always.
//! Source: Dekker 1971; Hida, Li and Bailey 2001.
//! Our deviation: the cost itself is rounded to one float.

use super::points::Points;
use super::prefix_sums::IntervalCosts;
use crate::simd::f64x8::{F64x8, LANES, prefetch};
use crate::simd::portable::Portable;
use crate::stop::Stop;

/// Prefix sums of weight, weighted value and weighted square, relative to the weighted median and growing outwards;
/// the rests of the rounded sums in the second half.
pub(crate) struct DoubleDoubleSums<'s> {
    len: usize,
    sums: [Vec<f64>; 6],
    stop: Stop<'s>,
}

impl<'s> DoubleDoubleSums<'s> {
    pub(crate) fn new(points: &Points<'s>) -> Self {
        let middle = points.median();
        let anchor = points.x.get(middle).copied().unwrap_or(0.0);
        let mut sums: [Vec<f64>; 6] = std::array::from_fn(|_| vec![0.0; points.len() + 1 + LANES]);
        let add = |at: &mut [Double; 3], i: usize| {
            let x = Double::sum(points.x[i], -anchor);
            let weight = Double {
                hi: points.w[i],
                lo: 0.0,
            };
            let wx = weight.times(x);
            let [w, s1, s2] = *at;
            *at = [w.plus(weight), s1.plus(wx), s2.plus(wx.times(x))];
        };
        points.sum_outwards(middle, add, |border, at, sign| {
            for (s, sum) in at.iter().enumerate() {
                sums[s][border] = sign * sum.hi;
                sums[s + 3][border] = sign * sum.lo;
            }
        });
        DoubleDoubleSums {
            len: points.len(),
            sums,
            stop: points.stop,
        }
    }
}

impl IntervalCosts for DoubleDoubleSums<'_> {
    type Sums<V: F64x8> = [V; 6];

    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn at<V: F64x8>(&self, i: usize) -> [V; 6] {
        // no closure, here and in those below: it would be compiled for any processor, and called
        let [a, b, c, d, e, f] = &self.sums;
        [
            V::splat(a[i]),
            V::splat(b[i]),
            V::splat(c[i]),
            V::splat(d[i]),
            V::splat(e[i]),
            V::splat(f[i]),
        ]
    }

    #[inline(always)]
    fn from<V: F64x8>(&self, i: usize) -> [V; 6] {
        let [a, b, c, d, e, f] = &self.sums;
        [
            V::load(a, i),
            V::load(b, i),
            V::load(c, i),
            V::load(d, i),
            V::load(e, i),
            V::load(f, i),
        ]
    }

    fn prefetch(&self, lo: usize, hi: usize) {
        for sums in &self.sums {
            prefetch(sums, lo, hi);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.requested()
    }

    #[inline(always)]
    fn costs<V: F64x8>(a: &[V; 6], b: &[V; 6]) -> V {
        let w = difference((b[0], b[3]), (a[0], a[3]));
        let s1 = difference((b[1], b[4]), (a[1], a[4]));
        let s2 = difference((b[2], b[5]), (a[2], a[5]));
        cost(w, s1, s2).positive()
    }
}

/// `a - b`.
#[inline(always)]
fn difference<V: F64x8>(a: (V, V), b: (V, V)) -> (V, V) {
    let hi = a.0 - b.0;
    let part = hi - a.0;
    let lo = ((a.0 - (hi - part)) - (b.0 + part)) + (a.1 - b.1);
    let sum = hi + lo;
    (sum, lo - (sum - hi))
}

/// `s2 - s1² / w`.
#[inline(always)]
fn cost<V: F64x8>(w: (V, V), s1: (V, V), s2: (V, V)) -> V {
    let (square, rest) = s1.0.product(s1.0);
    let rest = rest + V::splat(2.0) * s1.0 * s1.1;
    // What rounding makes of this factor is made up for by the second term.
    let inverse = V::splat(1.0) / w.0;
    let first = square * inverse;
    let (back, back_rest) = first.product(w.0);
    let second = ((square - back) - back_rest + rest - first * w.1) * inverse;
    (s2.0 - first) + (s2.1 - second)
}

/// The sum of two floats, the second at most half a unit in the last place of the first.
#[derive(Debug, Clone, Copy, Default)]
struct Double {
    hi: f64,
    lo: f64,
}

impl Double {
    /// `a + b`, exactly.
    fn sum(a: f64, b: f64) -> Self {
        let hi = a + b;
        let part = hi - a;
        Double {
            hi,
            lo: (a - (hi - part)) + (b - part),
        }
    }

    fn plus(self, other: Self) -> Self {
        let (hi, lo) = (
            Double::sum(self.hi, other.hi),
            Double::sum(self.lo, other.lo),
        );
        let first = Double::sum(hi.hi, hi.lo + lo.hi);
        Double::sum(first.hi, first.lo + lo.lo)
    }

    fn times(self, other: Self) -> Self {
        let (hi, lo) = exact(self.hi, other.hi);
        Double::sum(hi, lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

/// `a * b` and its rest, for one pair.
fn exact(a: f64, b: f64) -> (f64, f64) {
    let (hi, lo) = Portable::splat(a).product(Portable::splat(b));
    (hi.array()[0], lo.array()[0])
}
