//! Eight 64-bit floats side by side.
//!
//! The compiler turns most plain loops into vector code by itself, but not the ones that look for a minimum and its place. Those are
//! written over [`F64x8`], which is an array or a pair of AVX2 registers. Both do the same float operations.

use std::ops::{Add, Div, Mul, Sub};

/// Number of lanes.
pub(crate) const LANES: usize = 8;

/// Eight floats. Comparisons with what is not a number are false.
pub(crate) trait F64x8:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// One truth for each lane.
    type Mask: Copy;

    fn splat(x: f64) -> Self;
    /// The entries from `at` on.
    fn load(values: &[f64], at: usize) -> Self;
    fn array(self) -> [f64; LANES];
    /// `self * factor + sum`, rounded once. Where the machine has no such instruction it is slow: a processor without AVX2 and FMA
    /// that is not ARM's.
    fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// The product, rounded, and what the rounding took off, exactly: the same numbers on all machines, if neither overflows nor is
    /// too small to have all its digits.
    #[inline(always)]
    fn product(self, other: Self) -> (Self, Self) {
        let hi = self * other;
        let (a1, b1) = (high(self), high(other));
        let (a2, b2) = (self - a1, other - b1);
        (hi, ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2)
    }

    fn less(self, other: Self) -> Self::Mask;
    /// `yes` where the mask is set, else `no`.
    fn pick(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// The lesser of each pair; `other` if that is the same or one of them is not a number.
    fn lesser(self, other: Self) -> Self;

    /// `from`, `from + 1` and so on.
    #[inline(always)]
    fn count(from: f64) -> Self {
        Self::splat(from) + Self::load(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0)
    }

    /// The sums up to each lane, in three steps.
    #[inline(always)]
    fn running(self) -> Self {
        let mut sums = self.array();
        for half in [1, 2, 4] {
            for l in 0..LANES {
                if l & half != 0 {
                    sums[l] += sums[(l & !(half - 1)) - 1];
                }
            }
        }
        Self::load(&sums, 0)
    }

    /// The last lane first.
    #[inline(always)]
    fn reversed(self) -> Self {
        let mut lanes = self.array();
        lanes.reverse();
        Self::load(&lanes, 0)
    }

    /// Itself, or zero where rounding has made it negative or it is not a number.
    #[inline(always)]
    fn positive(self) -> Self {
        let zero = Self::splat(0.0);
        Self::pick(zero.less(self), self, zero)
    }
}

/// The upper half of the digits.
#[inline(always)]
fn high<V: F64x8>(x: V) -> V {
    let scaled = V::splat(134_217_729.0) * x;
    scaled - (scaled - x)
}

/// Fetches the entries `lo..hi` from memory, one after the other, which is how the hardware likes it.
pub(crate) fn prefetch(values: &[f64], lo: usize, hi: usize) {
    let touched: f64 = values[lo..hi].iter().step_by(LANES).sum();
    std::hint::black_box(touched);
}
