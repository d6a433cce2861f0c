//! Tables that keep what a layer computes: fitted by the kernel, rounded as they are stored, and the indices fitted once more.
//!
//! # Idea
//! The weight becomes a matrix (`matrix`), that the kernel gets in one piece, or where H has blocks in a piece for each table (`part`).
//! Its tables and scales are numbers of 32 bits; `stored` makes of them what a file holds, and what each row's entries come to then. A
//! last descent goes over the indices with those, and measures.
//!
//! # Cost
//! The kernel's, and for the last descent one or two matrix products more. Memory beside the input: eight bytes an element, more for what
//! has a scale: four for each entry of each row.
//!
//! # Deviations from the other path
//! 1. Few distinct values in a group are kept exactly, as there; the group is fitted all the same, and that is dropped.
//! 2. Entries that become the same by rounding are stored twice.
//! 3. A per-channel scale is fitted too, and then the largest entry of each table is 1.

mod matrix;
mod part;
mod stored;

use half::{bf16, f16};
use palettizer_kernels::{Element, LayerwiseError};

use self::matrix::Matrix;
use self::part::Part;
use self::stored::{Fitted, Listed, Stored};
use super::assemble::Encoded;
use super::table::refuse_non_finite;
use crate::tensor::elements;
use crate::{
    Context, Dtype, FittedTables, Layerwise, LayerwiseFit, Layout, MomentsShape, Palette,
    PaletteSpec, Refusal, Tensor, layout, suits,
};

/// The palette of a weight, fitted to the inputs of its layer.
pub(crate) fn palettize(
    tensor: &Tensor<'_>,
    layout: &Layout,
    spec: &PaletteSpec,
    context: &Context<'_>,
    layerwise: Layerwise<'_>,
) -> Result<Palette, Refusal> {
    let weight = Weight::new(tensor, layout, spec, context, Some(layerwise))?;
    let start = match context.sensitivity {
        None => None,
        Some(each) => {
            context.sensitivity(tensor.len(), spec)?;
            Some(weight.matrix.rows_of(each))
        }
    };
    let listed = weight.listed();
    let values = weight.finite(&listed)?;
    let parts = Part::all(&weight, &values, start.as_deref(), layerwise);
    let mut whole = Fitted {
        luts: Vec::with_capacity(layout.groups * weight.k),
        indices: vec![0; values.len()],
        scales: Vec::new(),
        objective: Vec::new(),
        damping: Vec::new(),
        settled: true,
        energy: 0.0,
    };
    for part in &parts {
        let fitted = part.fit().map_err(refusal)?;
        part.scatter(&fitted.indices, &mut whole.indices);
        whole.luts.extend(fitted.luts);
        whole.scales.extend(fitted.scales.into_iter().flatten());
        whole.damping.push(fitted.damping);
        whole.energy += fitted.energy;
        whole.objective.resize(fitted.objective.len(), 0.0);
        let sums = whole.objective.iter_mut().zip(fitted.objective);
        sums.for_each(|(sum, part)| *sum += part);
    }
    weight.palette(whole, listed, &parts)
}

/// The palette of a weight whose tables were fitted elsewhere: rounds them as they are stored, and where second moments are
/// known ([`Context::layerwise`]), improves the indices for that and measures.
///
/// ```
/// use palettizer_palette::{
///     Context, Dtype, FittedTables, Lut, Mode, Nbits, PaletteSpec, Tensor, assemble,
/// };
///
/// let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
/// let weight = bytes(&[0.0, 0.4, 0.6, 1.0]);
/// let tensor = Tensor::new(Dtype::F32, &[1, 4], &weight).map_err(|e| e.to_string())?;
/// let fitted = FittedTables { luts: &[0.75, 0.25], indices: &[1, 1, 0, 0], scales: None };
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B1));
/// let context = Context { output_axis: Some(0), ..Context::default() };
/// let palette = assemble(&tensor, &spec, &context, fitted).map_err(|e| e.to_string())?;
/// assert_eq!(palette.lut, Lut::Float(bytes(&[0.25, 0.75])));
/// assert_eq!(palette.indices, [0b1100]);
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// As [`palettize`](crate::palettize) with second moments; [`Refusal::Length`] for too few or too many numbers, and
/// [`Refusal::Layerwise`] for numbers that cannot be.
pub fn assemble(
    tensor: &Tensor<'_>,
    spec: &PaletteSpec,
    context: &Context<'_>,
    fitted: FittedTables<'_>,
) -> Result<Palette, Refusal> {
    let layout = layout(tensor.shape(), context.output_axis, spec)?;
    suits(tensor.dtype(), context.mask.is_some(), spec)?;
    let weight = Weight::new(tensor, &layout, spec, context, context.layerwise)?;
    let listed = weight.listed();
    let values = weight.finite(&listed)?;
    weight.check(fitted)?;
    let parts = match context.layerwise {
        Some(layerwise) => Part::all(&weight, &values, None, layerwise),
        None => Vec::new(),
    };
    let damping = context.layerwise.map_or(0.0, |l| l.settings.damping);
    let whole = Fitted {
        luts: fitted.luts.to_vec(),
        indices: weight.matrix.rows_of(fitted.indices),
        scales: fitted.scales.unwrap_or_default().to_vec(),
        objective: Vec::new(),
        damping: parts
            .iter()
            .map(|part| vec![damping; part.matrices()])
            .collect(),
        settled: false,
        energy: 0.0,
    };
    weight.palette(whole, listed, &parts)
}

/// What the kernel says against it.
fn refusal(error: LayerwiseError) -> Refusal {
    match error {
        LayerwiseError::Stopped => Refusal::Stopped,
        error => Refusal::Layerwise(format!("failed: {error}")),
    }
}

/// A weight that suits.
struct Weight<'a> {
    layout: &'a Layout,
    spec: &'a PaletteSpec,
    context: &'a Context<'a>,
    dtype: Dtype,
    matrix: Matrix,
    /// All values, row by row of the matrix.
    values: Vec<f32>,
    /// Entries of a table.
    k: usize,
}

impl<'a> Weight<'a> {
    fn new(
        tensor: &Tensor<'_>,
        layout: &'a Layout,
        spec: &'a PaletteSpec,
        context: &'a Context<'a>,
        layerwise: Option<Layerwise<'a>>,
    ) -> Result<Self, Refusal> {
        let dtype = tensor.dtype();
        let shape = layerwise.map(|layerwise| layerwise.shape);
        MomentsShape::suits(shape, layout, spec, dtype, context.mask.is_some())?;
        if let Some(Layerwise { moments, shape, .. }) = layerwise
            && shape.numbers() != Some(moments.len())
        {
            return Err(Refusal::Length {
                what: "second moments",
                expected: shape.numbers().unwrap_or(usize::MAX),
                found: moments.len(),
            });
        }
        context.go_on()?;
        let what = "layer-wise fitting";
        let axis = layout.output_axis;
        let matrix = Matrix::new(
            &layout.shape,
            axis.ok_or(Refusal::ChannelAxisUnknown { what })?,
        );
        let bytes = tensor.bytes();
        let values = match dtype {
            Dtype::F16 => matrix.rows_of(&widened(&elements::<f16>(bytes))),
            Dtype::BF16 => matrix.rows_of(&widened(&elements::<bf16>(bytes))),
            _ => matrix.rows_of(&elements::<f32>(bytes)),
        };
        Ok(Weight {
            layout,
            spec,
            context,
            dtype,
            matrix,
            values,
            k: spec.mode().nbits().map_or(0, |nbits| nbits.entries()),
        })
    }

    /// Rows that share a table.
    fn rows_per_table(&self) -> usize {
        self.matrix.rows / self.layout.groups
    }

    /// The values of one group.
    fn group(&self, group: usize) -> &[f32] {
        let len = self.rows_per_table() * self.matrix.columns;
        &self.values[group * len..(group + 1) * len]
    }

    /// The groups that have so few values that all of them are entries.
    fn listed(&self) -> Vec<Option<Listed>> {
        let groups = 0..self.layout.groups;
        let may = Stored::may_list(self.spec);
        let one = |group| Listed::of(self.group(group), self.k);
        groups
            .map(|group| may.then(|| one(group)).flatten())
            .collect()
    }

    /// The values with zeros for what is not finite, which only a list of them can hold.
    fn finite(&self, listed: &[Option<Listed>]) -> Result<Vec<f32>, Refusal> {
        let bad = |values: &[f32]| values.iter().filter(|x| !x.is_finite()).count();
        if self.spec.per_channel_scale() {
            refuse_non_finite(bad(&self.values), self.values.len())?;
        }
        for (group, listed) in listed.iter().enumerate() {
            if listed.is_none() {
                let values = self.group(group);
                refuse_non_finite(bad(values), values.len())?;
            }
        }
        let finite = |&x: &f32| if x.is_finite() { x } else { 0.0 };
        Ok(self.values.iter().map(finite).collect())
    }

    /// Refuses tables and indices that are not those of the weight.
    fn check(&self, fitted: FittedTables<'_>) -> Result<(), Refusal> {
        let length = |what, found, expected| match found == expected {
            true => Ok(()),
            false => Err(Refusal::Length {
                what,
                expected,
                found,
            }),
        };
        length("luts", fitted.luts.len(), self.layout.groups * self.k)?;
        length("indices", fitted.indices.len(), self.values.len())?;
        let scaled = self.spec.per_channel_scale();
        let wanted = if scaled { self.matrix.rows } else { 0 };
        length("scales", fitted.scales.map_or(0, <[f32]>::len), wanted)?;
        let no = |what: String| Err(Refusal::Layerwise(what));
        if let Some(entry) = fitted.luts.iter().find(|entry| !entry.is_finite()) {
            return no(format!("has the entry {entry}, expected finite ones"));
        }
        let good = |scale: &&f32| !(**scale > 0.0 && scale.is_finite());
        if let Some(scale) = fitted.scales.unwrap_or_default().iter().find(good) {
            return no(format!(
                "has the scale {scale}, expected finite ones above zero"
            ));
        }
        if let Some(index) = fitted.indices.iter().find(|&&i| usize::from(i) >= self.k) {
            return no(format!("has the index {index} into {} entries", self.k));
        }
        Ok(())
    }

    /// Rounds what was fitted, improves indices, and puts all together.
    fn palette(
        &self,
        mut fitted: Fitted,
        listed: Vec<Option<Listed>>,
        parts: &[Part<'_>],
    ) -> Result<Palette, Refusal> {
        let mut objective = std::mem::take(&mut fitted.objective);
        let damping = std::mem::take(&mut fitted.damping);
        let known = objective.last().map(|&error| (fitted.energy, error));
        let known = known.filter(|_| listed.iter().all(Option::is_none));
        let mut stored = Stored::new(self, fitted, listed);
        let (energy, error) = match known.filter(|_| stored.same) {
            Some(known) => known,
            None => stored.improve(parts, &damping)?,
        };
        objective.push(error);
        let nbits = self.spec.mode().nbits();
        let missing = || Refusal::Layerwise("needs a number of bits".to_owned());
        let encoded = Encoded {
            dtype: self.dtype,
            layout: self.layout,
            nbits: nbits.ok_or_else(missing)?,
            lut_dtype: self.spec.lut_dtype(),
            tables: &stored.tables(&self.values),
            indices: &self.matrix.in_order(&stored.indices),
            scales: stored.scales(),
            mask: None,
        };
        let mut palette = encoded.palette();
        palette.fit = (!parts.is_empty()).then_some(LayerwiseFit { objective, energy });
        Ok(palette)
    }
}

fn widened<T: Element + bytemuck::Pod>(values: &[T]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}
