//! Tables first, indices later: a model that is to change as a whole or not at all needs no indices of all its weights at once.
//!
//! # Idea
//! The tables of a weight are small; its indices are an eighth to a half of it. Where indices say no more than which entry is
//! nearest, they are found when they are needed, as quickly as they would be packed and unpacked. Elsewhere (vectors, scales, masks, tables that
//! were fitted to a layer's inputs) they belong to the search for the tables, and are kept.

use palettizer_kernels::{Element, replace};
use rayon::prelude::*;

use super::assemble::Encoded;
use super::group_encoder::GroupEncoder;
use super::palettize::{Indices, Step, Weight, checked};
use super::table::GroupTable;
use crate::layout::groups::Groups;
use crate::{Context, Dtype, Layout, Mode, Nbits, Palette, PaletteSpec, Refusal, Tensor};

/// A palette whose indices are still to be found.
///
/// ```
/// use palettizer_palette::{Context, Deferred, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
///
/// let bytes: Vec<u8> = (0..64).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[4, 16], &bytes).map_err(|e| e.to_string())?;
/// let (spec, context) = (PaletteSpec::new(Mode::Kmeans(Nbits::B3)), Context::default());
/// let deferred = Deferred::new(&tensor, &spec, &context).map_err(|e| e.to_string())?;
/// let palette = deferred.ok_or("not of this kind")?.palette(&bytes).map_err(|e| e.to_string())?;
/// assert_eq!(palette, palettize(&tensor, &spec, &context).map_err(|e| e.to_string())?);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Deferred {
    dtype: Dtype,
    nbits: Nbits,
    spec: PaletteSpec,
    layout: Layout,
    tables: Vec<GroupTable>,
}

impl Deferred {
    /// Finds the tables that [`palettize`](crate::palettize) would find for a weight. `None` where indices could not be found
    /// again from them: of vectors, with a per-channel scale, a mask or second moments, and in other modes than k-means.
    ///
    /// # Errors
    /// Those of [`palettize`](crate::palettize).
    pub fn new(
        tensor: &Tensor<'_>,
        spec: &PaletteSpec,
        context: &Context<'_>,
    ) -> Result<Option<Self>, Refusal> {
        let bound = spec.cluster_dim() > 1
            || spec.per_channel_scale()
            || context.mask.is_some()
            || context.layerwise.is_some();
        let nbits = match *spec.mode() {
            Mode::Kmeans(nbits) if !bound => nbits,
            _ => return Ok(None),
        };
        let layout = checked(tensor, spec, context)?;
        let weight = Weight {
            tensor,
            layout: &layout,
            spec,
            context,
        };
        let tables = weight.read(Fit(nbits))?;
        Ok(Some(Deferred {
            dtype: tensor.dtype(),
            nbits,
            spec: spec.clone(),
            layout,
            tables,
        }))
    }

    /// The palette. `bytes` are the weight's, as its tensor had them.
    ///
    /// Runs on the caller's rayon pool.
    ///
    /// # Errors
    /// [`Refusal::Length`] for another number of bytes.
    pub fn palette(&self, bytes: &[u8]) -> Result<Palette, Refusal> {
        let shape = &self.layout.shape;
        let tensor = Tensor::new(self.dtype, shape, bytes).map_err(|_| self.another(bytes))?;
        let weight = Weight {
            tensor: &tensor,
            layout: &self.layout,
            spec: &self.spec,
            context: &Context::default(),
        };
        weight.read(Assign(self.tables.clone()))
    }

    /// Replaces the weight by what its palette stands for. The palette is given back without its indices: those of 32-bit values
    /// are used as they are found.
    ///
    /// Runs on the caller's rayon pool.
    ///
    /// # Errors
    /// [`Refusal::Length`] for another number of bytes.
    pub fn replace(&self, bytes: &mut [u8]) -> Result<Palette, Refusal> {
        let groups = Groups::new(&self.layout);
        if self.dtype == Dtype::F32
            && groups.whole(0).is_some()
            && let Ok(values) = bytemuck::try_cast_slice_mut(bytes)
            && values.len() == groups.len() * groups.count
        {
            let mut tables = self.tables.clone();
            let each = values.par_chunks_mut(groups.len()).zip(&mut tables);
            each.for_each(|(values, table)| {
                table.error.squared_error = replace(values, &table.entries.values);
            });
            return Ok(self.encoded(&tables));
        }
        let mut palette = self.palette(bytes)?;
        let written = palette.decompress_into(bytes);
        written.map_err(|_| self.another(bytes))?;
        palette.indices = Vec::new();
        Ok(palette)
    }

    fn another(&self, bytes: &[u8]) -> Refusal {
        Refusal::Length {
            what: "the weight that tables were found for",
            expected: self.layout.shape.iter().product(),
            found: bytes.len() / self.dtype.size(),
        }
    }

    /// The palette without indices.
    fn encoded(&self, tables: &[GroupTable]) -> Palette {
        let encoded = Encoded {
            dtype: self.dtype,
            layout: &self.layout,
            nbits: self.nbits,
            lut_dtype: self.spec.lut_dtype(),
            tables,
            indices: &[],
            scales: None,
            mask: None,
        };
        encoded.palette()
    }
}

/// The tables of a weight, by k-means with so many bits.
struct Fit(Nbits);

impl Step for Fit {
    type Made = Vec<GroupTable>;

    fn take<T: Element>(
        self,
        _: &Weight<'_>,
        encoder: &GroupEncoder<'_, T>,
    ) -> Result<Vec<GroupTable>, Refusal> {
        encoder.fit(self.0)
    }
}

/// The indices of a weight whose tables are known.
struct Assign(Vec<GroupTable>);

impl Step for Assign {
    type Made = Palette;

    fn take<T: Element>(
        mut self,
        weight: &Weight<'_>,
        encoder: &GroupEncoder<'_, T>,
    ) -> Result<Palette, Refusal> {
        let mut indices = Indices::new(encoder);
        encoder.assign(&mut self.0, &indices.counts, &mut indices.all);
        weight.palette(encoder, &self.0, &indices)
    }
}
