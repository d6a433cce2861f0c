//! What a layer's inputs look like, what that asks of a weight, and what comes of it.
//!
//! A weight is taken as a matrix: its output channels are the rows, and all else, in the order of the weight's memory, the columns.

use crate::spec::names;
use crate::{Dtype, Layout, Mode, PaletteSpec, Refusal};

/// Damping of second moments where nothing else is said.
pub const DEFAULT_DAMPING: f64 = 0.1;
/// The same for those weighted by gradients, which say more about each input.
pub const DEFAULT_GUIDED_DAMPING: f64 = 0.03;
/// Rounds of tables and indices where nothing else is said.
pub const DEFAULT_ROUNDS: usize = 2;

/// How second moments are divided among a weight's matrix.
///
/// ```
/// use palettizer_palette::MomentsShape;
///
/// let shape = MomentsShape::of(&[4, 9, 9]).ok_or("no such shape")?;
/// assert_eq!(shape, MomentsShape { row_runs: 4, blocks: 1, columns: 9 });
/// assert_eq!(MomentsShape::of(&[9, 8]), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MomentsShape {
    /// As many matrices, each for an equal run of rows (the last for what is left): groups of a convolution, or of rows with gradients of their own.
    pub row_runs: usize,
    /// H is zero but for so many equal blocks on its diagonal: groups of a transposed convolution.
    pub blocks: usize,
    /// Columns of a block.
    pub columns: usize,
}

impl MomentsShape {
    /// From the shape of a tensor: `[row_runs, blocks, n, n]`, `[row_runs, n, n]` or `[n, n]`; `None` if it is none of them.
    pub fn of(shape: &[usize]) -> Option<Self> {
        let (row_runs, blocks, rows, columns) = match *shape {
            [n, m] => (1, 1, n, m),
            [runs, n, m] => (runs, 1, n, m),
            [runs, blocks, n, m] => (runs, blocks, n, m),
            _ => return None,
        };
        let good = rows == columns && row_runs > 0 && blocks > 0 && columns > 0;
        good.then_some(MomentsShape {
            row_runs,
            blocks,
            columns,
        })
    }

    /// Numbers in all; `None` if they are too many to count.
    pub fn numbers(&self) -> Option<usize> {
        let matrix = self.columns.checked_mul(self.columns)?;
        matrix.checked_mul(self.blocks)?.checked_mul(self.row_runs)
    }

    /// Decides whether a weight can be fitted with such moments, before any value is read. With `None`, whether it could be at all.
    ///
    /// `masked` says whether the weight is pruned.
    ///
    /// # Errors
    /// [`Refusal::Layerwise`], which says what it would take, or [`Refusal::ChannelAxisUnknown`].
    pub fn suits(
        moments: Option<Self>,
        layout: &Layout,
        spec: &PaletteSpec,
        dtype: Dtype,
        masked: bool,
    ) -> Result<(), Refusal> {
        let no = |what: String| Err(Refusal::Layerwise(what));
        if !matches!(spec.mode(), Mode::Kmeans(_)) {
            return no(format!("needs mode kmeans, found {}", spec.mode().name()));
        }
        if spec.cluster_dim() > 1 {
            return no(format!("needs cluster_dim 1, found {}", spec.cluster_dim()));
        }
        if !dtype.is_float() {
            return no(format!("needs a float weight, found {}", dtype.name()));
        }
        if masked {
            return no("cannot keep the zeros of a pruned weight".to_owned());
        }
        let what = "layer-wise fitting";
        let axis = layout
            .output_axis
            .ok_or(Refusal::ChannelAxisUnknown { what })?;
        if let Some(found) = layout.group_axis
            && found != axis
            && layout.groups > 1
        {
            return no(format!(
                "needs groups along the axis {axis} of the output channels, found axis {found}"
            ));
        }
        match moments {
            Some(moments) => moments.fits(layout, axis, spec),
            None => Ok(()),
        }
    }

    fn fits(self, layout: &Layout, axis: usize, spec: &PaletteSpec) -> Result<(), Refusal> {
        self.matches(&layout.shape, axis)?;
        let no = |what: String| Err(Refusal::Layerwise(what));
        let MomentsShape {
            row_runs, blocks, ..
        } = self;
        if blocks > 1 && spec.per_channel_scale() {
            return no(format!(
                "with a per-channel scale needs one block of second moments, found {blocks}"
            ));
        }
        let equal = layout.shape[axis].is_multiple_of(row_runs);
        if blocks > 1 && row_runs > 1 && (layout.groups > 1 || !equal) {
            return no(format!(
                "with {blocks} blocks and {row_runs} runs of rows needs one table for the tensor and equal runs"
            ));
        }
        Ok(())
    }

    /// Decides whether these are moments of the inputs of a weight of some shape, whose output channels lie on `axis`.
    ///
    /// # Errors
    /// [`Refusal::Layerwise`], which says what was expected.
    ///
    /// ```
    /// use palettizer_palette::MomentsShape;
    ///
    /// let moments = MomentsShape { row_runs: 1, blocks: 1, columns: 9 };
    /// assert!(moments.matches(&[4, 1, 3, 3], 0).is_ok());
    /// assert!(moments.matches(&[4, 1, 3, 3], 1).is_err());
    /// ```
    pub fn matches(self, shape: &[usize], axis: usize) -> Result<(), Refusal> {
        let no = |what: String| Err(Refusal::Layerwise(what));
        let MomentsShape {
            row_runs,
            blocks,
            columns,
        } = self;
        let rows = shape.get(axis).copied().unwrap_or(0).max(1);
        let wanted = shape.iter().product::<usize>() / rows;
        if columns.checked_mul(blocks) != Some(wanted) {
            return no(format!(
                "needs second moments of {wanted} inputs for the shape {shape:?} with output axis {axis}, found {}",
                match blocks {
                    1 => columns.to_string(),
                    blocks => format!("{blocks} × {columns}"),
                }
            ));
        }
        if row_runs == 0 || rows.div_ceil(rows.div_ceil(row_runs)) != row_runs {
            return no(format!(
                "cannot divide {rows} output channels among {row_runs} matrices of second moments"
            ));
        }
        Ok(())
    }

    /// What the diagonal says of each element of a weight that this [`matches`](Self::matches), in the order of the weight.
    ///
    /// ```
    /// use palettizer_palette::MomentsShape;
    ///
    /// let shape = MomentsShape { row_runs: 1, blocks: 2, columns: 1 };
    /// assert_eq!(shape.diagonal(&[3.0, 5.0], &[2, 3], 1), [3.0, 3.0, 3.0, 5.0, 5.0, 5.0]);
    /// ```
    pub fn diagonal(self, moments: &[f32], shape: &[usize], axis: usize) -> Vec<f32> {
        let (rows, n) = (shape[axis], self.columns);
        let each = rows.div_ceil(self.row_runs.max(1)).max(1);
        let inner: usize = shape[axis + 1..].iter().product();
        let elements: usize = shape.iter().product();
        let one = |at: usize| {
            let (row, column) = (at / inner % rows, at / (inner * rows) * inner + at % inner);
            let matrix = row / each * self.blocks + column / n;
            moments[matrix * n * n + column % n * (n + 1)]
        };
        (0..elements).map(one).collect()
    }
}

/// What is known of the inputs of a layer, and how far to go.
///
/// ```
/// use palettizer_palette::{
///     Context, Dtype, Layerwise, LayerwiseSettings, Mode, MomentsShape, Nbits, PaletteSpec, Tensor, palettize,
/// };
///
/// let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
/// let weight = bytes(&[0.0, 0.4, 0.6, 1.0]);
/// let tensor = Tensor::new(Dtype::F32, &[1, 4], &weight).map_err(|e| e.to_string())?;
/// // The inputs are alike, so that errors of opposite sign cancel.
/// let second_moments: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.9 }).collect();
/// let layerwise = Layerwise {
///     moments: &second_moments,
///     shape: MomentsShape { row_runs: 1, blocks: 1, columns: 4 },
///     settings: LayerwiseSettings::default(),
/// };
/// let context = Context { output_axis: Some(0), layerwise: Some(layerwise), ..Context::default() };
/// let palette = palettize(&tensor, &PaletteSpec::new(Mode::Kmeans(Nbits::B1)), &context).map_err(|e| e.to_string())?;
/// let fit = palette.fit.ok_or("fitted")?;
/// assert!(fit.output_error() <= fit.objective[0] && fit.output_snr_db() > 10.0);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Layerwise<'a> {
    /// Second moments H of the inputs, one matrix after the other, each symmetric (only the upper triangle is read).
    pub moments: &'a [f32],
    /// How they are divided.
    pub shape: MomentsShape,
    /// How far to go.
    pub settings: LayerwiseSettings,
}

names! {
    /// How tables and indices are fitted to a layer's inputs.
    ///
    /// ```
    /// use palettizer_palette::LayerwiseAlgorithm;
    ///
    /// assert_eq!("gptq".parse::<LayerwiseAlgorithm>()?, LayerwiseAlgorithm::Gptq);
    /// # Ok::<(), palettizer_palette::SpecError>(())
    /// ```
    LayerwiseAlgorithm as "algorithm" {
        /// A pass with error feedback, then rounds of best tables and better indices
        Lnq = "lnq",
        /// The pass with error feedback and the best tables for it: a third of the time
        Gptq = "gptq",
    }
}

/// How far layer-wise fitting goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerwiseSettings {
    /// What is done.
    pub algorithm: LayerwiseAlgorithm,
    /// Rounds of best tables and better indices.
    pub rounds: usize,
    /// What is added to the diagonal of H, as a part of its mean.
    pub damping: f64,
}

impl Default for LayerwiseSettings {
    fn default() -> Self {
        LayerwiseSettings {
            algorithm: LayerwiseAlgorithm::default(),
            rounds: DEFAULT_ROUNDS,
            damping: DEFAULT_DAMPING,
        }
    }
}

/// How far the outputs of a fitted layer are from what they were, with the damped H.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerwiseFit {
    /// Σ (w − ŵ)ᵀ H (w − ŵ): of weighted k-means, after the pass with feedback, after each round, of the last tables, and of
    /// the weight as it is stored. It does not rise, but for the last, where entries are rounded.
    pub objective: Vec<f64>,
    /// Σ wᵀHw.
    pub energy: f64,
}

impl LayerwiseFit {
    /// What is left in the end.
    pub fn output_error(&self) -> f64 {
        self.objective.last().copied().unwrap_or_default()
    }

    /// Signal to noise of the outputs in decibels; infinite when nothing was lost.
    pub fn output_snr_db(&self) -> f64 {
        match self.output_error() {
            0.0 => f64::INFINITY,
            error => 10.0 * (self.energy / error).log10(),
        }
    }
}

/// Tables and indices that were fitted elsewhere, on a GPU for instance.
#[derive(Clone, Copy, Debug)]
pub struct FittedTables<'a> {
    /// 2^n entries for each table, before they are rounded.
    pub luts: &'a [f32],
    /// One for each element, in the order of the weight.
    pub indices: &'a [u8],
    /// One for each output channel, above zero, where there is a per-channel scale.
    pub scales: Option<&'a [f32]>,
}
