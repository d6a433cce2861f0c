//! Entries by their bits.
//!
//! Index positions that share a table and all scales are a block; for each there is a *book*: what its entries come to,
//! sorted by bits (vectors by a hash of them), with the entries' numbers. Blocks smaller than a table, as one-channel
//! groups of short rows with scales are, would need more books than there are values: there each value is compared
//! with all entries.
//!
//! Of entries that come to the same the first is found.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::dense::{self, DenseError};
use crate::tensor::elements;
use crate::{Dtype, Palette};

/// The entries of every block of a weight.
pub(super) struct Books {
    dtype: Dtype,
    /// Entries of one table.
    entries: usize,
    /// Elements of one entry.
    dim: usize,
    /// Index positions behind the vector axis.
    inner: usize,
    /// Bits of all entries.
    bits: Vec<u32>,
    /// All scales; none if entries are not scaled.
    scales: Vec<f32>,
    axes: Vec<Axis>,
    /// Index positions that surely lie in one block.
    run: usize,
    /// Keys and numbers of entries, sorted block by block; none if blocks are too small.
    sorted: Option<(Vec<u64>, Vec<u8>)>,
}

/// How one axis is cut.
struct Axis {
    /// Index positions.
    len: usize,
    /// Blocks.
    blocks: usize,
    /// Groups of channels with a table each.
    groups: usize,
    /// Scales.
    scales: usize,
    /// Elements of the weight for one index position.
    step: usize,
}

/// The table of a block, and where its scales are.
struct Block {
    table: usize,
    /// Where the scales of its other axes begin.
    scale: usize,
    /// Along the vector axis: the first element, the elements of one scale, and the distance of scales.
    along: (usize, usize, usize),
}

impl Block {
    fn scale(&self, lane: usize) -> usize {
        let (first, size, stride) = self.along;
        self.scale + (first + lane) / size * stride
    }
}

impl Books {
    /// Checks the parts of a palette, whose index shape and table shape fit already, and looks its entries over.
    pub(super) fn new(palette: &Palette) -> Result<Self, DenseError> {
        let rank = palette.shape.len();
        let entries = palette.nbits.entries();
        let dim = palette.lut_shape[rank + 1];
        let tables = dense::count(&palette.lut_shape)?;
        let bytes = palette.entries()?;
        let size = palette.dtype.size();
        dense::check_length("lut", tables * size, bytes.len())?;
        let scales = scales(palette)?;
        let ones = vec![1; rank];
        let scale_shape = palette.scale.as_ref().map_or(&ones, |scale| &scale.shape);
        let axes: Vec<Axis> = (0..rank)
            .map(|axis| {
                let step = match palette.vector_axis {
                    Some(along) if along == axis => dim,
                    _ => 1,
                };
                let scales = scale_shape[axis];
                Axis::new(
                    palette.index_shape[axis],
                    palette.lut_shape[axis],
                    scales,
                    step,
                )
            })
            .collect();
        let cut = axes.iter().rposition(|axis| axis.blocks > 1);
        let behind = |axis: usize| {
            axes[axis + 1..]
                .iter()
                .map(|axis| axis.len)
                .product::<usize>()
        };
        let mut books = Books {
            dtype: palette.dtype,
            entries,
            dim,
            inner: palette.vector_axis.map_or(1, behind),
            bits: bytes.chunks_exact(size).map(widened).collect(),
            scales,
            run: cut
                .map_or_else(|| axes.iter().map(|axis| axis.len).product(), behind)
                .max(1),
            axes,
            sorted: None,
        };
        books.sort(palette.index_shape.iter().product());
        Ok(books)
    }

    /// Makes the books, unless they would be larger than tables and indices together.
    fn sort(&mut self, positions: usize) {
        let blocks: usize = self.axes.iter().map(|axis| axis.blocks).product();
        let size = blocks.saturating_mul(self.entries);
        if size > positions.saturating_add(self.bits.len()) {
            return;
        }
        let mut keys = vec![0; size];
        let mut numbers = vec![0; size];
        let books = keys
            .par_chunks_mut(self.entries)
            .zip(numbers.par_chunks_mut(self.entries));
        books.enumerate().for_each(|(block, (keys, numbers))| {
            let block = self.block(block);
            let mut book: Vec<(u64, u8)> = (0..self.entries)
                .map(|entry| {
                    let lanes = (0..self.dim).map(|lane| self.product(&block, entry, lane));
                    (key(lanes), entry as u8)
                })
                .collect();
            book.sort_unstable();
            for ((key, number), found) in keys.iter_mut().zip(numbers).zip(book) {
                (*key, *number) = found;
            }
        });
        self.sorted = Some((keys, numbers));
    }

    /// The indices of consecutive positions from `start` on, and the energy of their elements; or the first position that
    /// has no entry, and its table.
    pub(super) fn find(
        &self,
        start: usize,
        indices: &mut [u8],
        bits: &impl Fn(usize) -> u32,
    ) -> Result<f64, (usize, usize)> {
        let mut energy = 0.0;
        let mut lanes = vec![0; self.dim];
        let mut at = 0;
        while at < indices.len() {
            let run = (start + at) / self.run;
            let number = self.number(run);
            let block = self.block(number);
            let end = ((run + 1) * self.run - start).min(indices.len());
            for (position, index) in (start + at..).zip(&mut indices[at..end]) {
                for (lane, element) in lanes.iter_mut().zip(self.elements(position)) {
                    *lane = bits(element);
                    let value = f64::from(self.value(*lane));
                    energy += if value.is_finite() {
                        value * value
                    } else {
                        0.0
                    };
                }
                *index = self
                    .entry(number, &block, &lanes)
                    .ok_or((position, block.table))?;
            }
            at = end;
        }
        Ok(energy)
    }

    /// The elements of the weight at an index position.
    pub(super) fn elements(&self, position: usize) -> impl Iterator<Item = usize> + use<> {
        let (inner, dim) = (self.inner, self.dim);
        let first = match dim {
            1 => position,
            _ => position / inner * dim * inner + position % inner,
        };
        (0..dim).map(move |lane| first + lane * inner)
    }

    /// An element in `f32`.
    pub(super) fn value(&self, bits: u32) -> f32 {
        match self.dtype {
            Dtype::F16 => f16::from_bits(bits as u16).to_f32(),
            Dtype::BF16 => bf16::from_bits(bits as u16).to_f32(),
            Dtype::F32 => f32::from_bits(bits),
            Dtype::I8 => f32::from(bits as u8 as i8),
            Dtype::U8 => f32::from(bits as u8),
        }
    }

    /// The first entry that comes to these bits.
    fn entry(&self, number: usize, block: &Block, lanes: &[u32]) -> Option<u8> {
        let same = |entry: usize| {
            let mut lanes = lanes.iter().enumerate();
            lanes.all(|(lane, &bits)| self.product(block, entry, lane) == bits)
        };
        let Some((keys, numbers)) = &self.sorted else {
            return (0..self.entries)
                .find(|&entry| same(entry))
                .map(|entry| entry as u8);
        };
        let book = number * self.entries..(number + 1) * self.entries;
        let (keys, numbers) = (&keys[book.clone()], &numbers[book]);
        let key = key(lanes.iter().copied());
        let first = keys.partition_point(|&other| other < key);
        let mut found = keys[first..]
            .iter()
            .zip(&numbers[first..])
            .take_while(|(other, _)| **other == key);
        // The key of a scalar is the scalar.
        let right = |number: &u8| self.dim == 1 || same(usize::from(*number));
        found
            .find(|(_, number)| right(number))
            .map(|(_, number)| *number)
    }

    /// The bits of one element of an entry, scaled as a runtime does it.
    fn product(&self, block: &Block, entry: usize, lane: usize) -> u32 {
        let bits = self.bits[(block.table * self.entries + entry) * self.dim + lane];
        if self.scales.is_empty() {
            return bits;
        }
        let product = self.scales[block.scale(lane)] * self.value(bits);
        match self.dtype {
            Dtype::F16 => u32::from(f16::from_f32(product).to_bits()),
            Dtype::BF16 => u32::from(bf16::from_f32(product).to_bits()),
            _ => product.to_bits(),
        }
    }

    /// The block that a run lies in.
    fn number(&self, mut run: usize) -> usize {
        let (mut number, mut stride) = (0, 1);
        let mut behind = 1;
        for axis in self.axes.iter().rev() {
            if behind < self.run {
                behind *= axis.len;
                continue;
            }
            number += run % axis.len * axis.blocks / axis.len * stride;
            run /= axis.len;
            stride *= axis.blocks;
        }
        number
    }

    fn block(&self, mut number: usize) -> Block {
        let (mut table, mut stride) = (0, 1);
        let (mut scale, mut scale_stride, mut along) = (0, 1, (0, 1, 0));
        for axis in self.axes.iter().rev() {
            let position = number % axis.blocks * (axis.len / axis.blocks);
            number /= axis.blocks;
            table += position * axis.groups / axis.len * stride;
            stride *= axis.groups;
            let first = position * axis.step;
            let size = axis.len * axis.step / axis.scales;
            if axis.step > 1 {
                along = (first, size, scale_stride);
            } else {
                scale += first / size * scale_stride;
            }
            scale_stride *= axis.scales;
        }
        Block {
            table,
            scale,
            along,
        }
    }
}

impl Axis {
    fn new(len: usize, groups: usize, scales: usize, step: usize) -> Self {
        let size = len * step / scales.max(1);
        // A vector may lie across several scales: then every position is by itself.
        let own = if size.checked_rem(step) == Some(0) {
            scales
        } else {
            len
        };
        Axis {
            len,
            blocks: common_multiple(groups, own),
            groups,
            scales,
            step,
        }
    }
}

/// The least number that both divide; both are positive.
fn common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// The scales of a palette, checked.
fn scales(palette: &Palette) -> Result<Vec<f32>, DenseError> {
    let Some(scale) = &palette.scale else {
        return Ok(Vec::new());
    };
    dense::check_blocks("scale", &palette.shape, &scale.shape)?;
    let size = palette.dtype.size();
    dense::check_length(
        "scale",
        dense::count(&scale.shape)? * size,
        scale.bytes.len(),
    )?;
    Ok(match palette.dtype {
        Dtype::F16 => elements::<f16>(&scale.bytes)
            .iter()
            .map(|s| s.to_f32())
            .collect(),
        Dtype::BF16 => elements::<bf16>(&scale.bytes)
            .iter()
            .map(|s| s.to_f32())
            .collect(),
        Dtype::F32 => elements::<f32>(&scale.bytes).to_vec(),
        Dtype::I8 | Dtype::U8 => return Err(DenseError::IntegerScale),
    })
}

/// Little-endian bytes of an element as one number.
fn widened(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |bits, &byte| bits << 8 | u32::from(byte))
}

/// One number is its own key; those of a vector are mixed.
fn key(mut lanes: impl Iterator<Item = u32>) -> u64 {
    let first = lanes.next().map_or(0, u64::from);
    lanes.fold(first, |key, bits| {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(bits)).rotate_left(29)
    })
}
