//! `constexpr_lut_to_dense`: tables and indices to a dense weight.

use super::blocks::{Runs, runs};
use super::{DenseError, check_length, count, room};
use crate::tensor::from_front;
use palettizer_kernels::unpack;
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements that one thread looks up at a time; a multiple of 8, so that their indices begin where a byte does.
const SHARE: usize = 1 << 16;

/// Indices that are unpacked before they are looked up; a multiple of 8, and few enough to stay in the fastest cache.
const PIECE: usize = 1 << 12;

/// Elements of a run from which on a table of what each byte stands for is worth being made.
const LONG: usize = 1 << 12;

/// Indices of a few bits, 1 to 8 each: packed from the lowest bit of the first byte on, across the borders of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// All of them; what comes after them does not count.
    pub bytes: &'a [u8],
    /// The bits of one.
    pub nbits: u32,
}

impl Packed<'_> {
    /// Refuses fewer than `count`.
    fn check_length(self, count: usize) -> Result<(), DenseError> {
        let needed = (count as u128 * u128::from(self.nbits)).div_ceil(8);
        match (1..=8).contains(&self.nbits) && self.bytes.len() as u128 >= needed {
            true => Ok(()),
            false => Err(DenseError::Length {
                what: "packed indices",
                expected: needed as usize,
                found: self.bytes.len(),
            }),
        }
    }

    /// Fills `out` with the indices from `start` on, a multiple of 8.
    fn unpack(self, start: usize, out: &mut [u8]) {
        let bytes = self.bytes.get(start / 8 * self.nbits as usize..);
        let enough = unpack(bytes.unwrap_or_default(), self.nbits, out);
        debug_assert!(enough, "the length was checked");
    }
}

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

    /// The same of packed ones.
    fn check_packed(&self, indices: Packed<'_>, count: usize) -> Result<(), DenseError> {
        match indices.nbits {
            nbits if self.entries >> nbits > 0 => Ok(()),
            8 => self.check_indices(&indices.bytes[..count]),
            _ => {
                let mut wide = [0; PIECE];
                let mut largest = 0;
                for start in (0..count).step_by(PIECE) {
                    let wide = &mut wide[..PIECE.min(count - start)];
                    indices.unpack(start, wide);
                    largest = wide.iter().copied().fold(largest, u8::max);
                }
                self.check_indices(&[largest])
            }
        }
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
    check_length("indices", count(index_shape)?, indices.len())?;
    let indices = Packed {
        bytes: indices,
        nbits: 8,
    };
    let mut out = Vec::new();
    lut_to_dense_in(&mut out, indices, index_shape, lut, lut_shape, vector_axis)?;
    Ok(out)
}

/// As [`lut_to_dense`], of packed indices, in the memory of `out` if it is enough: to a large weight, new memory is half of the work.
/// What was there is lost.
///
/// # Errors
/// As [`lut_to_dense`].
///
/// ```
/// use palettizer_palette::decode::{Packed, lut_to_dense_in};
///
/// let mut out = vec![7.0; 1000];
/// let indices = Packed { bytes: &[0b101], nbits: 1 };
/// lut_to_dense_in(&mut out, indices, &[3], &[0.5, -0.5], &[1, 2, 1], None)?;
/// assert_eq!(out, [-0.5, 0.5, -0.5]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn lut_to_dense_in<T: Copy + Default + Send + Sync>(
    out: &mut Vec<T>,
    indices: Packed<'_>,
    index_shape: &[usize],
    lut: &[T],
    lut_shape: &[usize],
    vector_axis: Option<i64>,
) -> Result<(), DenseError> {
    let tables = Tables::new(index_shape, lut.len(), lut_shape, vector_axis)?;
    let count = count(index_shape)?;
    indices.check_length(count)?;
    tables.check_packed(indices, count)?;
    if out.capacity() < tables.len {
        *out = room(tables.len)?;
    }
    // all of them are written
    out.truncate(tables.len);
    out.resize(tables.len, T::default());
    match tables.vector {
        1 if out.len() <= SHARE => scalars(indices, &tables, lut, 0, out),
        1 => {
            let shares = out.par_chunks_mut(SHARE).enumerate();
            shares.for_each(|(share, out)| scalars(indices, &tables, lut, share * SHARE, out));
        }
        _ => vectors(indices, count, tables, lut, out)?,
    }
    Ok(())
}

/// Looks indices up from `start` on, a multiple of 8.
fn scalars<T: Copy + Default>(
    indices: Packed<'_>,
    tables: &Tables,
    lut: &[T],
    start: usize,
    out: &mut [T],
) {
    let run_len = tables.runs.run_len();
    let aligned = run_len >= LONG && (run_len.is_multiple_of(8) || run_len == tables.len);
    match indices.nbits {
        1 if aligned => by_bytes::<T, 8>(indices, tables, lut, start, out),
        2 if aligned => by_bytes::<T, 4>(indices, tables, lut, start, out),
        4 if aligned => by_bytes::<T, 2>(indices, tables, lut, start, out),
        _ => by_pieces(indices, tables, lut, start, out),
    }
}

/// The same, by tables of what each byte stands for, which is `N` entries; runs begin where a byte does.
fn by_bytes<T: Copy + Default, const N: usize>(
    Packed { bytes, nbits }: Packed<'_>,
    tables: &Tables,
    lut: &[T],
    start: usize,
    out: &mut [T],
) {
    for (block, part) in tables.runs.within(start..start + out.len()) {
        let table = &lut[block * tables.entries..][..tables.entries];
        let mut entries = [[T::default(); N]; 256];
        for (byte, entries) in entries.iter_mut().enumerate() {
            for (at, entry) in entries.iter_mut().enumerate() {
                let index = byte >> (at * nbits as usize) & ((1 << nbits) - 1);
                // an index that no table has is in no byte
                *entry = table.get(index).copied().unwrap_or_default();
            }
        }
        let bytes = &bytes[(start + part.start) / N..];
        let (whole, rest) = out[part].as_chunks_mut::<N>();
        for (out, &byte) in whole.iter_mut().zip(bytes) {
            *out = entries[usize::from(byte)];
        }
        if !rest.is_empty() {
            let last = entries[usize::from(bytes[whole.len()])];
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// The same, by indices that are unpacked a piece at a time.
fn by_pieces<T: Copy + Default>(
    indices: Packed<'_>,
    tables: &Tables,
    lut: &[T],
    start: usize,
    out: &mut [T],
) {
    let mut wide = [0; PIECE];
    // a table that no byte leaves needs no bounds check; short runs are not worth filling it
    let mut full = [T::default(); 256];
    let mut filled = None;
    for (piece, out) in out.chunks_mut(PIECE).enumerate() {
        let start = start + piece * PIECE;
        let wide = &mut wide[..out.len()];
        indices.unpack(start, wide);
        for (block, part) in tables.runs.within(start..start + out.len()) {
            let table = &lut[block * tables.entries..][..tables.entries];
            let out = out[part.clone()].iter_mut().zip(&wide[part]);
            if tables.runs.run_len() < full.len() {
                out.for_each(|(out, &index)| *out = table[usize::from(index)]);
            } else {
                if filled != Some(block) {
                    full[..table.len()].copy_from_slice(table);
                    filled = Some(block);
                }
                out.for_each(|(out, &index)| *out = full[usize::from(index)]);
            }
        }
    }
}

/// Looks all indices up, in tables of vectors.
fn vectors<T: Copy>(
    indices: Packed<'_>,
    count: usize,
    tables: Tables,
    lut: &[T],
    out: &mut [T],
) -> Result<(), DenseError> {
    let indices = match indices.nbits {
        8 => Cow::Borrowed(indices.bytes),
        _ => {
            let mut wide = room(count)?;
            wide.resize(count, 0);
            indices.unpack(0, &mut wide);
            Cow::Owned(wide)
        }
    };
    let (vector, inner) = (tables.vector, tables.inner);
    let table = tables.entries * vector;
    for run in tables.runs {
        let table = &lut[run.block * table..][..table];
        for position in run.start..run.start + run.len {
            let entry = &table[usize::from(indices[position]) * vector..][..vector];
            for (at, &element) in elements_of(position, inner, vector).zip(entry) {
                out[at] = element;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use palettizer_kernels::pack;

    /// The entries of indices of `nbits` bits, looked up one by one; and by the code under test.
    fn both(nbits: u32, shape: &[usize], blocks: &[usize], vector: usize) -> [Vec<u32>; 2] {
        let entries = 1 << nbits;
        let (count, tables): (usize, usize) = (shape.iter().product(), blocks.iter().product());
        let lut: Vec<u32> = (0..(tables * entries * vector) as u32).collect();
        let indices: Vec<u8> = (0..count).map(|at| (at * 37 + at / 91 % 5) as u8).collect();
        let indices: Vec<u8> = indices.iter().map(|index| index % entries as u8).collect();
        let mut expected = vec![0; count * vector];
        let inner: usize = shape[1..].iter().product();
        for (at, &index) in indices.iter().enumerate() {
            let block = super::super::block_of(at, shape, blocks);
            let entry = &lut[(block * entries + usize::from(index)) * vector..][..vector];
            for (at, &element) in elements_of(at, inner, vector).zip(entry) {
                expected[at] = element;
            }
        }
        let mut bytes = Vec::new();
        pack(&indices, nbits, &mut bytes);
        let lut_shape = [blocks, &[entries, vector]].concat();
        let mut found = vec![7; 3];
        let packed = Packed {
            bytes: &bytes,
            nbits,
        };
        lut_to_dense_in(&mut found, packed, shape, &lut, &lut_shape, Some(0)).unwrap();
        [expected, found]
    }

    #[test]
    fn packed_indices_are_looked_up_in_every_width_and_layout() {
        let layouts: &[(&[usize], &[usize], usize)] = &[
            (&[1, 1], &[1, 1], 1),
            (&[3, 77], &[1, 1], 1),
            (&[3, 77], &[3, 1], 1),
            (&[6, 77], &[2, 7], 1),
            (&[5, 300], &[5, 1], 1),
            (&[3, 4099], &[1, 1], 1),
            (&[3, 4099], &[3, 1], 1),
            (&[4, 4104], &[2, 1], 1),
            (&[6, 24_001], &[2, 1], 1),
            (&[6, 24_000], &[3, 1], 1),
            (&[17, 8192], &[17, 4], 1),
            (&[1, 140_003], &[1, 1], 1),
            (&[5, 77], &[5, 7], 3),
        ];
        for &(shape, blocks, vector) in layouts {
            for nbits in 1..8 {
                let [expected, found] = both(nbits, shape, blocks, vector);
                assert!(expected == found, "{nbits} bits, {shape:?}, {blocks:?}");
            }
        }
    }

    #[test]
    fn packed_indices_outside_their_table_are_refused() {
        let mut indices = vec![3; 5000];
        for (at, nbits) in [(0, 3), (4999, 3), (77, 4), (77, 8)] {
            indices[at] = 5;
            let mut bytes = Vec::new();
            pack(&indices, nbits, &mut bytes);
            indices[at] = 3;
            let packed = Packed {
                bytes: &bytes,
                nbits,
            };
            let found = lut_to_dense_in(&mut vec![], packed, &[5000], &[0; 4], &[1, 4, 1], None);
            let index = DenseError::Index {
                index: 5,
                entries: 4,
            };
            assert_eq!(found, Err(index), "{nbits} bits");
        }
    }

    #[test]
    fn packed_indices_that_are_too_few_are_refused() {
        for (nbits, bytes) in [(3, 3), (8, 8), (0, 9), (9, 99)] {
            let packed = Packed {
                bytes: &vec![0; bytes],
                nbits,
            };
            let found = lut_to_dense_in(&mut vec![], packed, &[9], &[0; 256], &[1, 256, 1], None);
            let what = "packed indices";
            assert!(
                matches!(found, Err(DenseError::Length { what: found, .. }) if found == what),
                "{nbits} bits: {found:?}"
            );
        }
    }
}
