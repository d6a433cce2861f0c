//! Sums, products and extremes of rows and of columns, in fp64 lanes.
//!
//! Elements are seen as \[outer, n, inner\] and folded along n. Pieces depend on the sizes alone, and are merged in order.

use crate::simd::dispatch;
use rayon::prelude::*;

/// Elements that one piece of work folds.
const PIECE: usize = 1 << 16;
/// Columns whose sums are kept at once.
const TILE: usize = 256;
/// Sums that a row is folded into side by side.
const LANES: usize = 16;

/// A way to fold numbers into one.
///
/// ```
/// use palettizer_kernels::{Fold, fold};
///
/// struct Sum;
/// impl Fold for Sum {
///     const START: f64 = 0.0;
///     #[inline(always)]
///     fn add(sum: f64, x: f32) -> f64 {
///         sum + f64::from(x)
///     }
///     #[inline(always)]
///     fn merge(sum: f64, other: f64) -> f64 {
///         sum + other
///     }
/// }
/// let (values, mut rows, mut columns) = ([1.0, 2.0, 3.0, 4.0], [0.0; 2], [0.0; 2]);
/// fold::<Sum>(&values, 2, 1, &mut rows);
/// fold::<Sum>(&values, 2, 2, &mut columns);
/// assert_eq!((rows, columns), ([3.0, 7.0], [4.0, 6.0]));
/// ```
pub trait Fold: Sync {
    /// What nothing is folded into.
    const START: f64;
    /// With one number more.
    fn add(sum: f64, x: f32) -> f64;
    /// Two parts together.
    fn merge(sum: f64, other: f64) -> f64;
}

/// Folds elements \[outer, n, inner\] along n into `out`, \[outer, inner\].
///
/// # Panics
/// If the lengths do not fit each other.
pub fn fold<F: Fold>(values: &[f32], n: usize, inner: usize, out: &mut [f32]) {
    assert_eq!(
        Some(values.len()),
        out.len().checked_mul(n),
        "n values for each result"
    );
    if out.is_empty() {
        return;
    }
    assert_eq!(out.len() % inner.max(1), 0, "inner results in a row");
    if n == 0 {
        return out.fill(F::START as f32);
    }
    match inner {
        1 => rows::<F>(values, n, out),
        _ => columns::<F>(values, n, inner, out),
    }
}

fn rows<F: Fold>(values: &[f32], n: usize, out: &mut [f32]) {
    if n > PIECE {
        for (row, out) in values.chunks_exact(n).zip(out) {
            let parts: Vec<f64> = row.par_chunks(PIECE).map(fold_row::<F>).collect();
            *out = parts.into_iter().fold(F::START, F::merge) as f32;
        }
        return;
    }
    let each = PIECE / n;
    let some = |(values, out): (&[f32], &mut [f32])| {
        for (row, out) in values.chunks_exact(n).zip(out) {
            *out = fold_row::<F>(row) as f32;
        }
    };
    if out.len() <= each {
        return some((values, out));
    }
    let pieces = values.par_chunks(each * n).zip(out.par_chunks_mut(each));
    pieces.for_each(some);
}

fn columns<F: Fold>(values: &[f32], n: usize, inner: usize, out: &mut [f32]) {
    // as many rows in a piece as make it worth while
    let rows = (PIECE / inner.min(TILE)).max(1);
    let tiles = out.par_chunks_mut(inner).zip(values.par_chunks(n * inner));
    let tiles = tiles.flat_map(|(out, values)| {
        let tiles = out.par_chunks_mut(TILE).enumerate();
        tiles.map(move |(tile, out)| (values, tile * TILE, out))
    });
    tiles.for_each(|(values, first, out)| {
        let blocks = values.par_chunks(rows * inner);
        let parts: Vec<[f64; TILE]> = blocks
            .map(|block| {
                let mut sums = [F::START; TILE];
                fold_columns::<F>(block, inner, first, &mut sums[..out.len()]);
                sums
            })
            .collect();
        for (at, out) in out.iter_mut().enumerate() {
            *out = parts.iter().map(|part| part[at]).fold(F::START, F::merge) as f32;
        }
    });
}

dispatch! {
    fn fold_row<F: Fold>(row: &[f32]) -> f64 = fold_row_body::<F>
}

#[inline(always)]
fn fold_row_body<F: Fold>(row: &[f32]) -> f64 {
    let mut sums = [F::START; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = F::add(*sum, x);
        }
    }
    let rest = rest.iter().fold(F::START, |sum, &x| F::add(sum, x));
    sums.iter().fold(rest, |sum, &other| F::merge(sum, other))
}

dispatch! {
    fn fold_columns<F: Fold>(rows: &[f32], inner: usize, first: usize, sums: &mut [f64]) = fold_columns_body::<F>
}

#[inline(always)]
fn fold_columns_body<F: Fold>(rows: &[f32], inner: usize, first: usize, sums: &mut [f64]) {
    for row in rows.chunks_exact(inner) {
        for (sum, &x) in sums.iter_mut().zip(&row[first..]) {
            *sum = F::add(*sum, x);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tests::{Kind, Noise};

    struct Sum;
    impl Fold for Sum {
        const START: f64 = 0.0;
        #[inline(always)]
        fn add(sum: f64, x: f32) -> f64 {
            sum + f64::from(x)
        }
        #[inline(always)]
        fn merge(sum: f64, other: f64) -> f64 {
            sum + other
        }
    }

    const SIZES: [(usize, usize, usize); 9] = [
        (1, 200_000, 1),
        (3, 70_000, 1),
        (700, 300, 1),
        (5, 0, 4),
        (0, 3, 4),
        (2, 3, 1000),
        (1, 90_000, 3),
        (40, 17, 5),
        (1, 300, 300),
    ];

    /// Everything there is, as bits.
    pub(crate) fn everything(out: &mut Vec<u64>) {
        for (outer, n, inner) in SIZES {
            let values = Noise(n as u64).values(Kind::Normal, outer * n * inner);
            let mut sums = vec![0.0; outer * inner];
            fold::<Sum>(&values, n, inner, &mut sums);
            out.extend(sums.iter().map(|sum| u64::from(sum.to_bits())));
        }
    }

    #[test]
    fn is_the_sum_one_by_one() {
        for (outer, n, inner) in SIZES {
            let values = Noise(n as u64).values(Kind::Normal, outer * n * inner);
            let mut sums = vec![0.0; outer * inner];
            fold::<Sum>(&values, n, inner, &mut sums);
            for (at, &found) in sums.iter().enumerate() {
                let first = at / inner * n * inner + at % inner;
                let each = (0..n).map(|k| f64::from(values[first + k * inner]));
                assert_eq!(found, each.sum::<f64>() as f32, "{outer} {n} {inner}");
            }
        }
    }
}
