//! What became of one weight: compressed, with its figures, or skipped, with its reason.

use palettizer_palette::{ErrorFigures, Granularity, Mode, PaletteSpec};
use serde::ser::{Serialize, Serializer};

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
        }
    }
}

/// The row as JSON has it.
#[derive(serde::Serialize)]
struct Row<'a> {
    name: &'a str,
    shared_with: &'a [String],
    op_types: &'a [String],
    op_names: &'a [String],
    shape: &'a [usize],
    dtype: &'a str,
    status: &'static str,
    reason: Option<&'a str>,
    refused: bool,
    nbits: Option<u32>,
    mode: Option<&'a str>,
    granularity: Option<&'a str>,
    group_size: Option<usize>,
    cluster_dim: Option<usize>,
    sensitivity: Option<bool>,
    luts: Option<usize>,
    bytes_before: u64,
    bytes_after: u64,
    mse: Option<f64>,
    snr_db: Option<f64>,
    optimality_gap: Option<f64>,
}

impl Serialize for WeightReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let figures = self.figures();
        let row = Row {
            name: &self.name,
            shared_with: &self.shared_with,
            op_types: &self.op_types,
            op_names: &self.op_names,
            shape: &self.shape,
            dtype: self.dtype,
            status: match &self.fate {
                Fate::Compressed(_) => "compressed",
                Fate::Skipped { .. } => "skipped",
            },
            reason: self.reason(),
            refused: matches!(self.fate, Fate::Skipped { refused: true, .. }),
            nbits: figures.map(|f| f.nbits),
            mode: figures.map(|f| f.mode),
            granularity: figures.map(|f| f.granularity),
            group_size: figures.and_then(|f| f.group_size),
            cluster_dim: figures.map(|f| f.cluster_dim),
            sensitivity: figures.and_then(|f| f.sensitivity),
            luts: figures.map(|f| f.luts),
            bytes_before: self.bytes_before,
            bytes_after: self.bytes_after(),
            mse: figures.map(|f| f.mse),
            snr_db: figures.and_then(|f| f.snr_db),
            optimality_gap: figures.and_then(|f| f.optimality_gap),
        };
        row.serialize(serializer)
    }
}
