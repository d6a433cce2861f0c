//! The sparse forms: a bitmap of kept positions, and values for these alone.
//!
//! A mask is packed one bit an element, row-major, least-significant bit first, exactly ⌈elements / 8⌉ bytes.

use std::ops::Range;

use super::lut::{Tables, elements_of};
use super::shift_scale::scaled_runs;
use super::{DenseError, Float, Source, check_length, count, room};

/// A sparse weight: the second and first output of the sparse ops.
///
/// ```
/// use palettizer_palette::decode::{Sparse, sparse_to_dense};
///
/// let sparse = Sparse { mask: vec![0b101], values: vec![7, 9] };
/// assert_eq!(sparse_to_dense(&sparse.values, &sparse.mask, &[3])?, [7, 0, 9]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse<T> {
    /// Which positions are kept, packed.
    pub mask: Vec<u8>,
    /// Their values, in row-major order.
    pub values: Vec<T>,
}

/// How many positions a mask keeps.
///
/// # Errors
/// [`DenseError::Length`] when the mask is not ⌈elements / 8⌉ bytes, [`DenseError::TooLarge`].
///
/// ```
/// // The last four bits lie behind the end.
/// assert_eq!(palettizer_palette::decode::kept(&[0b1111_0110], &[2, 2]), Ok(2));
/// ```
pub fn kept(mask: &[u8], shape: &[usize]) -> Result<usize, DenseError> {
    let elements = count(shape)?;
    check_length("mask bytes", elements.div_ceil(8), mask.len())?;
    Ok(ones(mask, 0..elements))
}

/// Whether a position is kept.
pub(crate) fn is_kept(mask: &[u8], at: usize) -> bool {
    mask[at / 8] >> (at % 8) & 1 == 1
}

/// The kept positions of a range.
pub(crate) fn positions(mask: &[u8], range: Range<usize>) -> impl Iterator<Item = usize> + '_ {
    range.filter(|&at| is_kept(mask, at))
}

/// How many they are.
pub(crate) fn ones(mask: &[u8], range: Range<usize>) -> usize {
    let whole = range.start.div_ceil(8)..range.end / 8;
    if whole.start >= whole.end {
        return positions(mask, range).count();
    }
    let before = positions(mask, range.start..whole.start * 8).count();
    let behind = positions(mask, whole.end * 8..range.end).count();
    let bytes = mask[whole].iter();
    before + behind + bytes.map(|byte| byte.count_ones() as usize).sum::<usize>()
}

fn check_kept(mask: &[u8], shape: &[usize], found: usize) -> Result<(), DenseError> {
    let kept = kept(mask, shape)?;
    if kept == found {
        Ok(())
    } else {
        Err(DenseError::Kept { kept, found })
    }
}

/// `constexpr_sparse_to_dense`: the values at their positions and zeros elsewhere, of `shape`.
///
/// # Errors
/// A [`DenseError`] when mask, shape and number of values do not fit.
///
/// ```
/// use palettizer_palette::decode::sparse_to_dense;
///
/// assert_eq!(sparse_to_dense(&[1.5, 2.5], &[0b1010], &[2, 2])?, [0.0, 1.5, 0.0, 2.5]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn sparse_to_dense<T: Copy + Default>(
    values: &[T],
    mask: &[u8],
    shape: &[usize],
) -> Result<Vec<T>, DenseError> {
    check_kept(mask, shape, values.len())?;
    let elements = count(shape)?;
    let mut out = room(elements)?;
    out.resize(elements, T::default());
    for (at, &value) in positions(mask, 0..elements).zip(values) {
        out[at] = value;
    }
    Ok(out)
}

/// `constexpr_lut_to_sparse`: [`lut_to_dense`](super::lut_to_dense) at the kept positions alone.
///
/// `mask` is of `index_shape`; `indices` are those of the kept positions. With vectors, the mask of the result is
/// widened along the vector axis.
///
/// # Errors
/// A [`DenseError`] when shapes, lengths, the axis or an index do not fit.
///
/// ```
/// use palettizer_palette::decode::lut_to_sparse;
///
/// let sparse = lut_to_sparse(&[0b0110], &[2, 2], &[1, 0], &[10, 11], &[1, 1, 2, 1], None)?;
/// assert_eq!((sparse.mask, sparse.values), (vec![0b0110], vec![11, 10]));
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn lut_to_sparse<T: Copy + Default + Send + Sync>(
    mask: &[u8],
    index_shape: &[usize],
    indices: &[u8],
    lut: &[T],
    lut_shape: &[usize],
    vector_axis: Option<i64>,
) -> Result<Sparse<T>, DenseError> {
    let tables = Tables::new(index_shape, lut.len(), lut_shape, vector_axis)?;
    check_kept(mask, index_shape, indices.len())?;
    tables.check_indices(indices)?;
    if tables.vector > 1 {
        // Rows of a vector interleave in memory order: go through the dense weight, as the op is defined.
        let spread = sparse_to_dense(indices, mask, index_shape)?;
        let dense = super::lut_to_dense(&spread, index_shape, lut, lut_shape, vector_axis)?;
        let mut wide: Vec<u8> = room(tables.len.div_ceil(8))?;
        wide.resize(tables.len.div_ceil(8), 0);
        for at in positions(mask, 0..spread.len()) {
            for to in elements_of(at, tables.inner, tables.vector) {
                wide[to / 8] |= 1 << (to % 8);
            }
        }
        let mut values = room(indices.len() * tables.vector)?;
        values.extend(positions(&wide, 0..tables.len).map(|at| dense[at]));
        return Ok(Sparse { mask: wide, values });
    }
    let mut values = room(indices.len())?;
    let mut left = indices.iter();
    for run in tables.runs {
        let table = &lut[run.block * tables.entries..][..tables.entries];
        let here = ones(mask, run.start..run.start + run.len);
        values.extend(left.by_ref().take(here).map(|&i| table[usize::from(i)]));
    }
    Ok(Sparse {
        mask: mask.to_vec(),
        values,
    })
}

/// `constexpr_sparse_blockwise_shift_scale`: [`shift_scale`](super::shift_scale) at the kept positions alone.
///
/// `mask` is of `shape`, and stays the mask of the result; `values` are those of the kept positions, and so are the
/// results.
///
/// # Errors
/// A [`DenseError`] when shapes or lengths do not fit.
///
/// ```
/// use palettizer_palette::decode::sparse_shift_scale;
///
/// let out = sparse_shift_scale(&[0b1001], &[2, 2], &[3_i8, 4], &[0.5_f32, 2.0], &[2, 1], None::<&[i8]>)?;
/// assert_eq!(out, [1.5, 8.0]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn sparse_shift_scale<D: Source, S: Float, O: Source>(
    mask: &[u8],
    shape: &[usize],
    values: &[D],
    scale: &[S],
    scale_shape: &[usize],
    offset: Option<&[O]>,
) -> Result<Vec<S>, DenseError> {
    check_kept(mask, shape, values.len())?;
    let runs = scaled_runs(shape, scale, scale_shape, offset)?;
    let mut out = room(values.len())?;
    let mut done = 0;
    for run in runs {
        let here = ones(mask, run.start..run.start + run.len);
        let block = run.block;
        out.extend(super::shift_scale(
            &values[done..done + here],
            &[here],
            &scale[block..=block],
            &[1],
            offset.map(|offset| &offset[block..=block]),
        )?);
        done += here;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_of_every_range() {
        let mask = [0b1011_0010, 0xff, 0b0110_1001, 0];
        for start in 0..32 {
            for end in start..=32 {
                let naive = positions(&mask, start..end).count();
                assert_eq!(ones(&mask, start..end), naive, "{start}..{end}");
            }
        }
    }
}
