//! A palette from a dense weight that is one already: the indices are found again, value by value.
//!
//! # Idea
//! An entry, times its channel's scale where there is one, has certain bits, and the weight has the same bits wherever
//! that entry was meant. So no distance is taken, and what is found decompresses to the very weight. For each run of
//! index positions that share a table and all scales, the entries are put in a hash table by their bits, and every vector
//! (a scalar is one of one element) is looked up. Of entries that come to the same the first is found.
//!
//! # Cost
//! A look into a hash table for each index, in parallel; one byte an element beside the result. A run shorter than a table, as
//! one-channel groups of short rows have them, is compared with all entries instead.

use std::borrow::Cow;

use half::{bf16, f16};
use rayon::prelude::*;
use thiserror::Error;

use super::rounding::Rounding;
use crate::decode::{self, DenseError};
use crate::palette::packed;
use crate::tensor::elements;
use crate::{ChannelScale, Dtype, Lut, Nbits, Palette, Tensor};

/// Indices of one task.
const CHUNK: usize = 1 << 15;

/// Why a dense weight is not what its tables can make.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RecoverError {
    /// Tables, scale and weight that do not fit together.
    #[error(transparent)]
    Parts(#[from] DenseError),
    /// A weight without elements.
    #[error("the shape {shape:?} holds no element")]
    Empty {
        /// The weight's shape.
        shape: Vec<usize>,
    },
    /// Tables of a size for which there is no index type.
    #[error(
        "tables of {found} entries: expected 2, 4, 8, 16, 64 or 256, for which Core ML has index types"
    )]
    Entries {
        /// Entries of one table.
        found: usize,
    },
    /// Vectors that do not come out even.
    #[error("entries of {dim} elements do not divide the {channels} channels of axis {axis}")]
    Vectors {
        /// Length of the axis.
        channels: usize,
        /// The axis vectors lie along.
        axis: usize,
        /// Elements of an entry.
        dim: usize,
    },
    /// A value (or a vector) that its table does not have.
    #[error(
        "{} at {at:?} is none of the {entries} entries of its table (number {table}): was the weight changed after it \
         was palettized?",
        text(.values)
    )]
    Value {
        /// The value, or the vector's.
        values: Vec<f32>,
        /// Where in the weight its first element is.
        at: Vec<usize>,
        /// Which table, in row-major order.
        table: usize,
        /// Entries of the table.
        entries: usize,
    },
}

fn text(values: &[f32]) -> String {
    match values {
        [one] => one.to_string(),
        vector => format!("{vector:?}"),
    }
}

impl Palette {
    /// The palette that a dense weight stands for, given everything but the indices.
    ///
    /// `tensor` is the dense weight; `lut` has its tables, of the shape `lut_shape` (the weight's rank and two more: groups
    /// on each axis, 2^n entries, elements of an entry); `vector_axis` is the axis along which vectors lie, needed if
    /// they are longer than 1; `scale` is what the entries are multiplied by, if there is such a thing. The error
    /// figures say that nothing is lost.
    ///
    /// # Errors
    /// [`RecoverError::Empty`], [`RecoverError::Parts`] and [`RecoverError::Vectors`] if shapes and lengths contradict each other, [`RecoverError::Entries`] if there is no index
    /// type for tables of that size, [`RecoverError::Value`] for the first value that is not in its table, bit for bit.
    ///
    /// ```
    /// use palettizer_palette::{Dtype, Lut, Palette, Tensor};
    ///
    /// let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    /// let dense = bytes(&[0.5, -1.0, 0.5, 0.5]);
    /// let tensor = Tensor::new(Dtype::F32, &[2, 2], &dense).map_err(|e| e.to_string())?;
    /// let lut = Lut::Float(bytes(&[-1.0, 0.5]));
    /// let palette = Palette::recover(&tensor, lut.clone(), &[1, 1, 2, 1], None, None).map_err(|e| e.to_string())?;
    /// assert_eq!(palette.indices, [0b1101]);
    /// assert_eq!(palette.decompress(), dense);
    ///
    /// let other = bytes(&[0.5, -1.0, 0.25, 0.5]);
    /// let tensor = Tensor::new(Dtype::F32, &[2, 2], &other).map_err(|e| e.to_string())?;
    /// let error = Palette::recover(&tensor, lut, &[1, 1, 2, 1], None, None).unwrap_err();
    /// assert_eq!(error.to_string(), "0.25 at [1, 0] is none of the 2 entries of its table (number 0): \
    ///     was the weight changed after it was palettized?");
    /// # Ok::<(), String>(())
    /// ```
    pub fn recover(
        tensor: &Tensor<'_>,
        lut: Lut,
        lut_shape: &[usize],
        vector_axis: Option<usize>,
        scale: Option<ChannelScale>,
    ) -> Result<Palette, RecoverError> {
        let (nbits, index_shape) = shapes(tensor.shape(), lut_shape, vector_axis)?;
        let mut palette = Palette {
            index_shape,
            lut,
            lut_shape: lut_shape.to_vec(),
            vector_axis,
            scale,
            ..Palette::unfilled(tensor.dtype(), tensor.shape().to_vec(), nbits)
        };
        let entries = EntryIndex::new(&palette, tensor.bytes())?;
        let mut indices = vec![0; palette.index_shape.iter().product()];
        let chunks = indices.par_chunks_mut(CHUNK).enumerate();
        let found: Vec<Result<(), usize>> = chunks
            .map(|(chunk, indices)| entries.find(chunk * CHUNK, indices))
            .collect();
        // The first in the order of the weight, whichever was met first.
        let found: Result<Vec<()>, usize> = found.into_iter().collect();
        found.map_err(|position| entries.missing(position))?;
        palette.indices = packed(&indices, nbits);
        palette.error.elements = tensor.len();
        Ok(palette)
    }
}

/// The width of the indices and their shape.
fn shapes(
    shape: &[usize],
    lut_shape: &[usize],
    vector_axis: Option<usize>,
) -> Result<(Nbits, Vec<usize>), RecoverError> {
    let rank = shape.len();
    if shape.contains(&0) {
        let shape = shape.to_vec();
        return Err(RecoverError::Empty { shape });
    }
    let &[entries, dim] = lut_shape.get(rank..).unwrap_or_default() else {
        return Err(RecoverError::Parts(DenseError::Rank {
            what: "lut",
            expected: rank.saturating_add(2),
            found: lut_shape.len(),
        }));
    };
    let nbits = Nbits::ALL.into_iter().find(|n| n.entries() == entries);
    let nbits = nbits.ok_or(RecoverError::Entries { found: entries })?;
    let mut index_shape = shape.to_vec();
    if dim != 1 {
        let axis = vector_axis.ok_or(DenseError::Vector { length: dim })?;
        let (at, rank) = (i64::try_from(axis).unwrap_or(i64::MAX), rank);
        let channels = index_shape.get_mut(axis);
        let channels = channels.ok_or(DenseError::Axis { axis: at, rank })?;
        if channels.checked_rem(dim) != Some(0) {
            return Err(RecoverError::Vectors {
                channels: *channels,
                axis,
                dim,
            });
        }
        *channels /= dim;
    }
    // The rest: groups that divide, tables that are not too large.
    decode::dense_shape(&index_shape, lut_shape, decode::signed(vector_axis))?;
    Ok((nbits, index_shape))
}

/// The entries of all tables, to be found by what they come to.
struct EntryIndex<'a> {
    palette: &'a Palette,
    /// The dense weight.
    weight: &'a [u8],
    /// All entries as they are, and their values.
    bytes: Vec<u8>,
    values: Vec<f32>,
    scales: Option<(Vec<f32>, &'a [usize])>,
    /// Elements of an entry.
    dim: usize,
    /// Index positions behind the vector axis.
    inner: usize,
    /// Index positions that surely share a table and all scales.
    run: usize,
}

impl<'a> EntryIndex<'a> {
    /// Checks the parts of a palette, whose index shape and table shape fit already.
    fn new(palette: &'a Palette, weight: &'a [u8]) -> Result<Self, DenseError> {
        let (rank, size) = (palette.shape.len(), palette.dtype.size());
        let tables = decode::count(&palette.lut_shape)?;
        let bytes = palette.entries()?;
        decode::check_length("lut", tables * size, bytes.len())?;
        let scales = match &palette.scale {
            None => None,
            Some(scale) => {
                decode::check_blocks("scale", &palette.shape, &scale.shape)?;
                let expected = decode::count(&scale.shape)? * size;
                decode::check_length("scale", expected, scale.bytes.len())?;
                if !palette.dtype.is_float() {
                    return Err(DenseError::IntegerScale);
                }
                Some((singles(palette.dtype, &scale.bytes), scale.shape.as_slice()))
            }
        };
        let behind = |axis: usize| palette.index_shape[axis + 1..].iter().product::<usize>();
        let is_cut = |axis: &usize| {
            let scaled = scales.as_ref().is_some_and(|(_, shape)| shape[*axis] > 1);
            scaled || palette.lut_shape[*axis] > 1
        };
        let cut = (0..rank).rev().find(is_cut);
        Ok(EntryIndex {
            palette,
            weight,
            values: singles(palette.dtype, &bytes),
            bytes,
            dim: palette.lut_shape[rank + 1],
            inner: palette.vector_axis.map_or(1, behind),
            run: cut.map_or_else(|| palette.index_shape.iter().product(), behind),
            scales,
        })
    }

    /// The indices of consecutive positions from `start` on; or the first position that has no entry.
    fn find(&self, start: usize, indices: &mut [u8]) -> Result<(), usize> {
        let mut left = indices;
        let mut first = start;
        while !left.is_empty() {
            let len = self.run - first % self.run;
            let (run, rest) = left.split_at_mut(len.min(left.len()));
            match self.palette.dtype.size() {
                1 => self.find_run::<1>(first, run),
                2 => self.find_run::<2>(first, run),
                _ => self.find_run::<4>(first, run),
            }?;
            first += run.len();
            left = rest;
        }
        Ok(())
    }

    /// Of positions that share a table and scales, for elements of `SIZE` bytes.
    fn find_run<const SIZE: usize>(&self, first: usize, indices: &mut [u8]) -> Result<(), usize> {
        let (entries, dim) = (self.palette.nbits.entries(), self.dim);
        let table = self.table(first);
        let entry =
            |index: usize| (index * dim..(index + 1) * dim).map(|at| bits::<SIZE>(&table, at));
        let mut slots = Vec::new();
        if indices.len() > entries {
            slots = vec![(0, 0); 2 * entries];
            for index in 0..entries {
                let key = key(entry(index));
                let same = |other: usize| entry(other).eq(entry(index));
                if let Err(free) = look_up(&slots, key, same) {
                    slots[free] = (key, index + 1);
                }
            }
        }
        let mut vector = vec![0; dim];
        for (position, index) in (first..).zip(indices) {
            let code = if dim == 1 {
                vector[0] = bits::<SIZE>(self.weight, position);
                u64::from(vector[0])
            } else {
                for (element, at) in vector.iter_mut().zip(self.elements(position)) {
                    *element = bits::<SIZE>(self.weight, at);
                }
                key(vector.iter().copied())
            };
            let same = |&other: &usize| entry(other).eq(vector.iter().copied());
            let found = match slots.is_empty() {
                true => (0..entries).find(same),
                false => look_up(&slots, code, |other| dim == 1 || same(&other)).ok(),
            };
            *index = found.ok_or(position)? as u8;
        }
        Ok(())
    }

    /// What the entries for a position come to, scaled as a runtime does it.
    fn table(&self, position: usize) -> Cow<'_, [u8]> {
        let len = self.palette.nbits.entries() * self.dim;
        let start = self.number(position) * len;
        let Some((scales, shape)) = &self.scales else {
            let size = self.palette.dtype.size();
            return Cow::Borrowed(&self.bytes[start * size..][..len * size]);
        };
        let scale = |at: usize| scales[decode::block_of(at, &self.palette.shape, shape)];
        let lanes: Vec<f32> = self.elements(position).map(scale).collect();
        let entries = self.values[start..][..len].iter();
        let products = entries
            .zip(lanes.iter().cycle())
            .map(|(entry, lane)| lane * entry);
        Cow::Owned(Rounding(self.palette.dtype).bytes(&products.collect::<Vec<f32>>()))
    }

    /// The number of a position's table.
    fn number(&self, position: usize) -> usize {
        let shape = &self.palette.index_shape;
        decode::block_of(position, shape, &self.palette.lut_shape[..shape.len()])
    }

    /// The elements of the weight at an index position.
    fn elements(&self, position: usize) -> impl Iterator<Item = usize> {
        decode::elements_of(position, self.inner, self.dim)
    }

    /// Of a position that has no entry.
    fn missing(&self, position: usize) -> RecoverError {
        let (dtype, shape) = (self.palette.dtype, &self.palette.shape);
        let bytes = |at: usize| &self.weight[at * dtype.size()..][..dtype.size()];
        let mut at = self.elements(position).next().unwrap_or(0);
        let mut place = vec![0; shape.len()];
        for (coordinate, &dim) in place.iter_mut().zip(shape).rev() {
            (*coordinate, at) = (at % dim, at / dim);
        }
        RecoverError::Value {
            values: self
                .elements(position)
                .flat_map(|at| singles(dtype, bytes(at)))
                .collect(),
            at: place,
            entries: self.palette.nbits.entries(),
            table: self.number(position),
        }
    }
}

/// The bits of an element of `SIZE` bytes.
#[inline(always)]
fn bits<const SIZE: usize>(bytes: &[u8], at: usize) -> u32 {
    let mut padded = [0; 4];
    padded[..SIZE].copy_from_slice(&bytes[at * SIZE..][..SIZE]);
    u32::from_le_bytes(padded)
}

/// Spreads numbers over all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number for the bits of a vector: of a scalar or a pair, another for each.
#[inline(always)]
fn key(vector: impl Iterator<Item = u32>) -> u64 {
    vector.fold(0, |key: u64, bits| {
        key.wrapping_mul(SPREAD).rotate_left(29) ^ u64::from(bits)
    })
}

/// The first entry of a key that is `same`, or the free slot where it belongs. A slot is free where its second number is zero, else
/// that is an entry's and one; not more than half of them are taken.
#[inline(always)]
fn look_up(slots: &[(u64, usize)], key: u64, same: impl Fn(usize) -> bool) -> Result<usize, usize> {
    let mut at = (key.wrapping_mul(SPREAD) >> (u64::BITS - slots.len().ilog2())) as usize;
    loop {
        match slots[at] {
            (_, 0) => return Err(at),
            (other, index) if other == key && same(index - 1) => return Ok(index - 1),
            _ => at = (at + 1) & (slots.len() - 1),
        }
    }
}

/// Elements in single precision, which holds all of them.
fn singles(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F16 => elements::<f16>(bytes).iter().map(|v| v.to_f32()).collect(),
        Dtype::BF16 => elements::<bf16>(bytes).iter().map(|v| v.to_f32()).collect(),
        Dtype::F32 => elements::<f32>(bytes).into_owned(),
        Dtype::I8 => bytes.iter().map(|&b| f32::from(b as i8)).collect(),
        Dtype::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
    }
}
