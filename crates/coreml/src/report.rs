//! What became of every weight.

use serde::Serialize;

/// Whether a weight was palettized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was.
    Compressed,
    /// It was not; the reason is beside it.
    Skipped,
}

/// What became of one weight. The fields after `refused` are empty for a skipped one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WeightReport {
    /// The constant's name.
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
    pub dtype: String,
    /// Whether it was palettized.
    pub status: Status,
    /// Why it was not.
    pub reason: Option<String>,
    /// Whether it was to be palettized and could not be: what strict mode objects to.
    pub refused: bool,
    /// Bits per index.
    pub nbits: Option<u32>,
    /// `kmeans`, `uniform`, `unique` or `custom`.
    pub mode: Option<String>,
    /// `per_tensor` or `per_grouped_channel`.
    pub granularity: Option<String>,
    /// Channels per group.
    pub group_size: Option<usize>,
    /// Elements per centroid.
    pub cluster_dim: Option<usize>,
    /// Whether errors were weighed by sensitivities.
    pub sensitivity: Option<bool>,
    /// The number of lookup tables.
    pub luts: Option<usize>,
    /// Bytes that the weight took.
    pub bytes_before: u64,
    /// Bytes that it takes now: indices, lookup tables, scales.
    pub bytes_after: u64,
    /// Mean squared error.
    pub mse: Option<f64>,
    /// Signal-to-noise ratio in dB; `null` for a skipped weight and for one without any error.
    pub snr_db: Option<f64>,
    /// Scalar k-means: how far the clusters' squared error may be above the optimum, as a proven fraction of it, before
    /// the centroids are rounded to be stored; 0 when they are optimal.
    pub optimality_gap: Option<f64>,
}

impl WeightReport {
    /// The row of a weight that stays as it is, without a reason yet.
    ///
    /// ```
    /// use palettizer_coreml::report::WeightReport;
    ///
    /// let row = WeightReport::untouched("fc.weight".to_owned(), vec![4, 8], "fp16", 64);
    /// assert_eq!((row.elements(), row.bytes_after), (32, 64));
    /// ```
    pub fn untouched(name: String, shape: Vec<usize>, dtype: &str, bytes: u64) -> Self {
        WeightReport {
            name,
            shared_with: Vec::new(),
            op_types: Vec::new(),
            op_names: Vec::new(),
            shape,
            dtype: dtype.to_owned(),
            status: Status::Skipped,
            reason: None,
            refused: false,
            nbits: None,
            mode: None,
            granularity: None,
            group_size: None,
            cluster_dim: None,
            sensitivity: None,
            luts: None,
            bytes_before: bytes,
            bytes_after: bytes,
            mse: None,
            snr_db: None,
            optimality_gap: None,
        }
    }

    /// The number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }
}
