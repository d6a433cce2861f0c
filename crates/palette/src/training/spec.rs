//! What is asked of differentiable k-means for one weight.

use std::str::FromStr;

use palettizer_kernels::SoftOptions;

use crate::spec::names;
use crate::{Granularity, LutDtype, Mode, Nbits, PaletteSpec, SpecError};

/// The request for one weight. The defaults are those of coremltools 9.0, with 4 bits, but for three that have a unit of the weight
/// there: where they are `None`, they are found by the weight itself.
///
/// One list of fields, though a long one: callers name the few that they change, and take the rest from the default.
///
/// It has many fields because each is an option of its own in the configurations of PyTorch modules.
///
/// ```
/// use palettizer_palette::{DkmSpec, Nbits};
///
/// let spec = DkmSpec { nbits: Nbits::B2, group_size: Some(16), ..DkmSpec::default() };
/// assert!(spec.validate().is_ok());
/// assert_eq!(DkmSpec { temperature: Some(0.0), ..spec }.validate().unwrap_err().field, "temperature");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DkmSpec {
    /// Width of an index: there are 2^nbits centroids.
    pub nbits: Nbits,
    /// Weights for one index: vectors of so many consecutive channels.
    pub cluster_dim: usize,
    /// Channels that share a table; `None` for one table.
    pub group_size: Option<usize>,
    /// Most soft k-means steps in a forward.
    pub iterations: usize,
    /// τ of the softmax over −distance²/τ. `None`: half of the mean squared error of the k-means that a group starts from.
    pub temperature: Option<f64>,
    /// Stop when the sum of the least squared distances changes by this or less.
    pub epsilon: f64,
    /// The least attention of a weight to a centroid. `None`: 1e-9.
    pub floor: Option<f64>,
    /// What the squared distance to the first centroid is lowered by. Zero keeps weights that are not zero off a centroid that is
    /// held there. `None`: nothing to speak of.
    pub prune_threshold: Option<f64>,
    /// Whether the first centroid, the one nearest to zero at first, is held at zero.
    pub enforce_zero: bool,
    /// How attention comes about.
    pub mode: DkmMode,
    /// What the entries of the tables are rounded to, in training too.
    pub lut: DkmLut,
    /// Whether each output channel is scaled, and by what.
    pub scale: Option<ScaleScheme>,
    /// The part of the groups that is trained, at least one group. The others are held at their first centroids.
    pub enabled: f64,
    /// The part of the centroids that may be equal before they are moved apart.
    pub cluster_tolerance: f64,
    /// How many times as many starts as usual the k-means of vectors makes for the first centroids.
    pub starts: u32,
    /// Where the random numbers of that start.
    pub seed: u64,
    /// Whether the gradient is that of a fixed point: see `palettizer_kernels::SoftOptions`.
    pub implicit: bool,
}

impl Default for DkmSpec {
    fn default() -> Self {
        let kernel = SoftOptions::<f32>::default();
        DkmSpec {
            nbits: Nbits::B4,
            cluster_dim: 1,
            group_size: None,
            iterations: kernel.iterations,
            temperature: None,
            epsilon: kernel.epsilon,
            floor: None,
            prune_threshold: None,
            enforce_zero: kernel.enforce_zero,
            mode: DkmMode::Dkm,
            lut: DkmLut::Weight,
            scale: None,
            enabled: 1.0,
            cluster_tolerance: 0.0,
            starts: 1,
            seed: 0,
            implicit: kernel.implicit,
        }
    }
}

names! {
    /// How a weight's attention to the centroids comes about.
    DkmMode as "mode" {
        /// A softmax over −distance²/τ
        Dkm = "dkm",
        /// The same with Gumbel noise
        Gsm = "gsm",
        /// All to the nearest
        Hard = "hard",
        /// The nearest, with the gradient passed to the weight as it is
        Ste = "ste",
    }
}

/// What the entries of a table are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DkmLut {
    /// The weight's own dtype, at the end only.
    #[default]
    Weight,
    /// Numbers of `fp16`. Like the next, of `fp32` and `fp64` weights: those of 16 bits keep their own dtype.
    F16,
    /// Numbers of `bf16`.
    Bf16,
    /// Symmetric `int8` with a scale for each group.
    Int8,
    /// `uint8` with zero point 127 and a scale for each group.
    Uint8,
}

impl FromStr for DkmLut {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "f16" => Ok(DkmLut::F16),
            "bf16" => Ok(DkmLut::Bf16),
            "int8" => Ok(DkmLut::Int8),
            "uint8" => Ok(DkmLut::Uint8),
            _ => Err(SpecError::new(
                "lut_dtype",
                text,
                "f16, bf16, int8 or uint8",
            )),
        }
    }
}

names! {
    /// What an output channel is divided by.
    ScaleScheme as "scale_scheme" {
        /// Half of the range of its values
        MinMax = "min_max",
        /// Its largest absolute value
        Abs = "abs",
    }
}

impl DkmSpec {
    /// Checks the fields.
    ///
    /// # Errors
    /// [`SpecError`] naming the field, what it was and what it may be.
    pub fn validate(&self) -> Result<(), SpecError> {
        let not_negative = |field, value: f64| match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(SpecError::new(field, value, "a finite number from 0 on")),
        };
        if let Some(temperature) = self.temperature
            && !(temperature > 0.0 && temperature.is_finite())
        {
            return Err(SpecError::new(
                "temperature",
                temperature,
                "a finite number above 0, or none",
            ));
        }
        not_negative("epsilon", self.epsilon)?;
        not_negative("prune_threshold", self.prune_threshold.unwrap_or(0.0))?;
        not_negative("cluster_tolerance", self.cluster_tolerance)?;
        if let Some(floor) = self.floor
            && !(0.0..1.0).contains(&floor)
        {
            return Err(SpecError::new("floor", floor, "from 0 on and below 1"));
        }
        if !(self.enabled > 0.0 && self.enabled <= 1.0) {
            return Err(SpecError::new(
                "enabled",
                self.enabled,
                "above 0 and at most 1",
            ));
        }
        if self.iterations == 0 {
            return Err(SpecError::new("iterations", 0, "1 or more"));
        }
        if self.group_size == Some(0) {
            return Err(SpecError::new(
                "group_size",
                0,
                "1 or more, or none for one table",
            ));
        }
        self.palette_spec().validate()
    }

    /// The same as a request for a finished palette.
    pub(crate) fn palette_spec(&self) -> PaletteSpec {
        let granularity = match self.group_size {
            None => Granularity::PerTensor,
            Some(group_size) => Granularity::PerGroupedChannel {
                group_size,
                channel_axis: Some(0),
            },
        };
        let lut_dtype = match self.lut {
            DkmLut::Int8 => LutDtype::Int8,
            DkmLut::Uint8 => LutDtype::Uint8,
            DkmLut::Weight | DkmLut::F16 | DkmLut::Bf16 => LutDtype::Float,
        };
        PaletteSpec::new(Mode::Kmeans(self.nbits))
            .with_granularity(granularity)
            .with_cluster_dim(self.cluster_dim)
            .with_lut_dtype(lut_dtype)
            .with_per_channel_scale(self.scale.is_some())
            // As for palettes made after training: what coremltools converts, and what programs of fp16 compute.
            .with_fold_scale(self.cluster_dim == 1)
            .with_half_scales(true)
            .with_seed(self.seed)
    }
}
