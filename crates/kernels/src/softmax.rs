//! Softmax along rows and along columns, and its gradient.
//!
//! Elements are seen as \[outer, n, inner\], and softmax is taken along n: rows where inner is 1.

use crate::functions::exp;
use crate::simd::dispatch;
use rayon::prelude::*;

/// Sums side by side.
const LANES: usize = 16;
/// Columns that are worked on at once.
const TILE: usize = 256;
/// Elements that one piece of work takes.
const PIECE: usize = 1 << 14;

/// Puts softmax along n in the place of elements \[outer, n, inner\].
///
/// ```
/// let mut rows = [0.0, 0.0, 1000.0, 0.0];
/// palettizer_kernels::softmax(&mut rows, 2, 1);
/// assert_eq!(rows, [0.5, 0.5, 1.0, 0.0]);
/// ```
pub fn softmax(values: &mut [f32], n: usize, inner: usize) {
    let block = n.saturating_mul(inner);
    if block == 0 || values.is_empty() {
        return;
    }
    let each = (PIECE / block).max(1) * block;
    values.par_chunks_mut(each).for_each(|values| {
        let blocks = values.chunks_mut(block);
        match inner {
            1 => blocks.for_each(softmax_row),
            _ => blocks.for_each(|block| softmax_columns(block, inner)),
        }
    });
}

/// Puts the gradient of the argument of softmax in the place of that of its output `y`.
///
/// # Panics
/// If the lengths differ.
pub fn softmax_gradient(y: &[f32], gradient: &mut [f32], n: usize, inner: usize) {
    assert_eq!(y.len(), gradient.len(), "a gradient for each output");
    let block = n.saturating_mul(inner);
    if block == 0 || y.is_empty() {
        return;
    }
    let each = (PIECE / block).max(1) * block;
    let pieces = y.par_chunks(each).zip(gradient.par_chunks_mut(each));
    pieces.for_each(|(y, gradient)| {
        let blocks = y.chunks(block).zip(gradient.chunks_mut(block));
        match inner {
            1 => blocks.for_each(|(y, gradient)| gradient_row(y, gradient)),
            _ => blocks.for_each(|(y, gradient)| gradient_columns(y, gradient, inner)),
        }
    });
}

dispatch! {
    fn softmax_row(row: &mut [f32]) = softmax_row_body
}

#[inline(always)]
fn softmax_row_body(row: &mut [f32]) {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (most, &x) in most.iter_mut().zip(chunk) {
            *most = if x > *most { x } else { *most };
        }
    }
    let most = most.iter().chain(rest).copied();
    let most = most.fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f64; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = exp(*x - most);
            *sum += f64::from(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *x = exp(*x - most);
        *sum += f64::from(*x);
    }
    let inverse = (1.0 / sums.iter().sum::<f64>()) as f32;
    row.iter_mut().for_each(|x| *x *= inverse);
}

dispatch! {
    fn softmax_columns(block: &mut [f32], inner: usize) = softmax_columns_body
}

#[inline(always)]
fn softmax_columns_body(block: &mut [f32], inner: usize) {
    for first in (0..inner).step_by(TILE) {
        let columns = first..(first + TILE).min(inner);
        let (mut most, mut sums) = ([f32::NEG_INFINITY; TILE], [0.0f64; TILE]);
        for row in block.chunks_exact(inner) {
            for (most, &x) in most.iter_mut().zip(&row[columns.clone()]) {
                *most = if x > *most { x } else { *most };
            }
        }
        for row in block.chunks_exact_mut(inner) {
            let row = &mut row[columns.clone()];
            for ((most, sum), x) in most.iter().zip(&mut sums).zip(row) {
                *x = exp(*x - most);
                *sum += f64::from(*x);
            }
        }
        let inverses = sums.map(|sum| (1.0 / sum) as f32);
        for row in block.chunks_exact_mut(inner) {
            let row = &mut row[columns.clone()];
            row.iter_mut()
                .zip(&inverses)
                .for_each(|(x, inverse)| *x *= inverse);
        }
    }
}

dispatch! {
    fn gradient_row(y: &[f32], gradient: &mut [f32]) = gradient_row_body
}

#[inline(always)]
fn gradient_row_body(y: &[f32], gradient: &mut [f32]) {
    let mut sums = [0.0f64; LANES];
    let ((y_chunks, y_rest), (chunks, rest)) =
        (y.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
    for (y, gradient) in y_chunks.iter().zip(chunks) {
        for ((sum, &y), &gradient) in sums.iter_mut().zip(y).zip(gradient) {
            *sum += f64::from(y * gradient);
        }
    }
    for ((sum, &y), &gradient) in sums.iter_mut().zip(y_rest).zip(rest) {
        *sum += f64::from(y * gradient);
    }
    let sum = sums.iter().sum::<f64>() as f32;
    let each = gradient.iter_mut().zip(y);
    each.for_each(|(gradient, y)| *gradient = y * (*gradient - sum));
}

dispatch! {
    fn gradient_columns(y: &[f32], gradient: &mut [f32], inner: usize) = gradient_columns_body
}

#[inline(always)]
fn gradient_columns_body(y: &[f32], gradient: &mut [f32], inner: usize) {
    for first in (0..inner).step_by(TILE) {
        let columns = first..(first + TILE).min(inner);
        let mut sums = [0.0f64; TILE];
        for (y, gradient) in y.chunks_exact(inner).zip(gradient.chunks_exact(inner)) {
            let row = y[columns.clone()].iter().zip(&gradient[columns.clone()]);
            for (sum, (&y, &gradient)) in sums.iter_mut().zip(row) {
                *sum += f64::from(y * gradient);
            }
        }
        let sums = sums.map(|sum| sum as f32);
        for (y, gradient) in y.chunks_exact(inner).zip(gradient.chunks_exact_mut(inner)) {
            let row = y[columns.clone()]
                .iter()
                .zip(&mut gradient[columns.clone()]);
            for (sum, (&y, gradient)) in sums.iter().zip(row) {
                *gradient = y * (*gradient - sum);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tests::{Kind, Noise};

    const SIZES: [(usize, usize, usize); 6] = [
        (3, 1000, 1),
        (70, 300, 1),
        (5, 3, 1),
        (2, 7, 300),
        (3, 5, 2),
        (2, 0, 3),
    ];

    fn made(outer: usize, n: usize, inner: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let count = outer * n * inner;
        let x: Vec<f32> = Noise(n as u64).values(Kind::Normal, count);
        let x: Vec<f32> = x.iter().map(|x| 300.0 * x).collect();
        let (mut y, mut gradient) = (x.clone(), Noise(inner as u64).values(Kind::Uniform, count));
        softmax(&mut y, n, inner);
        softmax_gradient(&y, &mut gradient, n, inner);
        (x, y, gradient)
    }

    /// Everything there is, as bits.
    pub(crate) fn everything(out: &mut Vec<u64>) {
        for (outer, n, inner) in SIZES {
            let (_, y, gradient) = made(outer, n, inner);
            out.extend(y.iter().chain(&gradient).map(|x| u64::from(x.to_bits())));
        }
    }

    #[test]
    fn is_the_formula() {
        for (outer, n, inner) in SIZES {
            let (x, y, gradient) = made(outer, n, inner);
            let upstream = Noise(inner as u64).values(Kind::Uniform, outer * n * inner);
            for column in 0..outer * inner {
                let first = column / inner * n * inner + column % inner;
                let places: Vec<usize> = (0..n).map(|k| first + k * inner).collect();
                let exps: Vec<f64> = places.iter().map(|&at| f64::from(x[at]).exp()).collect();
                let sum: f64 = exps.iter().sum();
                let product: f64 = places
                    .iter()
                    .zip(&exps)
                    .map(|(&at, e)| e / sum * f64::from(upstream[at]))
                    .sum();
                for (&at, e) in places.iter().zip(&exps) {
                    let wanted = e / sum;
                    assert!((f64::from(y[at]) - wanted).abs() < 1e-5 * wanted + 1e-30);
                    let slope = wanted * (f64::from(upstream[at]) - product);
                    assert!((f64::from(gradient[at]) - slope).abs() < 1e-5 * wanted + 1e-30);
                }
            }
        }
    }
}
