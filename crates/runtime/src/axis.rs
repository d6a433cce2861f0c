//! One axis of a tensor by a table of indices: what gathering, pads that repeat, and nearest neighbours have in common.

use crate::element::{Element, in_parts};
use crate::tensor::element_count;

/// A tensor around one of its axes: how many blocks are before it, its length, and how many elements are after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    pub before: usize,
    pub dim: usize,
    pub after: usize,
}

impl Around {
    /// The sizes around an axis, which must be one of the shape's.
    pub(crate) fn axis(shape: &[usize], axis: usize) -> Self {
        Around {
            before: product(&shape[..axis]),
            dim: shape[axis],
            after: product(&shape[axis + 1..]),
        }
    }
}

/// The product of some dimensions; where it is larger than any memory, the tensor is empty.
pub(crate) fn product(dims: &[usize]) -> usize {
    element_count(dims).unwrap_or(usize::MAX)
}

/// The positions of the axis that a table names, in its order. There is a table for each batch, all of one length; the batches are
/// the blocks before the axis, or several of them each.
pub(crate) fn taken<T: Element>(
    values: &[T],
    around: Around,
    table: &[usize],
    batches: usize,
) -> Vec<T> {
    let Around { before, dim, after } = around;
    let len = table.len() / batches.max(1);
    let mut out = vec![T::default(); element_count(&[before, len, after]).unwrap_or(0)];
    if out.is_empty() {
        return out;
    }
    let each = (before / batches.max(1)).max(1);
    in_parts(&mut out, len * after, |(block, out)| {
        let table = &table[block / each * len..][..len];
        let values = &values[block * dim * after..][..dim * after];
        match after {
            1 => out
                .iter_mut()
                .zip(table)
                .for_each(|(out, &at)| *out = values[at]),
            _ => out
                .chunks_exact_mut(after)
                .zip(table)
                .for_each(|(out, &at)| out.copy_from_slice(&values[at * after..][..after])),
        }
    });
    out
}

/// The gradient of [`taken`]: each element has the sum of what was taken from it.
pub(crate) fn given_back(
    gradient: &[f32],
    around: Around,
    table: &[usize],
    batches: usize,
) -> Vec<f32> {
    let Around { before, dim, after } = around;
    let len = table.len() / batches.max(1);
    let mut sums = vec![0f32; element_count(&[before, dim, after]).unwrap_or(0)];
    if sums.is_empty() || len == 0 {
        return sums;
    }
    let each = (before / batches.max(1)).max(1);
    in_parts(&mut sums, dim * after, |(block, sums)| {
        let table = &table[block / each * len..][..len];
        let gradient = &gradient[block * len * after..][..len * after];
        match after {
            1 => gradient
                .iter()
                .zip(table)
                .for_each(|(more, &at)| sums[at] += more),
            _ => gradient
                .chunks_exact(after)
                .zip(table)
                .for_each(|(more, &at)| {
                    let sums = &mut sums[at * after..][..after];
                    sums.iter_mut()
                        .zip(more)
                        .for_each(|(sum, more)| *sum += more);
                }),
        }
    });
    sums
}
