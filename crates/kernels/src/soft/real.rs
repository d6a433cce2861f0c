//! The two float types that soft k-means computes in, and the elements that weights are stored as.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Arithmetic of soft k-means: `f32` or `f64`. Sealed.
pub trait Real:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + sealed::Sealed
    + 'static
{
    /// Bits of the mantissa.
    const DIGITS: i32;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Rounds to the nearest.
    fn from_f64(value: f64) -> Self;
    /// Widens; exact.
    fn to_f64(self) -> f64;
    /// 2 to the power of a number that is not above zero, to the last digits or so; zero where that is next to nothing.
    ///
    /// Multiplications, additions and one shift, so that it vectorizes: 2^x = 2^n · p(x − n) with the whole number n
    /// nearest to x and a polynomial p on [−½, ½].
    fn exp2(self) -> Self;
}

/// What both have in common.
macro_rules! numbers {
    ($float:ty) => {
        const DIGITS: i32 = <$float>::MANTISSA_DIGITS as i32;
        const ZERO: $float = 0.0;
        const ONE: $float = 1.0;
        const INFINITY: $float = <$float>::INFINITY;

        #[inline(always)]
        fn from_f64(value: f64) -> $float {
            value as $float
        }

        #[inline(always)]
        fn to_f64(self) -> f64 {
            f64::from(self)
        }
    };
}

impl Real for f32 {
    numbers!(f32);

    #[inline(always)]
    fn exp2(self) -> f32 {
        /// Adding it leaves whole numbers, in the low bits.
        const SHIFT: f32 = 12_582_912.0;
        /// Far from the least number, lest products become subnormal, which takes long.
        const LEAST: f32 = -100.0;
        /// Interpolates 2^x at the Chebyshev nodes of [−½, ½]; relative error 2.6·10⁻⁹.
        const P: [f32; 7] = [
            1.0,
            std::f32::consts::LN_2,
            0.240_226_5,
            0.055_503_27,
            0.009_618_057,
            0.001_340_042_8,
            0.000_154_614_45,
        ];
        let x = if self > LEAST { self } else { LEAST };
        let shifted = x + SHIFT;
        let f = x - (shifted - SHIFT);
        let p = P[5] + f * P[6];
        let p = P[4] + f * p;
        let p = P[3] + f * p;
        let p = P[2] + f * p;
        let p = P[1] + f * p;
        let p = P[0] + f * p;
        let power = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
        if self > LEAST { power } else { 0.0 }
    }
}

impl Real for f64 {
    numbers!(f64);

    #[inline(always)]
    fn exp2(self) -> f64 {
        const SHIFT: f64 = 6_755_399_441_055_744.0;
        const LEAST: f64 = -1020.0;
        const PARTS: [f64; 13] = {
            let mut parts = [0.0; 13];
            let mut n = 0;
            while n < 13 {
                parts[n] = 1.0 / (13 - n) as f64;
                n += 1;
            }
            parts
        };
        let x = if self > LEAST { self } else { LEAST };
        let shifted = x + SHIFT;
        let f = (x - (shifted - SHIFT)) * std::f64::consts::LN_2;
        // Taylor's series of e^f: what is left out is 4·10⁻¹⁸ at most.
        let mut p = 1.0;
        for part in PARTS {
            p = 1.0 + f * p * part;
        }
        let power = f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52));
        if self > LEAST { power } else { 0.0 }
    }
}

/// A weight element that soft k-means can train: `f64`, `f32`, `half::f16` or `half::bf16`. Sealed.
///
/// ```
/// use palettizer_kernels::SoftElement;
/// fn real<E: SoftElement>(_: E) -> usize { size_of::<E::Real>() }
/// assert_eq!(real(half::bf16::from_f32(0.5)), 4);
/// assert_eq!(real(0.5_f64), 8);
/// ```
pub trait SoftElement: Copy + Send + Sync + sealed::Sealed + 'static {
    /// What it is computed in.
    type Real: Real;
    /// Widens a slice into one of the same length; exact.
    fn widen(from: &[Self], to: &mut [Self::Real]);
    /// Rounds a slice into one of the same length.
    fn narrow(from: &[Self::Real], to: &mut [Self]);
    /// The slice itself where it is made of what is computed in.
    fn reals(slice: &mut [Self]) -> Option<&mut [Self::Real]>;
}

macro_rules! itself {
    ($($float:ty),*) => {$(
        impl SoftElement for $float {
            type Real = $float;
            fn widen(from: &[Self], to: &mut [$float]) {
                to.copy_from_slice(from);
            }
            fn narrow(from: &[$float], to: &mut [Self]) {
                to.copy_from_slice(from);
            }
            fn reals(slice: &mut [Self]) -> Option<&mut [$float]> {
                Some(slice)
            }
        }
    )*};
}

macro_rules! half {
    ($($half:ty),*) => {$(
        impl SoftElement for $half {
            type Real = f32;
            fn widen(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }
            fn narrow(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }
            fn reals(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }
        }
    )*};
}

itself!(f32, f64);
half!(f16, bf16);

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for i in 0..4000 {
            let x = -f64::from(i) * 0.031;
            let exact = x.exp2();
            assert!(((x.exp2() - Real::exp2(x)) / exact).abs() < 4e-16, "{x}");
            let single = x as f32;
            let exact = f64::from(single).exp2();
            let found = f64::from(Real::exp2(single));
            assert!((found - exact).abs() < 2e-7 * exact + 1e-30, "{x}");
        }
        assert_eq!((Real::exp2(0.0_f32), Real::exp2(0.0_f64)), (1.0, 1.0));
        assert_eq!(Real::exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp2(f64::NEG_INFINITY), 0.0);
    }
}
