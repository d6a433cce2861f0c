//! Eight floats for any machine: an array, which the compiler puts into what registers there are.

use std::ops::{Add, Div, Mul, Sub};

use super::f64x8::{F64x8, LANES};

/// Eight floats in an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable([f64; LANES]);

macro_rules! portable {
    ($trait:ident $name:ident $op:tt) => {
        impl $trait for Portable {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Portable(std::array::from_fn(|l| self.0[l] $op other.0[l]))
            }
        }
    };
}

portable!(Add add +);
portable!(Sub sub -);
portable!(Mul mul *);
portable!(Div div /);

impl F64x8 for Portable {
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Portable([x; LANES])
    }

    #[inline(always)]
    fn load(values: &[f64], at: usize) -> Self {
        let mut out = [0.0; LANES];
        out.copy_from_slice(&values[at..at + LANES]);
        Portable(out)
    }

    #[inline(always)]
    fn array(self) -> [f64; LANES] {
        self.0
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        Portable(std::array::from_fn(|l| {
            self.0[l].mul_add(factor.0[l], sum.0[l])
        }))
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self::Mask {
        std::array::from_fn(|l| self.0[l] < other.0[l])
    }

    #[inline(always)]
    fn lesser(self, other: Self) -> Self {
        let lesser = |l: usize| {
            if self.0[l] < other.0[l] {
                self.0[l]
            } else {
                other.0[l]
            }
        };
        Portable(std::array::from_fn(lesser))
    }

    #[inline(always)]
    fn pick(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Portable(std::array::from_fn(|l| {
            if mask[l] { yes.0[l] } else { no.0[l] }
        }))
    }
}
