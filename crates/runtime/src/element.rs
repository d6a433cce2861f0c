//! The kinds of elements: what only moves elements about is written once, for all of them.

use crate::tensor::{Elements, Tensor};
use rayon::prelude::*;

/// Elements from which work on them is worth several threads.
const PARALLEL: usize = 1 << 16;

/// A float, an integer or a boolean in a tensor.
pub(crate) trait Element:
    Copy + Default + PartialEq + PartialOrd + Send + Sync + 'static
{
    /// The elements, if they are of this kind.
    fn of(tensor: &Tensor) -> Option<&[Self]>;
    /// The elements of a tensor, if they are of this kind, to be changed: without a copy if nothing else needs them.
    fn taken(tensor: Tensor) -> Option<Vec<Self>>;
    /// The number as this kind has it.
    fn of_number(number: f64) -> Self;
    /// The elements, as a tensor has them.
    fn elements(values: Vec<Self>) -> Elements;
}

macro_rules! element {
    ($kind:ty, $of:expr, $taken:expr, $number:ident => $convert:expr) => {
        impl Element for $kind {
            fn of(tensor: &Tensor) -> Option<&[Self]> {
                $of(tensor)
            }

            fn taken(tensor: Tensor) -> Option<Vec<Self>> {
                $taken(tensor)
            }

            fn of_number($number: f64) -> Self {
                $convert
            }

            fn elements(values: Vec<Self>) -> Elements {
                values.into()
            }
        }
    };
}

element!(f32, Tensor::floats, Tensor::into_floats, number => number as f32);
element!(i32, Tensor::ints, Tensor::into_ints, number => number as i32);
element!(bool, Tensor::bools, Tensor::into_bools, number => number != 0.0);

/// The same code for whatever kind of elements a type has: `$kind` is `f32`, `i32` or `bool` in it. Strings are refused.
macro_rules! each_kind {
    ($dtype:expr, $param:expr, $kind:ident => $body:expr) => {
        match $dtype {
            crate::tensor::Dtype::F16 | crate::tensor::Dtype::F32 => {
                type $kind = f32;
                $body
            }
            crate::tensor::Dtype::Bool => {
                type $kind = bool;
                $body
            }
            crate::tensor::Dtype::Text => Err(crate::call::Fault::from(concat!(
                $param,
                " has strings; expected numbers or booleans"
            ))),
            _ => {
                type $kind = i32;
                $body
            }
        }
    };
}
pub(crate) use each_kind;

/// Gives each part of an output, with its number, to a function: in parallel if there is much of it.
pub(crate) fn in_parts<T: Send>(
    out: &mut [T],
    part: usize,
    work: impl Fn((usize, &mut [T])) + Sync + Send,
) {
    if part == 0 {
        return;
    }
    if out.len() < PARALLEL {
        return out.chunks_mut(part).enumerate().for_each(work);
    }
    let least = (PARALLEL / 4).div_ceil(part).max(1);
    out.par_chunks_mut(part)
        .enumerate()
        .with_min_len(least)
        .for_each(work);
}
