//! Entries by their bits.
//!
//! Index positions that share a table and all scales are a block; for each there is a *book*: a hash table of what its
//! entries come to, by their bits. Blocks smaller than a table, as one-channel groups of short rows with scales are,
//! would need more books than there are values: there each value is compared with all entries.
//!
//! Of entries that come to the same the first is found.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::decode::{self, DenseError};
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
    /// The books of all blocks; none if blocks are too small.
    slots: Vec<u64>,
    /// The energy of every entry of every block that has a book.
    energies: Vec<f64>,
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
        let tables = decode::count(&palette.lut_shape)?;
        let bytes = palette.entries()?;
        let size = palette.dtype.size();
        decode::check_length("lut", tables * size, bytes.len())?;
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
            slots: Vec::new(),
            energies: Vec::new(),
        };
        books.write(palette.index_shape.iter().product());
        Ok(books)
    }

    /// Writes the books, unless they would be larger than tables and indices together.
    fn write(&mut self, positions: usize) {
        let blocks: usize = self.axes.iter().map(|axis| axis.blocks).product();
        let size = blocks.saturating_mul(self.entries);
        if size > positions.saturating_add(self.bits.len()) {
            return;
        }
        let mut slots = vec![0; size * 2];
        let mut energies = vec![0.0; size];
        let books = slots.par_chunks_mut(self.entries * 2);
        let books = books.zip(energies.par_chunks_mut(self.entries));
        books.enumerate().for_each(|(number, (slots, energies))| {
            let block = self.block(number);
            for (entry, energy) in energies.iter_mut().enumerate() {
                let lanes = (0..self.dim).map(|lane| self.product(&block, entry, lane));
                *energy = self.energy(lanes.clone());
                // Padding is one entry many times over; the first of the same is enough.
                let same = |other: usize| {
                    (0..self.dim).all(|lane| {
                        self.product(&block, other, lane) == self.product(&block, entry, lane)
                    })
                };
                let key = key(lanes);
                if !look_up(slots, key).any(same) {
                    insert(slots, key, entry);
                }
            }
        });
        (self.slots, self.energies) = (slots, energies);
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
        let mut at = 0;
        while at < indices.len() {
            let run = (start + at) / self.run;
            let number = self.number(run);
            let end = ((run + 1) * self.run - start).min(indices.len());
            let part = &mut indices[at..end];
            let first = start + at;
            let found = match (self.dim, self.slots.is_empty()) {
                (1, false) => self.find_scalars(number, first, part, bits),
                _ => self.find_any(number, first, part, bits),
            };
            energy += found.map_err(|position| (position, self.block(number).table))?;
            at = end;
        }
        Ok(energy)
    }

    /// Of positions of one block that has a book: a scalar is its own key.
    fn find_scalars(
        &self,
        number: usize,
        first: usize,
        indices: &mut [u8],
        bits: &impl Fn(usize) -> u32,
    ) -> Result<f64, usize> {
        let slots = &self.slots[number * self.entries * 2..][..self.entries * 2];
        let energies = &self.energies[number * self.entries..][..self.entries];
        let mut energy = 0.0;
        for (position, index) in (first..).zip(indices) {
            let entry = look_up(slots, bits(position)).next().ok_or(position)?;
            energy += energies[entry];
            *index = entry as u8;
        }
        Ok(energy)
    }

    fn find_any(
        &self,
        number: usize,
        first: usize,
        indices: &mut [u8],
        bits: &impl Fn(usize) -> u32,
    ) -> Result<f64, usize> {
        let block = self.block(number);
        let mut lanes = vec![0; self.dim];
        let mut energy = 0.0;
        for (position, index) in (first..).zip(indices) {
            for (lane, element) in lanes.iter_mut().zip(self.elements(position)) {
                *lane = bits(element);
            }
            let same = |entry: &usize| {
                let mut lanes = lanes.iter().enumerate();
                lanes.all(|(lane, &bits)| self.product(&block, *entry, lane) == bits)
            };
            let entry = match self.slots.chunks_exact(self.entries * 2).nth(number) {
                Some(slots) => look_up(slots, key(lanes.iter().copied())).find(same),
                None => (0..self.entries).find(same),
            };
            *index = entry.ok_or(position)? as u8;
            energy += self.energy(lanes.iter().copied());
        }
        Ok(energy)
    }

    /// The sum of squares of the finite elements.
    fn energy(&self, lanes: impl Iterator<Item = u32>) -> f64 {
        let values = lanes.map(|bits| f64::from(self.value(bits)));
        values
            .filter(|value| value.is_finite())
            .map(|value| value * value)
            .sum()
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
    decode::check_blocks("scale", &palette.shape, &scale.shape)?;
    let size = palette.dtype.size();
    decode::check_length(
        "scale",
        decode::count(&scale.shape)? * size,
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
fn key(mut lanes: impl Iterator<Item = u32>) -> u32 {
    let first = lanes.next().unwrap_or(0);
    lanes.fold(first, |key, bits| {
        (key.wrapping_mul(0x9e37_79b1) ^ bits).rotate_left(13)
    })
}

/// Puts an entry behind those of the same key that are there already. A slot holds the key and the entry's number plus
/// one; there are twice as many slots as entries, a power of two.
fn insert(slots: &mut [u64], key: u32, entry: usize) {
    let mask = slots.len() - 1;
    let mut at = home(slots, key);
    while slots[at] != 0 {
        at = (at + 1) & mask;
    }
    slots[at] = u64::from(key) << 16 | (entry as u64 + 1);
}

/// The entries of a key, in the order in which they were put there.
#[inline]
fn look_up(slots: &[u64], key: u32) -> impl Iterator<Item = usize> {
    let mask = slots.len() - 1;
    let home = home(slots, key);
    let filled = (0..slots.len()).map(move |step| slots[(home + step) & mask]);
    let filled = filled.take_while(|&slot| slot != 0);
    let right = filled.filter(move |slot| slot >> 16 == u64::from(key));
    right.map(|slot| (slot & 0xffff) as usize - 1)
}

/// Where a key's entries begin.
#[inline]
fn home(slots: &[u64], key: u32) -> usize {
    let bits = slots.len().trailing_zeros();
    (key.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
}
