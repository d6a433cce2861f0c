//! `constexpr_lut_to_dense`: tables and indices to a dense weight.

use super::blocks::{Runs, runs};
use super::{DenseError, check_length, count, room};
use crate::tensor::from_front;
use rayon::prelude::*;

/// Elements that one thread looks up at a time.
const PIECE: usize = 1 << 16;

/// Elements of a run from which on several threads share the work.
const LONG: usize = 1 << 10;

/// The parts of a checked set of tables.
pub(super) struct Tables {
    /// Entries of one table.
    pub(super) entries: usize,
    /// Elements of one entry.
    pub(super) vector: usize,
    /// Elements behind the vector axis in the index tensor (1 with scalars, where they are not asked for).
    pub(super) inner: usize,
    /// Which table is for which indices.
    pub(super) runs: Runs,
    /// Shape of the dense weight.
    pub(super) shape: Vec<usize>,
    /// Elements of the dense weight.
    pub(super) len: usize,
}

impl Tables {
    /// Checks shapes, and the length of the tables.
    pub(super) fn new(
        index_shape: &[usize],
        lut_len: usize,
        lut_shape: &[usize],
        vector_axis: Option<i64>,
    ) -> Result<Self, DenseError> {
        let rank = index_shape.len();
        let rank_error = || DenseError::Rank {
            what: "lut",
            expected: rank.saturating_add(2),
            found: lut_shape.len(),
        };
        let (groups, &[entries, vector]) =
            lut_shape.split_last_chunk::<2>().ok_or_else(rank_error)?;
        if groups.len() != rank {
            return Err(rank_error());
        }
        if !entries.is_power_of_two() || !(2..=256).contains(&entries) {
            return Err(DenseError::Entries { found: entries });
        }
        let axis = match vector_axis {
            None => None,
            Some(axis) => Some(from_front(axis, rank).ok_or(DenseError::Axis { axis, rank })?),
        };
        let mut shape = index_shape.to_vec();
        let inner = match (vector, axis) {
            (1, _) => 1,
            (2.., Some(axis)) => {
                shape[axis] =
                    shape[axis]
                        .checked_mul(vector)
                        .ok_or_else(|| DenseError::TooLarge {
                            shape: index_shape.to_vec(),
                        })?;
                count(&index_shape[axis + 1..])?
            }
            (length, _) => return Err(DenseError::Vector { length }),
        };
        let len = count(&shape)?;
        let runs = runs("lut", index_shape, groups)?;
        check_length("lut", count(lut_shape)?, lut_len)?;
        Ok(Tables {
            entries,
            vector,
            inner,
            runs,
            shape,
            len,
        })
    }

    /// Refuses an index outside its table.
    pub(super) fn check_indices(&self, indices: &[u8]) -> Result<(), DenseError> {
        let entries = self.entries;
        match indices.iter().copied().max() {
            Some(index) if usize::from(index) >= entries => {
                Err(DenseError::Index { index, entries })
            }
            _ => Ok(()),
        }
    }
}

/// The elements of the dense weight that an index position stands for, given the positions behind the vector axis and the
/// length of a vector.
pub(crate) fn elements_of(
    position: usize,
    inner: usize,
    vector: usize,
) -> impl Iterator<Item = usize> {
    let first = position / inner * vector * inner + position % inner;
    (first..).step_by(inner).take(vector)
}

/// How many indices there are of each entry of all tables, in the order of the tables.
pub(crate) fn uses(
    indices: &[u8],
    index_shape: &[usize],
    lut_shape: &[usize],
    vector_axis: Option<i64>,
) -> Result<Vec<usize>, DenseError> {
    let tables = Tables::new(index_shape, count(lut_shape)?, lut_shape, vector_axis)?;
    check_length("indices", count(index_shape)?, indices.len())?;
    tables.check_indices(indices)?;
    let total = count(lut_shape)? / tables.vector;
    let mut uses = room(total)?;
    uses.resize(total, 0);
    for run in tables.runs {
        let table = &mut uses[run.block * tables.entries..][..tables.entries];
        for &index in &indices[run.start..][..run.len] {
            table[usize::from(index)] += 1;
        }
    }
    Ok(uses)
}

/// The shape of the dense weight: that of the indices, with the vector axis times the vector's length.
///
/// # Errors
/// As [`lut_to_dense`], for shapes.
///
/// ```
/// use palettizer_palette::decode::dense_shape;
///
/// assert_eq!(dense_shape(&[2, 5], &[1, 1, 16, 4], Some(-2))?, [8, 5]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn dense_shape(
    index_shape: &[usize],
    lut_shape: &[usize],
    vector_axis: Option<i64>,
) -> Result<Vec<usize>, DenseError> {
    Ok(Tables::new(index_shape, count(lut_shape)?, lut_shape, vector_axis)?.shape)
}

/// Looks every index up in the table of its block.
///
/// `indices` (one a byte, row-major, of `index_shape`) and `lut` (of `lut_shape`: blocks on each axis of the
/// indices, 2^n entries, vector length) may have any element type; an axis of `lut_shape` must divide that of
/// `index_shape`. `vector_axis`, from the end when negative, is the axis vectors are laid out along, needed when
/// they are longer than 1. The iOS16 form is the table `[1, …, 1, 2^n, 1]`. Returns the dense weight of
/// [`dense_shape`], row-major.
///
/// # Errors
/// A [`DenseError`] when shapes, lengths, the axis or an index do not fit.
///
/// ```
/// use palettizer_palette::decode::lut_to_dense;
///
/// // One index for two rows, two tables: one for each half of the columns.
/// let lut = [10, 11, 20, 21, /* second table */ 50, 51, 60, 61];
/// let dense = lut_to_dense(&[0, 1, 1, 0], &[1, 4], &lut, &[1, 2, 2, 2], Some(0))?;
/// assert_eq!(dense, [10, 20, 60, 50, /* second row */ 11, 21, 61, 51]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn lut_to_dense<T: Copy + Default + Send + Sync>(
    indices: &[u8],
    index_shape: &[usize],
    lut: &[T],
    lut_shape: &[usize],
    vector_axis: Option<i64>,
) -> Result<Vec<T>, DenseError> {
    let mut out = Vec::new();
    lut_to_dense_in(&mut out, indices, index_shape, lut, lut_shape, vector_axis)?;
    Ok(out)
}

/// As [`lut_to_dense`], in the memory of `out` if it is enough: to a large weight, new memory is half of the work. What was there
/// is lost.
///
/// # Errors
/// As [`lut_to_dense`].
///
/// ```
/// use palettizer_palette::decode::lut_to_dense_in;
///
/// let mut out = vec![7.0; 1000];
/// lut_to_dense_in(&mut out, &[1, 0, 1], &[3], &[0.5, -0.5], &[1, 2, 1], None)?;
/// assert_eq!(out, [-0.5, 0.5, -0.5]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn lut_to_dense_in<T: Copy + Default + Send + Sync>(
    out: &mut Vec<T>,
    indices: &[u8],
    index_shape: &[usize],
    lut: &[T],
    lut_shape: &[usize],
    vector_axis: Option<i64>,
) -> Result<(), DenseError> {
    let tables = Tables::new(index_shape, lut.len(), lut_shape, vector_axis)?;
    check_length("indices", count(index_shape)?, indices.len())?;
    tables.check_indices(indices)?;
    let (entries, vector, inner) = (tables.entries, tables.vector, tables.inner);
    let table = |block: usize| &lut[block * entries * vector..][..entries * vector];
    if out.capacity() < tables.len {
        *out = room(tables.len)?;
    }
    if vector == 1 && tables.len >= PIECE && tables.runs.run_len() >= LONG {
        // all of them are written
        out.truncate(tables.len);
        out.resize(tables.len, T::default());
        let mut pieces = Vec::new();
        let mut rest = out.as_mut_slice();
        for run in tables.runs {
            let indices = indices[run.start..][..run.len].chunks(PIECE);
            for indices in indices {
                let (piece, behind) = rest.split_at_mut(indices.len());
                rest = behind;
                pieces.push((run.block, indices, piece));
            }
        }
        pieces.into_par_iter().for_each(|(block, indices, piece)| {
            let mut full = [T::default(); 256];
            full[..entries].copy_from_slice(table(block));
            for (out, &index) in piece.iter_mut().zip(indices) {
                *out = full[usize::from(index)];
            }
        });
    } else if vector == 1 {
        out.clear();
        // A table that no byte leaves needs no bounds check; short runs are not worth filling it.
        let mut full = [T::default(); 256];
        for run in tables.runs {
            let table = table(run.block);
            let indices = &indices[run.start..][..run.len];
            if run.len < full.len() {
                out.extend(indices.iter().map(|&index| table[usize::from(index)]));
            } else {
                full[..entries].copy_from_slice(table);
                out.extend(indices.iter().map(|&index| full[usize::from(index)]));
            }
        }
    } else {
        out.truncate(tables.len);
        out.resize(tables.len, T::default());
        for run in tables.runs {
            let table = table(run.block);
            for position in run.start..run.start + run.len {
                let entry = &table[usize::from(indices[position]) * vector..][..vector];
                for (at, &element) in elements_of(position, inner, vector).zip(entry) {
                    out[at] = element;
                }
            }
        }
    }
    Ok(())
}
