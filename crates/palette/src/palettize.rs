//! A weight and a spec to a palette.
//!
//! # Idea
//! Every group gets the table that serves it best, all on their own and in parallel on the caller's rayon pool; then
//! tables and indices are put into the order of the file. The width of the indices is the mode's, or that of the
//! fullest group.
//!
//! # Cost
//! A group that is one slice of the weight (all of it, or some rows) is read where it lies; others are gathered
//! first. Memory beside the input: one byte an element for the indices (two when groups are not rows), and four
//! bytes an element of the groups in work for scaled values or vectors.
//!
//! # Deviations from coremltools
//! 1. Per-channel scales belong to output channels always, and errors are weighed with them.
//! 2. Entries are rounded first and elements assigned afterwards, so no element has the wrong neighbour.
//! 3. Few distinct values are kept exactly in any mode but custom, NaN and infinities among them.
//! 4. Of a pruned weight only the kept values are clustered, not the zeros.
//! 5. −0 may become +0.

use bytemuck::Pod;
use half::{bf16, f16};
use palettizer_kernels::{Element, Weights};
use rayon::prelude::*;

use crate::channels::Channels;
use crate::entries::{Rounding, ZERO_POINT};
use crate::groups::{Groups, Mask};
use crate::palette::packed;
use crate::scalar::{self, Table};
use crate::tensor::elements;
use crate::{
    ChannelScale, Dtype, ErrorFigures, Layout, Lut, LutDtype, Mode, Nbits, Palette, PaletteSpec,
    Refusal, Tensor, layout, suits, vector,
};

/// Palettizes one weight.
///
/// `output_axis` is the axis of the output channels as the weight's consumers see it, `None` when they disagree.
/// `mask`, for a pruned weight that stays sparse, is the packed bitmap of its kept positions (least-significant bit
/// first, row-major, ⌈elements / 8⌉ bytes); the tensor is dense all the same, and what the mask drops reads as
/// zero.
///
/// Runs on the caller's rayon pool; the result does not depend on its size.
///
/// # Errors
/// Whatever [`layout`] and [`suits`] refuse, [`Refusal::MaskLength`], and what only the values tell:
/// [`Refusal::NonFinite`], [`Refusal::TooManyDistinct`], [`Refusal::Custom`].
///
/// ```
/// use palettizer_palette::{Dtype, Granularity, Mode, Nbits, PaletteSpec, Tensor, palettize};
///
/// let bytes: Vec<u8> = (0..64).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[4, 16], &bytes).map_err(|e| e.to_string())?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
///     .with_granularity(Granularity::PerGroupedChannel { group_size: 2, channel_axis: None });
/// let palette = palettize(&tensor, Some(0), &spec, None).map_err(|e| e.to_string())?;
/// assert_eq!(palette.luts(), 2);
/// assert_eq!(palette.indices.len(), 64 * 3 / 8);
/// assert!(palette.error.snr_db() > 20.0);
/// # Ok::<(), String>(())
/// ```
pub fn palettize(
    tensor: &Tensor<'_>,
    output_axis: Option<usize>,
    spec: &PaletteSpec,
    mask: Option<&[u8]>,
) -> Result<Palette, Refusal> {
    let layout = layout(tensor.shape(), output_axis, spec)?;
    suits(tensor.dtype(), mask.is_some(), spec)?;
    if let Some(mask) = mask {
        let expected = tensor.len().div_ceil(8);
        if mask.len() != expected {
            return Err(Refusal::MaskLength {
                elements: tensor.len(),
                expected,
                found: mask.len(),
            });
        }
    }
    let mask = mask.map(Mask);
    let bytes = tensor.bytes();
    match tensor.dtype() {
        Dtype::F16 => typed(&elements::<f16>(bytes), tensor, layout, spec, mask),
        Dtype::BF16 => typed(&elements::<bf16>(bytes), tensor, layout, spec, mask),
        Dtype::F32 => typed(&elements::<f32>(bytes), tensor, layout, spec, mask),
        // Half precision holds every byte exactly, and its census is the cheap one.
        Dtype::I8 => typed(
            &halves(bytes, |b| f32::from(b as i8)),
            tensor,
            layout,
            spec,
            mask,
        ),
        Dtype::U8 => typed(&halves(bytes, f32::from), tensor, layout, spec, mask),
    }
}

fn halves(bytes: &[u8], value: impl Fn(u8) -> f32) -> Vec<f16> {
    let table: Vec<f16> = (0..=u8::MAX).map(|b| f16::from_f32(value(b))).collect();
    bytes.iter().map(|&b| table[usize::from(b)]).collect()
}

/// One weight at work.
struct Job<'a, T> {
    values: &'a [T],
    groups: Groups,
    channels: Option<Channels>,
    mask: Option<Mask<'a>>,
    spec: &'a PaletteSpec,
    rounding: Rounding,
}

/// Memory that one group after the other uses.
#[derive(Default)]
struct Scratch<T> {
    values: Vec<T>,
    wide: Vec<f32>,
    weights: Vec<f32>,
}

fn typed<T: Element + Pod>(
    values: &[T],
    tensor: &Tensor<'_>,
    layout: Layout,
    spec: &PaletteSpec,
    mask: Option<Mask<'_>>,
) -> Result<Palette, Refusal> {
    let rounding = Rounding(tensor.dtype());
    let channels = match spec.per_channel_scale() {
        true => Some(Channels::new(values, &layout, rounding)?),
        false => None,
    };
    let job = Job {
        values,
        groups: Groups::new(&layout),
        channels,
        mask,
        spec,
        rounding,
    };
    let counts = job.groups.index_counts(mask.as_ref());
    let mut indices = vec![0; counts.iter().sum()];
    let tables = job.tables(&counts, &mut indices)?;
    let nbits = match spec.mode().nbits() {
        Some(nbits) => nbits,
        None => {
            let fullest = tables.iter().map(|table| table.entries.values.len());
            let fullest = fullest.max().unwrap_or(0) / layout.cluster_dim;
            let limit = scalar::MOST_ENTRIES;
            let vectors = layout.cluster_dim > 1;
            Nbits::holding(fullest).ok_or(Refusal::TooManyDistinct { limit, vectors })?
        }
    };
    let ordered = job.groups.row_major(&indices, &counts, mask.as_ref());
    let mut error = ErrorFigures {
        elements: tensor.len(),
        ..ErrorFigures::default()
    };
    for table in &tables {
        error.squared_error += table.squared_error;
        error.energy += table.energy;
        error.gap = error.gap.max(table.gap);
    }
    Ok(Palette {
        dtype: tensor.dtype(),
        nbits,
        indices: packed(&ordered, nbits),
        lut: job.lut(&tables, &layout, nbits),
        lut_shape: layout.lut_shape(nbits),
        vector_axis: layout.vector_axis,
        scale: job.scale(&layout),
        mask: mask.map(|mask| mask.0.to_vec()),
        error,
        index_shape: layout.index_shape,
        shape: layout.shape,
    })
}

impl<T: Element + Pod> Job<'_, T> {
    /// The tables of all groups; their indices, group after group.
    fn tables(&self, counts: &[usize], indices: &mut [u8]) -> Result<Vec<Table>, Refusal> {
        let mut parts = Vec::with_capacity(counts.len());
        let mut left = indices;
        for &count in counts {
            let (part, rest) = left.split_at_mut(count);
            parts.push(part);
            left = rest;
        }
        let scratch = || Scratch {
            values: Vec::new(),
            wide: Vec::new(),
            weights: Vec::new(),
        };
        let tables: Vec<Result<Table, Refusal>> = parts
            .into_par_iter()
            .enumerate()
            .map_init(scratch, |scratch, (group, indices)| {
                self.table(group, scratch, indices)
            })
            .collect();
        // The first refusal in the order of the groups, whichever was found first.
        tables.into_iter().collect()
    }

    fn table(
        &self,
        group: usize,
        scratch: &mut Scratch<T>,
        indices: &mut [u8],
    ) -> Result<Table, Refusal> {
        let (spec, rounding) = (self.spec, self.rounding);
        let exact = self.channels.is_none();
        let mut table = if let Mode::Custom(function) = spec.mode() {
            self.widen(group, scratch, None);
            let values = &scratch.wide;
            let shape = &self.groups.shape;
            let ranges = self.groups.ranges(group).flatten().enumerate();
            let kept = ranges
                .filter(|(_, at)| self.mask.is_none_or(|mask| mask.keeps(*at)))
                .map(|(offset, _)| offset);
            scalar::custom(values, shape, function, rounding, kept, indices)?
        } else if self.groups.dim > 1 {
            self.vectors(group, scratch);
            let exact = exact || self.snap(scratch);
            let weights = (!scratch.weights.is_empty()).then_some(scratch.weights.as_slice());
            vector::table(
                &mut scratch.wide,
                weights,
                exact,
                group,
                spec,
                rounding,
                indices,
            )?
        } else if let Some(channels) = &self.channels {
            self.widen(group, scratch, self.mask);
            let exact = self.snap(scratch);
            let weights = self.row_weights(channels, group, scratch);
            scalar::table(&scratch.wide, weights, exact, spec, rounding, indices)?
        } else {
            let values = self.slice(group, &mut scratch.values);
            scalar::table(values, Weights::Equal, exact, spec, rounding, indices)?
        };
        if let Some(channels) = &self.channels {
            let (squared_error, energy) = self.final_error(channels, group, &table, indices);
            table.squared_error = squared_error;
            table.energy = energy;
        }
        Ok(table)
    }

    /// The group's kept values as they are: borrowed when they lie together.
    fn slice<'s>(&'s self, group: usize, buffer: &'s mut Vec<T>) -> &'s [T] {
        if self.mask.is_none()
            && let Some(range) = self.groups.whole(group)
        {
            return &self.values[range];
        }
        buffer.clear();
        for range in self.groups.ranges(group) {
            match self.mask {
                None => buffer.extend_from_slice(&self.values[range]),
                Some(mask) => buffer.extend(mask.positions(range).map(|at| self.values[at])),
            }
        }
        buffer
    }

    /// The group's values in order, in `f32`, divided by their channel's scale; those the mask keeps, if one is
    /// given. Weights for each of them, unless whole rows share theirs.
    fn widen(&self, group: usize, scratch: &mut Scratch<T>, mask: Option<Mask<'_>>) {
        scratch.wide.clear();
        scratch.weights.clear();
        let kept = |at: &usize| mask.is_none_or(|mask| mask.keeps(*at));
        let value = |at: usize| self.values[at].to_f32();
        for range in self.groups.ranges(group) {
            let Some(channels) = &self.channels else {
                scratch.wide.extend(range.filter(kept).map(value));
                continue;
            };
            for (channel, run) in channels.runs(range) {
                let scale = channels.scales[channel];
                let before = scratch.wide.len();
                let normalised = run.filter(kept).map(|at| value(at) / scale);
                scratch.wide.extend(normalised);
                if !channels.first || mask.is_some() {
                    let weight = channels.weights[channel];
                    let len = scratch.wide.len() - before;
                    scratch.weights.extend(std::iter::repeat_n(weight, len));
                }
            }
        }
    }

    /// What the widened values of a group weigh.
    fn row_weights<'s>(
        &self,
        channels: &'s Channels,
        group: usize,
        scratch: &'s Scratch<T>,
    ) -> Weights<'s> {
        if !scratch.weights.is_empty() || scratch.wide.is_empty() {
            return Weights::Each(&scratch.weights);
        }
        let groups = &self.groups;
        // The output axis is the first: a group has some of its rows if it lies along it, else all of them.
        let some = groups.shape[0] < channels.scales.len();
        let rows = match some {
            true => &channels.weights[group * groups.channels..][..groups.channels],
            false => channels.weights.as_slice(),
        };
        match rows {
            [_] => Weights::Equal,
            weights => Weights::Rows {
                len: scratch.wide.len() / weights.len(),
                weights,
            },
        }
    }

    /// In unique mode, rounds scaled values to the dtype, so that "distinct" means what a table can hold.
    fn snap(&self, scratch: &mut Scratch<T>) -> bool {
        let unique = matches!(self.spec.mode(), Mode::Unique);
        if unique {
            for value in &mut scratch.wide {
                *value = self.rounding.nearest(f64::from(*value));
            }
        }
        unique
    }

    /// The group's vectors one after the other, in `f32`, divided by their channels' scales, and then with the mean
    /// weight of their channels.
    fn vectors(&self, group: usize, scratch: &mut Scratch<T>) {
        scratch.wide.clear();
        scratch.weights.clear();
        for first in self.firsts(group) {
            let members = self.members(first);
            match &self.channels {
                None => {
                    let values = members.map(|at| self.values[at].to_f32());
                    scratch.wide.extend(values);
                }
                Some(channels) => {
                    let mut weight = 0.0;
                    for at in members {
                        let channel = channels.of(at);
                        let value = self.values[at].to_f32() / channels.scales[channel];
                        scratch.wide.push(value);
                        weight += channels.weights[channel];
                    }
                    scratch.weights.push(weight / self.groups.dim as f32);
                }
            }
        }
    }

    /// Where each vector of a group starts, in index order.
    fn firsts(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let (inner, dim) = (self.groups.inner, self.groups.dim);
        self.groups.ranges(group).flat_map(move |range| {
            let starts = range.step_by(inner * dim);
            starts.flat_map(move |start| start..start + inner)
        })
    }

    /// The elements of the vector that starts there.
    fn members(&self, first: usize) -> impl Iterator<Item = usize> + use<T> {
        let (inner, dim) = (self.groups.inner, self.groups.dim);
        (0..dim).map(move |j| first + j * inner)
    }

    /// Squared error and energy of a group's final weights: round(scale · entry) against the original.
    fn final_error(
        &self,
        channels: &Channels,
        group: usize,
        table: &Table,
        indices: &[u8],
    ) -> (f64, f64) {
        let (mut squared_error, mut energy) = (0.0, 0.0);
        let mut add = |at: usize, entry: f32| {
            let value = f64::from(self.values[at].to_f32());
            let lost = value - f64::from(entry);
            squared_error += lost * lost;
            energy += value * value;
        };
        let scaled = |scale: f32, entry: f32| {
            let product = f64::from(scale) * f64::from(entry);
            self.rounding.nearest(product)
        };
        let entries = &table.entries.values;
        let dim = self.groups.dim;
        if dim > 1 {
            for (first, &index) in self.firsts(group).zip(indices) {
                let vector = &entries[usize::from(index) * dim..][..dim];
                for (at, &entry) in self.members(first).zip(vector) {
                    add(at, scaled(channels.scales[channels.of(at)], entry));
                }
            }
            return (squared_error, energy);
        }
        let mut left = indices.iter();
        let mut row = Vec::new();
        for range in self.groups.ranges(group) {
            for (channel, run) in channels.runs(range) {
                let scale = channels.scales[channel];
                row.clear();
                row.extend(entries.iter().map(|&entry| scaled(scale, entry)));
                let kept = run.filter(|&at| self.mask.is_none_or(|mask| mask.keeps(at)));
                for (at, &index) in kept.zip(left.by_ref()) {
                    add(at, row[usize::from(index)]);
                }
            }
        }
        (squared_error, energy)
    }

    /// All tables in one, padded to 2^n entries.
    fn lut(&self, tables: &[Table], layout: &Layout, nbits: Nbits) -> Lut {
        let entries = nbits.entries() * layout.cluster_dim;
        let rounding = self.rounding;
        if self.spec.lut_dtype() == LutDtype::Float {
            let mut bytes = Vec::with_capacity(tables.len() * entries * rounding.0.size());
            for (number, table) in (1..).zip(tables) {
                for &value in &table.entries.values {
                    rounding.push(value, &mut bytes);
                }
                bytes.resize(number * entries * rounding.0.size(), 0);
            }
            return Lut::Float(bytes);
        }
        let unsigned = self.spec.lut_dtype() == LutDtype::Uint8;
        let shift = if unsigned { ZERO_POINT } else { 0 };
        let mut data = Vec::with_capacity(tables.len() * entries);
        let mut scale = Vec::with_capacity(tables.len() * rounding.0.size());
        for (number, table) in (1..).zip(tables) {
            let quantized = table.entries.quantized.as_ref();
            if let Some(quantized) = quantized {
                let integers = quantized.integers.iter();
                data.extend(integers.map(|&q| (q as u8).wrapping_add(shift)));
            }
            rounding.push(quantized.map_or(1.0, |q| q.scale), &mut scale);
            data.resize(number * entries, shift);
        }
        Lut::Quantized {
            dtype: if unsigned { Dtype::U8 } else { Dtype::I8 },
            data,
            scale,
            scale_shape: layout.lut_scale_shape(),
            offset: unsigned.then(|| vec![ZERO_POINT; tables.len()]),
        }
    }

    fn scale(&self, layout: &Layout) -> Option<ChannelScale> {
        let channels = self.channels.as_ref()?;
        let mut bytes = Vec::with_capacity(channels.scales.len() * self.rounding.0.size());
        for &scale in &channels.scales {
            self.rounding.push(scale, &mut bytes);
        }
        Some(ChannelScale {
            shape: layout.scale_shape()?,
            bytes,
        })
    }
}
