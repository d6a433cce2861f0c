//! Eight 64-bit floats side by side.
//!
//! The compiler turns most plain loops into vector code by itself, but not the ones that look for a minimum and its place. Those are
//! written over [`Lanes`], which is an array or a pair of AVX2 registers. Both do the same float operations.

use std::ops::{Add, Div, Mul, Sub};

/// Number of lanes.
pub(crate) const LANES: usize = 8;

/// Eight floats. Comparisons with what is not a number are false.
pub(crate) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// One truth for each lane.
    type Mask: Copy;

    fn splat(x: f64) -> Self;
    /// The entries from `at` on.
    fn load(values: &[f64], at: usize) -> Self;
    fn array(self) -> [f64; LANES];
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
pub(crate) fn warm(values: &[f64], lo: usize, hi: usize) {
    let touched: f64 = values[lo..hi].iter().step_by(LANES).sum();
    std::hint::black_box(touched);
}

/// Any machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain([f64; LANES]);

macro_rules! plain {
    ($trait:ident $name:ident $op:tt) => {
        impl $trait for Plain {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Plain(std::array::from_fn(|l| self.0[l] $op other.0[l]))
            }
        }
    };
}

plain!(Add add +);
plain!(Sub sub -);
plain!(Mul mul *);
plain!(Div div /);

impl Lanes for Plain {
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Plain([x; LANES])
    }

    #[inline(always)]
    fn load(values: &[f64], at: usize) -> Self {
        let mut out = [0.0; LANES];
        out.copy_from_slice(&values[at..at + LANES]);
        Plain(out)
    }

    #[inline(always)]
    fn array(self) -> [f64; LANES] {
        self.0
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self::Mask {
        std::array::from_fn(|l| self.0[l] < other.0[l])
    }

    #[inline(always)]
    fn pick(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Plain(std::array::from_fn(|l| {
            if mask[l] { yes.0[l] } else { no.0[l] }
        }))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Wide;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2 {
    use std::arch::x86_64::*;

    use super::*;

    /// Two registers. To be used only inside functions that `dispatch!` has compiled for AVX2.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Wide(__m256d, __m256d);

    macro_rules! wide {
        ($trait:ident $name:ident $op:ident) => {
            impl $trait for Wide {
                type Output = Self;
                #[inline(always)]
                fn $name(self, other: Self) -> Self {
                    // SAFETY: AVX2 is there; see `Wide`.
                    unsafe { Wide($op(self.0, other.0), $op(self.1, other.1)) }
                }
            }
        };
    }

    wide!(Add add _mm256_add_pd);
    wide!(Sub sub _mm256_sub_pd);
    wide!(Mul mul _mm256_mul_pd);
    wide!(Div div _mm256_div_pd);

    impl Lanes for Wide {
        type Mask = Self;

        #[inline(always)]
        fn splat(x: f64) -> Self {
            // SAFETY: AVX2 is there; see `Wide`.
            let x = unsafe { _mm256_set1_pd(x) };
            Wide(x, x)
        }

        #[inline(always)]
        fn load(values: &[f64], at: usize) -> Self {
            let values: &[f64] = &values[at..at + LANES];
            // SAFETY: AVX2 is there; see `Wide`. The slice has eight entries.
            unsafe {
                let from = values.as_ptr();
                Wide(_mm256_loadu_pd(from), _mm256_loadu_pd(from.add(4)))
            }
        }

        #[inline(always)]
        fn array(self) -> [f64; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: AVX2 is there; see `Wide`. The array has eight entries.
            unsafe {
                _mm256_storeu_pd(out.as_mut_ptr(), self.0);
                _mm256_storeu_pd(out.as_mut_ptr().add(4), self.1);
            }
            out
        }

        #[inline(always)]
        fn less(self, other: Self) -> Self {
            // SAFETY: AVX2 is there; see `Wide`.
            unsafe {
                Wide(
                    _mm256_cmp_pd::<_CMP_LT_OQ>(self.0, other.0),
                    _mm256_cmp_pd::<_CMP_LT_OQ>(self.1, other.1),
                )
            }
        }

        #[inline(always)]
        fn pick(mask: Self, yes: Self, no: Self) -> Self {
            // SAFETY: AVX2 is there; see `Wide`.
            unsafe {
                Wide(
                    _mm256_blendv_pd(no.0, yes.0, mask.0),
                    _mm256_blendv_pd(no.1, yes.1, mask.1),
                )
            }
        }

        #[inline(always)]
        fn positive(self) -> Self {
            // SAFETY: AVX2 is there; see `Wide`. Of a pair with what is not a number, the second comes out.
            unsafe {
                let zero = _mm256_setzero_pd();
                Wide(_mm256_max_pd(self.0, zero), _mm256_max_pd(self.1, zero))
            }
        }
    }
}
