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

use half::{bf16, f16};
use palettizer_kernels::Element;

use super::assemble::Encoded;
use super::channels::Channels;
use super::elements::Elements;
use super::group_encoder::GroupEncoder;
use super::layerwise;
use super::rounding::Rounding;
use super::storage::Storage;
use super::table::{GroupTable, MOST_ENTRIES};
use crate::layout::groups::{Groups, Mask};
use crate::tensor::elements;
use crate::{Context, Dtype, Layout, Nbits, Palette, PaletteSpec, Refusal, Tensor, layout, suits};

/// Palettizes one weight.
///
/// `context` has what is known of the weight beside its values: the axis of its output channels, the mask of a pruned
/// one, how much each element matters, what the layer's inputs look like, and the flag that ends the work.
///
/// Runs on the caller's rayon pool; the result does not depend on its size.
///
/// # Errors
/// Whatever [`layout`] and [`suits`] refuse, [`Refusal::MaskLength`], [`Refusal::SensitivityLength`],
/// [`Refusal::Sensitivity`], what only the values tell ([`Refusal::NonFinite`], [`Refusal::TooManyDistinct`],
/// [`Refusal::Custom`]), [`Refusal::Layerwise`] where second moments cannot be used, and [`Refusal::Stopped`].
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
    let layout = checked(tensor, spec, context)?;
    if let Some(inputs) = context.layerwise {
        return layerwise::palettize(tensor, &layout, spec, context, inputs);
    }
    let weight = Weight {
        tensor,
        layout: &layout,
        spec,
        context,
    };
    weight.read(Whole)
}

/// The layout of a weight for which the spec and what is known go together.
pub(crate) fn checked(
    tensor: &Tensor<'_>,
    spec: &PaletteSpec,
    context: &Context<'_>,
) -> Result<Layout, Refusal> {
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
    Ok(layout)
}

fn halves(bytes: &[u8], value: impl Fn(u8) -> f32) -> Vec<f16> {
    let table: Vec<f16> = (0..=u8::MAX).map(|b| f16::from_f32(value(b))).collect();
    bytes.iter().map(|&b| table[usize::from(b)]).collect()
}

/// A weight that has been found to suit.
pub(crate) struct Weight<'a> {
    pub(crate) tensor: &'a Tensor<'a>,
    pub(crate) layout: &'a Layout,
    pub(crate) spec: &'a PaletteSpec,
    pub(crate) context: &'a Context<'a>,
}

/// What is made of a weight whose values can be read.
pub(crate) trait Step {
    type Made;
    fn take<T: Element>(
        self,
        weight: &Weight<'_>,
        encoder: &GroupEncoder<'_, T>,
    ) -> Result<Self::Made, Refusal>;
}

/// All at once.
struct Whole;

impl Step for Whole {
    type Made = Palette;

    fn take<T: Element>(
        self,
        weight: &Weight<'_>,
        encoder: &GroupEncoder<'_, T>,
    ) -> Result<Palette, Refusal> {
        let mut indices = Indices::new(encoder);
        let tables = encoder.tables(&indices.counts, &mut indices.all)?;
        weight.palette(encoder, &tables, &indices)
    }
}

/// The indices of a weight, group after group.
pub(crate) struct Indices {
    /// How many each group has.
    pub(crate) counts: Vec<usize>,
    pub(crate) all: Vec<u8>,
}

impl Indices {
    /// So many zeros as the weight has indices.
    pub(crate) fn new<T: Element>(encoder: &GroupEncoder<'_, T>) -> Self {
        let Elements { groups, mask, .. } = &encoder.elements;
        let counts = groups.index_counts(mask.as_ref());
        let all = vec![0; counts.iter().sum()];
        Indices { counts, all }
    }
}

impl Weight<'_> {
    /// Takes a step with the values as they are stored.
    pub(crate) fn read<S: Step>(&self, step: S) -> Result<S::Made, Refusal> {
        let bytes = self.tensor.bytes();
        match self.tensor.dtype() {
            Dtype::F16 => self.with(step, &elements::<f16>(bytes)),
            Dtype::BF16 => self.with(step, &elements::<bf16>(bytes)),
            Dtype::F32 => self.with(step, &elements::<f32>(bytes)),
            // Half precision holds every byte exactly, and its histogram is the cheap one.
            Dtype::I8 => self.with(step, &halves(bytes, |b| f32::from(b as i8))),
            Dtype::U8 => self.with(step, &halves(bytes, f32::from)),
        }
    }

    fn with<T: Element, S: Step>(&self, step: S, values: &[T]) -> Result<S::Made, Refusal> {
        let Weight {
            layout,
            spec,
            context,
            ..
        } = *self;
        let dtype = self.tensor.dtype();
        let rounding = Rounding(dtype);
        let mut storage = Storage::new(dtype, spec);
        let sensitivity = context.sensitivity(values.len(), spec)?;
        let channels = match spec.per_channel_scale() {
            true => Some(Channels::new(values, layout, rounding, storage)?),
            false => None,
        };
        if let Some(channels) = &channels {
            let largest = channels.scales.iter().fold(0_f32, |a, &b| a.max(b));
            storage = storage.under(largest, rounding);
        }
        let encoder = GroupEncoder {
            elements: Elements {
                values,
                layout,
                groups: Groups::new(layout),
                channels,
                mask: context.mask.map(Mask),
                sensitivity,
                rounding,
                storage,
            },
            context,
            spec,
        };
        step.take(self, &encoder)
    }

    /// The palette of what was found.
    pub(crate) fn palette<T: Element>(
        &self,
        encoder: &GroupEncoder<'_, T>,
        tables: &[GroupTable],
        indices: &Indices,
    ) -> Result<Palette, Refusal> {
        let Elements {
            groups,
            mask,
            channels,
            ..
        } = &encoder.elements;
        let encoded = Encoded {
            dtype: self.tensor.dtype(),
            layout: self.layout,
            nbits: self.width(tables)?,
            lut_dtype: self.spec.lut_dtype(),
            tables,
            indices: &groups.row_major(&indices.all, &indices.counts, mask.as_ref()),
            scales: channels.as_ref().map(|channels| channels.scales.as_slice()),
            mask: self.context.mask,
        };
        Ok(encoded.palette())
    }

    /// The width of an index: the mode's, or that of the fullest table.
    fn width(&self, tables: &[GroupTable]) -> Result<Nbits, Refusal> {
        if let Some(nbits) = self.spec.mode().nbits() {
            return Ok(nbits);
        }
        let fullest = tables.iter().map(|table| table.entries.values.len());
        let fullest = fullest.max().unwrap_or(0) / self.layout.cluster_dim;
        Nbits::holding(fullest).ok_or(Refusal::TooManyDistinct {
            limit: MOST_ENTRIES,
            vectors: self.layout.cluster_dim > 1,
        })
    }
}
