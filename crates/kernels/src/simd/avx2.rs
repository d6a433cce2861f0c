//! Eight floats in two AVX2 registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::f64x8::{F64x8, LANES};

/// Two registers. To be used only inside functions that `dispatch!` has compiled for AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(__m256d, __m256d);

macro_rules! avx2 {
    ($trait:ident $name:ident $op:ident) => {
        impl $trait for Avx2 {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: AVX2 is there; see `Avx2`.
                unsafe { Avx2($op(self.0, other.0), $op(self.1, other.1)) }
            }
        }
    };
}

avx2!(Add add _mm256_add_pd);
avx2!(Sub sub _mm256_sub_pd);
avx2!(Mul mul _mm256_mul_pd);
avx2!(Div div _mm256_div_pd);

impl F64x8 for Avx2 {
    type Mask = Self;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`.
        let x = unsafe { _mm256_set1_pd(x) };
        Avx2(x, x)
    }

    #[inline(always)]
    fn load(values: &[f64], at: usize) -> Self {
        let values: &[f64] = &values[at..at + LANES];
        // SAFETY: AVX2 is there; see `Avx2`. The slice has eight entries.
        unsafe {
            let from = values.as_ptr();
            Avx2(_mm256_loadu_pd(from), _mm256_loadu_pd(from.add(4)))
        }
    }

    #[inline(always)]
    fn array(self) -> [f64; LANES] {
        let mut out = [0.0; LANES];
        // SAFETY: AVX2 is there; see `Avx2`. The array has eight entries.
        unsafe {
            _mm256_storeu_pd(out.as_mut_ptr(), self.0);
            _mm256_storeu_pd(out.as_mut_ptr().add(4), self.1);
        }
        out
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: AVX2 and FMA are there; see `Avx2`.
        unsafe {
            Avx2(
                _mm256_fmadd_pd(self.0, factor.0, sum.0),
                _mm256_fmadd_pd(self.1, factor.1, sum.1),
            )
        }
    }

    #[inline(always)]
    fn product(self, other: Self) -> (Self, Self) {
        let hi = self * other;
        // SAFETY: AVX2 and FMA are there; see `Avx2`.
        let rest = unsafe {
            Avx2(
                _mm256_fmsub_pd(self.0, other.0, hi.0),
                _mm256_fmsub_pd(self.1, other.1, hi.1),
            )
        };
        (hi, rest)
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`.
        unsafe {
            Avx2(
                _mm256_cmp_pd::<_CMP_LT_OQ>(self.0, other.0),
                _mm256_cmp_pd::<_CMP_LT_OQ>(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    fn pick(mask: Self, yes: Self, no: Self) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`.
        unsafe {
            Avx2(
                _mm256_blendv_pd(no.0, yes.0, mask.0),
                _mm256_blendv_pd(no.1, yes.1, mask.1),
            )
        }
    }

    #[inline(always)]
    fn lesser(self, other: Self) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`.
        unsafe {
            Avx2(
                _mm256_min_pd(self.0, other.0),
                _mm256_min_pd(self.1, other.1),
            )
        }
    }

    #[inline(always)]
    fn running(self) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`. Zeros are added where nothing is.
        unsafe {
            let four = |x| {
                let twos = _mm256_add_pd(x, _mm256_unpacklo_pd(_mm256_setzero_pd(), x));
                let second = _mm256_permute_pd::<0b1111>(twos);
                _mm256_add_pd(twos, _mm256_permute2f128_pd::<0x08>(second, second))
            };
            let (low, high) = (four(self.0), four(self.1));
            let last = _mm256_permute4x64_pd::<0b11_11_11_11>(low);
            Avx2(low, _mm256_add_pd(last, high))
        }
    }

    #[inline(always)]
    fn reversed(self) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`.
        unsafe {
            Avx2(
                _mm256_permute4x64_pd::<0b00_01_10_11>(self.1),
                _mm256_permute4x64_pd::<0b00_01_10_11>(self.0),
            )
        }
    }

    #[inline(always)]
    fn positive(self) -> Self {
        // SAFETY: AVX2 is there; see `Avx2`. Of a pair with what is not a number, the second comes out.
        unsafe {
            let zero = _mm256_setzero_pd();
            Avx2(_mm256_max_pd(self.0, zero), _mm256_max_pd(self.1, zero))
        }
    }
}
