//! A palette from a dense weight that is one already: the indices are found again, value by value.
//!
//! # Idea
//! An entry, times its channel's scale where there is one, has certain bits, and the weight has the same bits wherever
//! that entry was meant. So no distance is taken, and what is found decompresses to the very weight. See [`books`] for
//! how an entry is found.
//!
//! # Cost
//! A look into a hash table for each element, in parallel; one byte an element beside the result.

mod books;
mod error;

use rayon::prelude::*;

use crate::decode::{self, DenseError};
use crate::palette::packed;
use crate::{ChannelScale, Dtype, ErrorFigures, Lut, Nbits, Palette, Tensor};
use books::Books;
pub use error::RecoverError;

/// Indices of one task.
const CHUNK: usize = 1 << 15;

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
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            nbits,
            indices: Vec::new(),
            lut,
            lut_shape: lut_shape.to_vec(),
            vector_axis,
            scale,
            mask: None,
            error: ErrorFigures {
                elements: tensor.len(),
                ..ErrorFigures::default()
            },
            index_shape,
        };
        let books = Books::new(&palette)?;
        let bytes = tensor.bytes();
        let (indices, energy) = match tensor.dtype() {
            Dtype::F32 => find(&palette, &books, |at| {
                bytes[at * 4..]
                    .first_chunk()
                    .map_or(0, |b| u32::from_le_bytes(*b))
            }),
            Dtype::F16 | Dtype::BF16 => find(&palette, &books, |at| {
                let bits = bytes[at * 2..]
                    .first_chunk()
                    .map_or(0, |b| u16::from_le_bytes(*b));
                u32::from(bits)
            }),
            Dtype::I8 | Dtype::U8 => find(&palette, &books, |at| u32::from(bytes[at])),
        }?;
        palette.indices = packed(&indices, nbits);
        palette.error.energy = energy;
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
    let axis = vector_axis.and_then(|axis| i64::try_from(axis).ok());
    decode::dense_shape(&index_shape, lut_shape, axis)?;
    Ok((nbits, index_shape))
}

/// Every index, and the energy of the weight whose elements' bits are given.
fn find(
    palette: &Palette,
    books: &Books,
    bits: impl Fn(usize) -> u32 + Sync,
) -> Result<(Vec<u8>, f64), RecoverError> {
    let mut indices = vec![0; palette.index_shape.iter().product()];
    let chunks = indices.par_chunks_mut(CHUNK).enumerate();
    let found: Vec<Result<f64, (usize, usize)>> = chunks
        .map(|(chunk, indices)| books.find(chunk * CHUNK, indices, &bits))
        .collect();
    // The first in the order of the weight, whichever was met first.
    let found: Result<Vec<f64>, _> = found.into_iter().collect();
    let energies = found.map_err(|(position, table)| {
        let values = books.elements(position).map(|at| books.value(bits(at)));
        RecoverError::Value {
            values: values.collect(),
            at: place(books.elements(position).next().unwrap_or(0), &palette.shape),
            entries: palette.nbits.entries(),
            table,
        }
    })?;
    Ok((indices, energies.iter().sum()))
}

/// Coordinates of an element.
fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (coordinate, &dim) in place.iter_mut().zip(shape).rev() {
        *coordinate = at % dim.max(1);
        at /= dim.max(1);
    }
    place
}
