//! Why a weight is left alone.

use thiserror::Error;

use crate::{Dtype, SpecError};

/// A reason to leave a weight as it is, written for the row of a table.
///
/// ```
/// use palettizer_palette::{Mode, Nbits, Granularity, PaletteSpec, Refusal};
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4))
///     .with_granularity(Granularity::PerGroupedChannel { group_size: 4, channel_axis: Some(0) });
/// let refusal = palettizer_palette::layout(&[10, 3], None, &spec).unwrap_err();
/// assert_eq!(refusal, Refusal::GroupSize { channels: 10, axis: 0, group_size: 4 });
/// assert_eq!(refusal.to_string(), "group_size 4 does not divide the 10 channels of axis 0");
/// ```
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// The spec itself cannot be.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// A weight without axes.
    #[error("a scalar has no axis for an index tensor")]
    Scalar,
    /// A weight without elements.
    #[error("the shape {shape:?} holds no element")]
    Empty {
        /// The weight's shape.
        shape: Vec<usize>,
    },
    /// The groups do not come out even.
    #[error("group_size {group_size} does not divide the {channels} channels of axis {axis}")]
    GroupSize {
        /// Length of the axis.
        channels: usize,
        /// The axis, from the front.
        axis: usize,
        /// Channels asked for in one group.
        group_size: usize,
    },
    /// The vectors do not come out even.
    #[error(
        "cluster_dim {cluster_dim} does not divide the {channels} channels of axis {axis} in one group"
    )]
    ClusterDim {
        /// Channels of one group (of the tensor, when there is one table).
        channels: usize,
        /// The axis, from the front.
        axis: usize,
        /// Length of a vector.
        cluster_dim: usize,
    },
    /// The consumers of the weight do not say which axis holds its output channels.
    #[error("{what} needs an output channel axis, and the consumers do not agree on one")]
    ChannelAxisUnknown {
        /// What needed it.
        what: &'static str,
    },
    /// An axis that the weight does not have.
    #[error("channel axis {axis} is out of range for a weight of rank {rank}")]
    ChannelAxisOutOfRange {
        /// The axis, as it was written.
        axis: i64,
        /// The weight's rank.
        rank: usize,
    },
    /// Unique mode on a weight with too many values.
    #[error("more than {limit} distinct values{}", if *.vectors { " (vectors)" } else { "" })]
    TooManyDistinct {
        /// The most a table holds.
        limit: usize,
        /// Whether vectors were counted.
        vectors: bool,
    },
    /// NaN or infinite values, which no mean can be taken of.
    #[error("{count} of {elements} values are NaN or infinite")]
    NonFinite {
        /// How many, in the first group that has any.
        count: usize,
        /// Elements of that group.
        elements: usize,
    },
    /// The caller's function failed or returned something unusable.
    #[error("the custom LUT function: {0}")]
    Custom(String),
    /// Vectors of a pruned weight.
    #[error(
        "cluster_dim {cluster_dim} cannot be combined with a pruned weight: a vector may be kept in part"
    )]
    MaskedVector {
        /// Length of a vector.
        cluster_dim: usize,
    },
    /// A bitmap of the wrong length.
    #[error("the mask of a weight of {elements} elements has {expected} bytes, found {found}")]
    MaskLength {
        /// Elements of the weight.
        elements: usize,
        /// Bytes wanted.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Sensitivities of another weight.
    #[error("a weight of {elements} elements needs as many sensitivities, found {found}")]
    SensitivityLength {
        /// Elements of the weight.
        elements: usize,
        /// Sensitivities given.
        found: usize,
    },
    /// Sensitivities that say nothing.
    #[error(
        "{count} of {elements} sensitivities are negative, NaN or infinite; expected finite numbers from zero on"
    )]
    Sensitivity {
        /// How many.
        count: usize,
        /// Elements of the weight.
        elements: usize,
    },
    /// Second moments of inputs that do not suit the weight, or what is asked of it.
    #[error("layer-wise fitting {0}")]
    Layerwise(String),
    /// Fewer vectors than centroids.
    #[error(
        "a group of {elements} elements is too small for {clusters} centroids of {cluster_dim}: take fewer bits or larger groups"
    )]
    TooFew {
        /// Elements of one group.
        elements: usize,
        /// Centroids asked for.
        clusters: usize,
        /// Length of a vector.
        cluster_dim: usize,
    },
    /// A slice of the wrong length.
    #[error("{what} must hold {expected} numbers, found {found}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Numbers wanted.
        expected: usize,
        /// Numbers given.
        found: usize,
    },
    /// [`Context::stop`](crate::Context::stop) was set.
    #[error("stopped on request")]
    Stopped,
    /// A scale on a weight that is itself made of integers.
    #[error("{what} needs a float weight, found {}", .dtype.name())]
    IntScale {
        /// What was asked for.
        what: &'static str,
        /// The weight's dtype.
        dtype: Dtype,
    },
}
