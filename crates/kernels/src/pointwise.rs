//! Functions applied to each element of slices, split over the rayon pool and compiled for the instruction set of the machine.
//!
//! A function is a type with a method rather than a closure: only a method can be inlined for sure, and what is not inlined is not
//! made of vector instructions. What it is made of must be marked `#[inline(always)]` as well.

use crate::simd::dispatch;
use rayon::prelude::*;

/// Elements of a piece of work.
const PIECE: usize = 1 << 14;
/// Elements above which work is split.
const ALONE: usize = 1 << 16;

/// A function of N numbers.
///
/// ```
/// use palettizer_kernels::{Pointwise, map};
///
/// struct Scaled(f32);
/// impl Pointwise<1> for Scaled {
///     #[inline(always)]
///     fn at(&self, [x]: [f32; 1]) -> f32 {
///         self.0 * x
///     }
/// }
/// let mut out = [0.0; 2];
/// map(&[1.0, 2.0], &mut out, &Scaled(3.0));
/// assert_eq!(out, [3.0, 6.0]);
/// ```
pub trait Pointwise<const N: usize>: Sync {
    /// Its value.
    fn at(&self, x: [f32; N]) -> f32;
}

impl<F: Pointwise<N>, const N: usize> Pointwise<N> for &F {
    #[inline(always)]
    fn at(&self, x: [f32; N]) -> f32 {
        F::at(self, x)
    }
}

/// Writes a function of each element to `out`.
///
/// # Panics
/// If the slices differ in length.
pub fn map<F: Pointwise<1>>(x: &[f32], out: &mut [f32], f: &F) {
    assert_eq!(x.len(), out.len(), "as many values as results");
    if x.len() <= ALONE {
        return map_piece(x, out, f);
    }
    let pieces = x.par_chunks(PIECE).zip(out.par_chunks_mut(PIECE));
    pieces.for_each(|(x, out)| map_piece(x, out, f));
}

/// Puts a function of each element in its place.
pub fn map_in_place<F: Pointwise<1>>(values: &mut [f32], f: &F) {
    if values.len() <= ALONE {
        return map_in_place_piece(values, f);
    }
    let pieces = values.par_chunks_mut(PIECE);
    pieces.for_each(|values| map_in_place_piece(values, f));
}

/// Writes a function of pairs of elements to `out`.
///
/// # Panics
/// If the slices differ in length.
pub fn zip<F: Pointwise<2>>(x: &[f32], y: &[f32], out: &mut [f32], f: &F) {
    assert!(
        x.len() == out.len() && y.len() == out.len(),
        "as many values as results"
    );
    if x.len() <= ALONE {
        return zip_piece(x, y, out, f);
    }
    let pieces = x.par_chunks(PIECE).zip(y.par_chunks(PIECE));
    let pieces = pieces.zip(out.par_chunks_mut(PIECE));
    pieces.for_each(|((x, y), out)| zip_piece(x, y, out, f));
}

/// The sum of a function of pairs of elements, the same for any number of threads.
///
/// # Panics
/// If the slices differ in length.
pub fn sum_of<F: Pointwise<2>>(x: &[f32], y: &[f32], f: &F) -> f64 {
    assert_eq!(x.len(), y.len(), "pairs");
    let pieces = x.par_chunks(PIECE).zip(y.par_chunks(PIECE));
    let sums: Vec<f64> = pieces.map(|(x, y)| sum_piece(x, y, f)).collect();
    sums.iter().sum()
}

dispatch! {
    fn map_piece<F: Pointwise<1>>(x: &[f32], out: &mut [f32], f: &F) = map_body
}

#[inline(always)]
fn map_body<F: Pointwise<1>>(x: &[f32], out: &mut [f32], f: &F) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f.at([x]);
    }
}

dispatch! {
    fn map_in_place_piece<F: Pointwise<1>>(values: &mut [f32], f: &F) = map_in_place_body
}

#[inline(always)]
fn map_in_place_body<F: Pointwise<1>>(values: &mut [f32], f: &F) {
    for value in values {
        *value = f.at([*value]);
    }
}

dispatch! {
    fn zip_piece<F: Pointwise<2>>(x: &[f32], y: &[f32], out: &mut [f32], f: &F) = zip_body
}

#[inline(always)]
fn zip_body<F: Pointwise<2>>(x: &[f32], y: &[f32], out: &mut [f32], f: &F) {
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out = f.at([x, y]);
    }
}

dispatch! {
    fn sum_piece<F: Pointwise<2>>(x: &[f32], y: &[f32], f: &F) -> f64 = sum_body
}

#[inline(always)]
fn sum_body<F: Pointwise<2>>(x: &[f32], y: &[f32], f: &F) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0f64; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum += f64::from(f.at([x, y]));
        }
    }
    let rest = x_rest.iter().zip(y_rest);
    let rest: f64 = rest.map(|(&x, &y)| f64::from(f.at([x, y]))).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::functions;
    use crate::tests::{Kind, Noise};

    struct Gelu;
    impl Pointwise<1> for Gelu {
        #[inline(always)]
        fn at(&self, [x]: [f32; 1]) -> f32 {
            x * functions::normal_below(x) + functions::tanh(x) + functions::softplus(x)
        }
    }
    impl Pointwise<2> for Gelu {
        #[inline(always)]
        fn at(&self, [x, y]: [f32; 2]) -> f32 {
            x * functions::erf(y) - functions::log(x * x) * functions::sigmoid(y)
        }
    }

    /// Everything there is, as bits.
    pub(crate) fn everything(out: &mut Vec<u64>) {
        for n in [0, 1, 37, ALONE + 19] {
            let values = Noise(n as u64).values(Kind::Cauchy, 2 * n);
            let (x, y) = values.split_at(n);
            let mut made = vec![0.0; n];
            map(x, &mut made, &Gelu);
            let mut in_place = x.to_vec();
            map_in_place(&mut in_place, &Gelu);
            assert!(
                made.iter()
                    .zip(&in_place)
                    .all(|(a, b)| a.to_bits() == b.to_bits())
            );
            out.extend(made.iter().map(|value| u64::from(value.to_bits())));
            zip(x, y, &mut made, &Gelu);
            out.extend(made.iter().map(|value| u64::from(value.to_bits())));
            out.push(sum_of(x, y, &Gelu).to_bits());
        }
    }
}
