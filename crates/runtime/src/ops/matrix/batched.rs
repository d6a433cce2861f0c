//! Products of matrices for each of some batch dimensions.

use crate::axis::product as count;
use crate::broadcast::{shape_of, strides, sum_to};
use crate::call::Fault;
use palettizer_kernels::{Matrix, product, product_alone};
use rayon::prelude::*;

/// One of the two factors: a matrix for each of its batch dimensions, perhaps stored as its transpose.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    batch: Vec<usize>,
    /// As it is multiplied.
    rows: usize,
    columns: usize,
    flipped: bool,
    /// Whether it came without the dimension that the product has no use for.
    vector: bool,
}

impl Factor {
    /// The first one; of one dimension, it is a row.
    pub(super) fn first(shape: &[usize], flipped: bool) -> Self {
        match shape {
            [] => Self::of(&[1, 1], false, true),
            [n] => Self::of(&[1, *n], false, true),
            _ => Self::of(shape, flipped, false),
        }
    }

    /// The second one; of one dimension, it is a column.
    pub(super) fn second(shape: &[usize], flipped: bool) -> Self {
        match shape {
            [] => Self::of(&[1, 1], false, true),
            [n] => Self::of(&[*n, 1], false, true),
            _ => Self::of(shape, flipped, false),
        }
    }

    fn of(shape: &[usize], flipped: bool, vector: bool) -> Self {
        let (batch, last) = shape.split_at(shape.len() - 2);
        let (rows, columns) = if flipped {
            (last[1], last[0])
        } else {
            (last[0], last[1])
        };
        Factor {
            batch: batch.to_vec(),
            rows,
            columns,
            flipped,
            vector,
        }
    }

    fn len(&self) -> usize {
        self.rows.saturating_mul(self.columns)
    }

    fn matrix<'a>(&self, values: &'a [f32], offset: usize) -> Matrix<'a> {
        let values = &values[offset..][..self.len()];
        match self.flipped {
            true => Matrix::new(values, self.columns, self.rows).transposed(),
            false => Matrix::new(values, self.rows, self.columns),
        }
    }

    /// The shape of the product, one-dimensional factors as the matrices that they stand for.
    pub(super) fn shape_with(&self, other: &Factor) -> Result<Vec<usize>, Fault> {
        if self.columns != other.rows {
            return Err(format!(
                "x has {} columns, y {} rows; they must be equal",
                self.columns, other.rows
            )
            .into());
        }
        let mut shape = shape_of(&[&self.batch, &other.batch])?;
        shape.extend([self.rows, other.columns]);
        Ok(shape)
    }

    /// The shape of the product without the dimensions that one-dimensional factors lack.
    pub(super) fn squeezed(&self, other: &Factor, mut shape: Vec<usize>) -> Vec<usize> {
        if other.vector {
            shape.pop();
        }
        if self.vector {
            shape.remove(shape.len() - if other.vector { 1 } else { 2 });
        }
        shape
    }

    /// Where its matrix begins for each batch of the product.
    fn offsets(&self, batch: &[usize]) -> Result<Vec<usize>, Fault> {
        let strides = strides(&self.batch, batch)?;
        let mut found = vec![0];
        for (&dim, stride) in batch.iter().zip(strides) {
            let steps = |base: &usize| (0..dim).map(move |at| (*base, at)).collect::<Vec<_>>();
            let next = found
                .iter()
                .flat_map(steps)
                .map(|(base, at)| base + at * stride * self.len());
            found = next.collect();
        }
        Ok(found)
    }
}

/// Multiplications of one product from which on it is worth all threads.
const LARGE: usize = 1 << 22;

/// Writes all products.
pub(super) fn multiply(
    x: (&[f32], &Factor),
    y: (&[f32], &Factor),
    out: &mut [f32],
) -> Result<(), Fault> {
    let ((x, a), (y, b)) = (x, y);
    let batch = shape_of(&[&a.batch, &b.batch])?;
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if count(&b.batch) == 1 && !a.flipped {
        // one matrix for all: one product
        let rows = m.saturating_mul(count(&a.batch));
        product(Matrix::new(x, rows, k), b.matrix(y, 0), out, n, false);
        return Ok(());
    }
    let (from_x, from_y) = (a.offsets(&batch)?, b.offsets(&batch)?);
    let size = m.saturating_mul(n);
    if size == 0 {
        return Ok(());
    }
    let large = size.saturating_mul(k) >= LARGE || from_x.len() < rayon::current_num_threads();
    let one = |(at, out): (usize, &mut [f32])| {
        let (a, b) = (a.matrix(x, from_x[at]), b.matrix(y, from_y[at]));
        match large {
            true => product(a, b, out, n, false),
            false => product_alone(a, b, out, n, false),
        }
    };
    match large {
        true => out.chunks_exact_mut(size).enumerate().for_each(one),
        false => out.par_chunks_exact_mut(size).enumerate().for_each(one),
    }
    Ok(())
}

/// The same of integers, which wrap around.
pub(super) fn integers(
    x: (&[i32], &Factor),
    y: (&[i32], &Factor),
    out: &mut [i32],
) -> Result<(), Fault> {
    let ((x, a), (y, b)) = (x, y);
    let batch = shape_of(&[&a.batch, &b.batch])?;
    let (from_x, from_y) = (a.offsets(&batch)?, b.offsets(&batch)?);
    let at = |factor: &Factor, row: usize, column: usize| match factor.flipped {
        true => column * factor.rows + row,
        false => row * factor.columns + column,
    };
    let size = (a.rows * b.columns).max(1);
    for ((out, &from_x), &from_y) in out.chunks_exact_mut(size).zip(&from_x).zip(&from_y) {
        for row in 0..a.rows {
            for column in 0..b.columns {
                let terms = (0..a.columns)
                    .map(|k| x[from_x + at(a, row, k)].wrapping_mul(y[from_y + at(b, k, column)]));
                out[row * b.columns + column] = terms.fold(0i32, i32::wrapping_add);
            }
        }
    }
    Ok(())
}

type Both = (Option<Vec<f32>>, Option<Vec<f32>>);

/// The gradients of both factors.
pub(super) fn multiply_backward(
    x: (&[f32], &Factor),
    y: (&[f32], &Factor),
    upstream: &[f32],
    wanted: (bool, bool),
) -> Result<Both, Fault> {
    let ((x, a), (y, b)) = (x, y);
    let batch = shape_of(&[&a.batch, &b.batch])?;
    let (m, n) = (a.rows, b.columns);
    let (from_x, from_y) = (a.offsets(&batch)?, b.offsets(&batch)?);
    let slopes = |at: usize| Matrix::new(&upstream[at * m * n..][..m * n], m, n);
    let each = |factor: &Factor, one: &(dyn Fn(usize, &mut [f32]) + Sync)| {
        let size = factor.len();
        let mut whole = vec![0.0f32; size.saturating_mul(from_x.len())];
        whole
            .chunks_exact_mut(size.max(1))
            .enumerate()
            .for_each(|(at, out)| one(at, out));
        let (mut wide, mut own) = (batch.clone(), factor.batch.clone());
        wide.push(size);
        own.push(size);
        sum_to(whole, &wide, &own)
    };
    let dx = wanted.0.then(|| {
        each(a, &|at, out| {
            let right = b.matrix(y, from_y[at]).transposed();
            match a.flipped {
                true => product(right.transposed(), slopes(at).transposed(), out, m, false),
                false => product(slopes(at), right, out, a.columns, false),
            }
        })
    });
    let dy = wanted.1.then(|| {
        each(b, &|at, out| {
            let left = a.matrix(x, from_x[at]).transposed();
            match b.flipped {
                true => product(
                    slopes(at).transposed(),
                    left.transposed(),
                    out,
                    b.rows,
                    false,
                ),
                false => product(left, slopes(at), out, n, false),
            }
        })
    });
    Ok((dx, dy))
}
