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
    fn less(self, other: Self) -> Self::Mask;
    /// `yes` where the mask is set, else `no`.
    fn pick(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// `from`, `from + 1` and so on.
    #[inline(always)]
    fn count(from: f64) -> Self {
        Self::splat(from) + Self::load(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0)
    }

    /// Itself, or zero where rounding has made it negative or it is not a number.
    #[inline(always)]
    fn positive(self) -> Self {
        let zero = Self::splat(0.0);
        Self::pick(zero.less(self), self, zero)
    }
}

/// Fetches the entries `lo..hi` from memory, one after the other, which is how the hardware likes it.
pub(crate) fn prefetch(values: &[f64], lo: usize, hi: usize) {
    let touched: f64 = values[lo..hi].iter().step_by(LANES).sum();
    std::hint::black_box(touched);
}
