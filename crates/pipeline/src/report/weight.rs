//! What became of one weight: compressed, with its figures, or skipped, with its reason.

use crate::budget::Allotted;
use palettizer_palette::{ErrorFigures, Granularity, LayerwiseFit, Mode, ModeName, PaletteSpec};
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

/// What became of one weight.
///
/// In JSON it is one flat object, whose fields after `refused` are null for a skipped weight: see `docs/report.md`.
///
/// ```
/// use palettizer_pipeline::{Fate, WeightReport};
///
/// let row = WeightReport::skipped("fc.weight", &[4, 8], "fp16", 64, "the configuration skips it");
/// assert_eq!((row.elements(), row.bytes_after()), (32, 64));
/// assert_eq!(serde_json::to_value(&row)?["status"], "skipped");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WeightReport {
    /// The constant's name, or the tensor's.
    pub name: String,
    /// Further constants that share its data.
    pub shared_with: Vec<String>,
    /// The types of the ops that use it, each once.
    pub op_types: Vec<String>,
    /// The names of the ops that use it.
    pub op_names: Vec<String>,
    /// The weight's shape.
    pub shape: Vec<usize>,
    /// The element type before: `fp16`, `fp32`, `bf16`, `int8` or `uint8`.
    pub dtype: &'static str,
    /// Bytes that the weight took.
    pub bytes_before: u64,
    /// Whether it was palettized.
    pub fate: Fate,
    /// What the budget gave it, if there was one.
    pub budget: Option<Allotted>,
}

/// Whether a weight was palettized.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It was.
    Compressed(Figures),
    /// It was not.
    Skipped {
        /// Why not.
        reason: String,
        /// Whether it was to be palettized and could not be: what strict mode objects to.
        refused: bool,
    },
}

/// The palette of a weight, and how far it is from the weight.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Bits per index.
    pub nbits: u32,
    /// `kmeans`, `uniform`, `unique` or `custom`.
    pub mode: &'static str,
    /// `per_tensor` or `per_grouped_channel`.
    pub granularity: &'static str,
    /// Channels per group.
    pub group_size: Option<usize>,
    /// Elements per centroid.
    pub cluster_dim: usize,
    /// Whether errors were weighed by sensitivities; `None` for a weight that was trained.
    pub sensitivity: Option<bool>,
    /// The number of lookup tables.
    pub luts: usize,
    /// Bytes that the weight takes now: indices, lookup tables, scales.
    pub bytes_after: u64,
    /// Mean squared error.
    pub mse: f64,
    /// Signal-to-noise ratio in dB; `None` without any error.
    pub snr_db: Option<f64>,
    /// Scalar k-means: how far the clusters' squared error may be above the optimum, as a proven fraction of it, before
    /// the centroids are rounded to be stored; 0 when they are optimal.
    pub optimality_gap: Option<f64>,
    /// With statistics of its inputs: `layerwise` if it was fitted to them, `k-means` if it fell back to that.
    pub fit: Option<&'static str>,
    /// With statistics: why it was not fitted to them.
    pub fallback: Option<String>,
    /// Signal-to-noise ratio of the layer's outputs in dB, if it was fitted to them; `None` without any error.
    pub output_snr_db: Option<f64>,
}

impl WeightReport {
    /// The row of a weight that stays as it is, without users.
    pub fn skipped(
        name: &str,
        shape: &[usize],
        dtype: &'static str,
        bytes: u64,
        reason: impl Into<String>,
    ) -> Self {
        let (reason, refused) = (reason.into(), false);
        Self::new(name, shape, dtype, bytes, Fate::Skipped { reason, refused })
    }

    /// The row of a weight without users.
    pub fn new(name: &str, shape: &[usize], dtype: &'static str, bytes: u64, fate: Fate) -> Self {
        WeightReport {
            name: name.to_owned(),
            shared_with: Vec::new(),
            op_types: Vec::new(),
            op_names: Vec::new(),
            shape: shape.to_vec(),
            dtype,
            bytes_before: bytes,
            fate,
            budget: None,
        }
    }

    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }

    /// The figures of a palettized weight.
    pub fn figures(&self) -> Option<&Figures> {
        match &self.fate {
            Fate::Compressed(figures) => Some(figures),
            Fate::Skipped { .. } => None,
        }
    }

    /// Why it is not palettized.
    pub fn reason(&self) -> Option<&str> {
        match &self.fate {
            Fate::Compressed(_) => None,
            Fate::Skipped { reason, .. } => Some(reason),
        }
    }

    /// Bytes that the weight takes now.
    pub fn bytes_after(&self) -> u64 {
        self.figures()
            .map_or(self.bytes_before, |figures| figures.bytes_after)
    }
}

impl Figures {
    /// Those of a palette that was made by `spec` and takes so many bytes.
    pub fn new(
        spec: &PaletteSpec,
        nbits: u32,
        luts: usize,
        error: &ErrorFigures,
        bytes_after: u64,
    ) -> Self {
        let granularity = spec.granularity();
        let scalar_kmeans = matches!(spec.mode(), Mode::Kmeans(_)) && spec.cluster_dim() == 1;
        Figures {
            nbits,
            mode: spec.mode().name(),
            granularity: granularity.name(),
            group_size: match granularity {
                Granularity::PerTensor => None,
                Granularity::PerGroupedChannel { group_size, .. } => Some(group_size),
            },
            cluster_dim: spec.cluster_dim(),
            sensitivity: None,
            luts,
            bytes_after,
            mse: error.mse(),
            snr_db: Some(error.snr_db()).filter(|snr| snr.is_finite()),
            optimality_gap: scalar_kmeans.then_some(error.gap),
            fit: None,
            fallback: None,
            output_snr_db: None,
        }
    }

    /// Adds how it was fitted to the inputs of its layer, or why it was not.
    pub(crate) fn fitted(&mut self, fit: Option<&LayerwiseFit>, fallback: Option<String>) {
        let snr = fit.map(LayerwiseFit::output_snr_db);
        self.output_snr_db = snr.filter(|snr| snr.is_finite());
        self.fit = match (fit, &fallback) {
            (Some(_), _) => Some("layerwise"),
            (None, Some(_)) if self.mode == ModeName::Kmeans.name() => Some("k-means"),
            (None, _) => None,
        };
        self.fallback = fallback;
    }
}

impl Serialize for WeightReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let figures = self.figures();
        let status = match &self.fate {
            Fate::Compressed(_) => "compressed",
            Fate::Skipped { .. } => "skipped",
        };
        let refused = matches!(self.fate, Fate::Skipped { refused: true, .. });
        let mut row = serializer.serialize_struct("WeightReport", 25)?;
        row.serialize_field("name", &self.name)?;
        row.serialize_field("shared_with", &self.shared_with)?;
        row.serialize_field("op_types", &self.op_types)?;
        row.serialize_field("op_names", &self.op_names)?;
        row.serialize_field("shape", &self.shape)?;
        row.serialize_field("dtype", self.dtype)?;
        row.serialize_field("status", status)?;
        row.serialize_field("reason", &self.reason())?;
        row.serialize_field("refused", &refused)?;
        row.serialize_field("nbits", &figures.map(|f| f.nbits))?;
        row.serialize_field("mode", &figures.map(|f| f.mode))?;
        row.serialize_field("granularity", &figures.map(|f| f.granularity))?;
        row.serialize_field("group_size", &figures.and_then(|f| f.group_size))?;
        row.serialize_field("cluster_dim", &figures.map(|f| f.cluster_dim))?;
        row.serialize_field("sensitivity", &figures.and_then(|f| f.sensitivity))?;
        row.serialize_field("luts", &figures.map(|f| f.luts))?;
        row.serialize_field("bytes_before", &self.bytes_before)?;
        row.serialize_field("bytes_after", &self.bytes_after())?;
        row.serialize_field("mse", &figures.map(|f| f.mse))?;
        row.serialize_field("snr_db", &figures.and_then(|f| f.snr_db))?;
        row.serialize_field("optimality_gap", &figures.and_then(|f| f.optimality_gap))?;
        row.serialize_field("fit", &figures.and_then(|f| f.fit))?;
        row.serialize_field("fallback", &figures.and_then(|f| f.fallback.as_deref()))?;
        row.serialize_field("output_snr_db", &figures.and_then(|f| f.output_snr_db))?;
        match &self.budget {
            Some(budget) => row.serialize_field("budget", budget)?,
            None => row.skip_field("budget")?,
        }
        row.end()
    }
}
