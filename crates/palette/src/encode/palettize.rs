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
//! bytes an element of the groups in work for scaled values or vectors, and four more for their sensitivities where
//! those are not one slice.
//!
//! # Deviations from coremltools
//! 1. Per-channel scales belong to output channels always, and errors are weighed with them.
//! 2. Entries are rounded first and elements assigned afterwards, so no element has the wrong neighbour.
//! 3. Few distinct values are kept exactly in any mode but custom, NaN and infinities among them.
//! 4. Of a pruned weight only the kept values are clustered, not the zeros.
//! 5. −0 becomes +0, and every NaN the same one.

use bytemuck::Pod;
use half::{bf16, f16};
use palettizer_kernels::Element;

use crate::encode::channels::Channels;
use crate::encode::entries::{Rounding, Storage, ZERO_POINT};
use crate::encode::group_encoder::GroupEncoder;
use crate::encode::scalar::{self, Table};
use crate::layout::groups::{Groups, Mask};
use crate::palette::packed;
use crate::tensor::elements;
use crate::{
    ChannelScale, Context, Dtype, ErrorFigures, Layout, Lut, LutDtype, Nbits, Palette, PaletteSpec,
    Refusal, Tensor, layout, suits,
};

/// Palettizes one weight.
///
/// `context` has what is known of the weight beside its values: the axis of its output channels, the mask of a pruned
/// one, how much each element matters, and the flag that ends the work.
///
/// Runs on the caller's rayon pool; the result does not depend on its size.
///
/// # Errors
/// Whatever [`layout`] and [`suits`] refuse, [`Refusal::MaskLength`], [`Refusal::SensitivityLength`],
/// [`Refusal::Sensitivity`], what only the values tell ([`Refusal::NonFinite`], [`Refusal::TooManyDistinct`],
/// [`Refusal::Custom`]), and [`Refusal::Stopped`].
///
/// ```
/// use palettizer_palette::{
///     Context, Dtype, Granularity, Mode, Nbits, PaletteSpec, Tensor, palettize,
/// };
///
/// let bytes: Vec<u8> = (0..64).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[4, 16], &bytes).map_err(|e| e.to_string())?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
///     .with_granularity(Granularity::PerGroupedChannel { group_size: 2, channel_axis: None });
/// let context = Context { output_axis: Some(0), ..Context::default() };
/// let palette = palettize(&tensor, &spec, &context).map_err(|e| e.to_string())?;
/// assert_eq!(palette.luts(), 2);
/// assert_eq!(palette.indices.len(), 64 * 3 / 8);
/// assert!(palette.error.snr_db() > 20.0);
/// # Ok::<(), String>(())
/// ```
pub fn palettize(
    tensor: &Tensor<'_>,
    spec: &PaletteSpec,
    context: &Context<'_>,
) -> Result<Palette, Refusal> {
    let layout = layout(tensor.shape(), context.output_axis, spec)?;
    suits(tensor.dtype(), context.mask.is_some(), spec)?;
    if let Some(mask) = context.mask {
        let expected = tensor.len().div_ceil(8);
        if mask.len() != expected {
            return Err(Refusal::MaskLength {
                elements: tensor.len(),
                expected,
                found: mask.len(),
            });
        }
    }
    context.go_on()?;
    let bytes = tensor.bytes();
    match tensor.dtype() {
        Dtype::F16 => typed(&elements::<f16>(bytes), tensor, layout, spec, context),
        Dtype::BF16 => typed(&elements::<bf16>(bytes), tensor, layout, spec, context),
        Dtype::F32 => typed(&elements::<f32>(bytes), tensor, layout, spec, context),
        // Half precision holds every byte exactly, and its census is the cheap one.
        Dtype::I8 => typed(
            &halves(bytes, |b| f32::from(b as i8)),
            tensor,
            layout,
            spec,
            context,
        ),
        Dtype::U8 => typed(&halves(bytes, f32::from), tensor, layout, spec, context),
    }
}

fn halves(bytes: &[u8], value: impl Fn(u8) -> f32) -> Vec<f16> {
    let table: Vec<f16> = (0..=u8::MAX).map(|b| f16::from_f32(value(b))).collect();
    bytes.iter().map(|&b| table[usize::from(b)]).collect()
}

fn typed<T: Element + Pod>(
    values: &[T],
    tensor: &Tensor<'_>,
    layout: Layout,
    spec: &PaletteSpec,
    context: &Context<'_>,
) -> Result<Palette, Refusal> {
    let rounding = Rounding(tensor.dtype());
    let mut storage = Storage::new(tensor.dtype(), spec);
    let sensitivity = context.sensitivity(tensor.len(), spec)?;
    let channels = match spec.per_channel_scale() {
        true => Some(Channels::new(values, &layout, rounding, storage)?),
        false => None,
    };
    if let Some(channels) = &channels {
        let largest = channels.scales.iter().fold(0_f32, |a, &b| a.max(b));
        storage = storage.under(largest, rounding);
    }
    let mask = context.mask.map(Mask);
    let job = GroupEncoder {
        values,
        sensitivity,
        context,
        groups: Groups::new(&layout),
        channels,
        mask,
        spec,
        rounding,
        storage,
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

impl<T: Element> GroupEncoder<'_, T> {
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
        let count = layout.tables().iter().product();
        let mut data = Vec::with_capacity(count * entries);
        let mut scale = Vec::with_capacity(count * rounding.0.size());
        for number in 0..count {
            let (group, channel) = places(layout, number);
            let quantized = tables[group].entries.quantized.as_ref();
            if let Some(quantized) = quantized {
                let integers = quantized.integers.iter();
                data.extend(integers.map(|&q| (q as u8).wrapping_add(shift)));
            }
            let own = quantized.map_or(1.0, |q| q.scale);
            let channels = self.channels.as_ref().filter(|_| layout.folded);
            let folded = channels.and_then(|channels| {
                let at = channel - channels.of_group(group).start;
                tables[group].folded.get(at).copied()
            });
            rounding.push(folded.unwrap_or(own), &mut scale);
            data.resize((number + 1) * entries, shift);
        }
        Lut::Quantized {
            dtype: if unsigned { Dtype::U8 } else { Dtype::I8 },
            data,
            scale,
            scale_shape: layout.lut_scale_shape(),
            offset: unsigned.then(|| vec![ZERO_POINT; count]),
        }
    }

    fn scale(&self, layout: &Layout) -> Option<ChannelScale> {
        let shape = layout.scale_shape()?;
        let channels = self.channels.as_ref()?;
        let mut bytes = Vec::with_capacity(channels.scales.len() * self.rounding.0.size());
        for &scale in &channels.scales {
            self.rounding.push(scale, &mut bytes);
        }
        Some(ChannelScale { shape, bytes })
    }
}

/// The group and the output channel of a table, by its number in the file.
fn places(layout: &Layout, number: usize) -> (usize, usize) {
    let tables = layout.tables();
    let place = |axis: usize| {
        let behind: usize = tables[axis + 1..].iter().product();
        number / behind % tables[axis]
    };
    let group = layout
        .group_axis
        .map_or(0, |axis| place(axis) / (tables[axis] / layout.groups));
    (group, layout.output_axis.map_or(0, place))
}
