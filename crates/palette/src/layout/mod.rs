//! Where the tables lie: everything that follows from the shape and the spec alone, before any value is read.
//!
//! Groups are runs of consecutive channels along one axis; a vector is `cluster_dim` consecutive channels at the
//! same other position. Both live on the *channel axis*: the spec's own, or else the consumer's output axis.

pub(crate) mod groups;

use std::ops::Range;

use crate::tensor::from_front;
use crate::{Dtype, Granularity, LutDtype, Nbits, PaletteSpec, Refusal};

/// The shapes of a palettized weight, known before it is palettized.
///
/// ```
/// use palettizer_palette::{Granularity, Mode, Nbits, PaletteSpec, layout};
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4))
///     .with_granularity(Granularity::PerGroupedChannel { group_size: 8, channel_axis: None })
///     .with_cluster_dim(2);
/// let layout = layout(&[32, 16, 3, 3], Some(0), &spec)?;
/// assert_eq!(layout.groups, 4);
/// assert_eq!(layout.index_shape, [16, 16, 3, 3]);
/// assert_eq!(layout.lut_shape(Nbits::B4), [4, 1, 1, 1, 16, 2]);
/// assert_eq!(layout.vector_axis, Some(0));
/// # Ok::<(), palettizer_palette::Refusal>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The weight's shape.
    pub shape: Vec<usize>,
    /// The axis of the output channels, from the front; the per-channel scale lies along it.
    pub output_axis: Option<usize>,
    /// The axis the groups lie along; `None` with one table for the tensor.
    pub group_axis: Option<usize>,
    /// Number of groups: of tables, unless scales are folded into them.
    pub groups: usize,
    /// Whether the per-channel scale is folded into the scales of integer tables: each output channel has tables of its
    /// own, with the integers of its group.
    pub folded: bool,
    /// The axis the vectors lie along; `None` with scalars.
    pub vector_axis: Option<usize>,
    /// Elements for one index.
    pub cluster_dim: usize,
    /// Shape of the index tensor: the weight's, with the vector axis divided by `cluster_dim`.
    pub index_shape: Vec<usize>,
}

impl Layout {
    /// Shape of all tables together: the groups on their axis, ones on the others, 2^n entries, `cluster_dim`. With a
    /// folded scale, the output channels on theirs.
    pub fn lut_shape(&self, nbits: Nbits) -> Vec<usize> {
        let mut shape = self.tables();
        shape.extend([nbits.entries(), self.cluster_dim]);
        shape
    }

    /// Shape of one value for each table, of the tables' rank: the scale of an integer table.
    pub fn lut_scale_shape(&self) -> Vec<usize> {
        let mut shape = self.tables();
        shape.extend([1, 1]);
        shape
    }

    /// Shape of the per-channel scale: the output channels on their axis and ones elsewhere.
    /// `None` when the output axis is unknown, or the scale folded into the tables.
    pub fn scale_shape(&self) -> Option<Vec<usize>> {
        let axis = self.output_axis.filter(|_| !self.folded)?;
        let mut shape = vec![1; self.shape.len()];
        *shape.get_mut(axis)? = *self.shape.get(axis)?;
        Some(shape)
    }

    /// How many tables lie along each axis.
    pub(crate) fn tables(&self) -> Vec<usize> {
        let mut tables = vec![1; self.shape.len()];
        let mut set = |axis: Option<usize>, count: usize| {
            if let Some(tables) = axis.and_then(|axis| tables.get_mut(axis)) {
                *tables = count;
            }
        };
        set(self.group_axis, self.groups);
        if self.folded {
            let channels = self.output_axis.and_then(|axis| self.shape.get(axis));
            set(self.output_axis, channels.copied().unwrap_or(1));
        }
        tables
    }

    /// The output channels that a group has elements of: its own if the groups lie along the output axis, else all.
    pub(crate) fn output_channels(&self, group: usize) -> Range<usize> {
        let channels = self.output_axis.map_or(1, |axis| self.shape[axis]);
        match self.group_axis == self.output_axis {
            true => {
                let share = channels / self.groups;
                group * share..(group + 1) * share
            }
            false => 0..channels,
        }
    }

    /// The group of a table, by its number in the file; with a folded scale, also for which of the group's output channels
    /// it is.
    pub(crate) fn place(&self, number: usize) -> (usize, usize) {
        let tables = self.tables();
        let along = |axis: usize| {
            let behind: usize = tables[axis + 1..].iter().product();
            number / behind % tables[axis]
        };
        let group = self
            .group_axis
            .map_or(0, |axis| along(axis) / (tables[axis] / self.groups));
        match self.output_axis.filter(|_| self.folded) {
            None => (group, 0),
            Some(axis) => (group, along(axis) - self.output_channels(group).start),
        }
    }
}

/// Decides the shapes, or why there can be none.
///
/// `output_axis` is the axis of the output channels as the weight's consumers see it; `None` when they disagree.
///
/// # Errors
/// [`Refusal::Spec`], [`Refusal::Scalar`], [`Refusal::Empty`], [`Refusal::ChannelAxisUnknown`],
/// [`Refusal::ChannelAxisOutOfRange`], [`Refusal::GroupSize`] or [`Refusal::ClusterDim`].
///
/// ```
/// use palettizer_palette::{Mode, Nbits, PaletteSpec, Refusal, layout};
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_cluster_dim(4);
/// assert!(layout(&[8, 6], Some(0), &spec).is_ok());
/// assert_eq!(
///     layout(&[8, 6], Some(1), &spec),
///     Err(Refusal::ClusterDim { channels: 6, axis: 1, cluster_dim: 4 })
/// );
/// ```
pub fn layout(
    shape: &[usize],
    output_axis: Option<usize>,
    spec: &PaletteSpec,
) -> Result<Layout, Refusal> {
    spec.validate()?;
    let rank = shape.len();
    if rank == 0 {
        return Err(Refusal::Scalar);
    }
    if shape.contains(&0) {
        return Err(Refusal::Empty {
            shape: shape.to_vec(),
        });
    }
    if let Some(axis) = output_axis.filter(|&axis| axis >= rank) {
        let axis = i64::try_from(axis).unwrap_or(i64::MAX);
        return Err(Refusal::ChannelAxisOutOfRange { axis, rank });
    }
    if spec.per_channel_scale() && output_axis.is_none() {
        return Err(unknown("per-channel scale"));
    }
    let (channel_axis, group_axis, groups) = groups(shape, output_axis, spec)?;
    let cluster_dim = spec.cluster_dim();
    let vector_axis = match cluster_dim {
        1 => None,
        _ => Some(channel_axis.ok_or_else(|| unknown("vector palettization"))?),
    };
    let mut index_shape = shape.to_vec();
    if let Some(axis) = vector_axis {
        let channels = shape[axis] / groups;
        if !channels.is_multiple_of(cluster_dim) {
            return Err(Refusal::ClusterDim {
                channels,
                axis,
                cluster_dim,
            });
        }
        index_shape[axis] /= cluster_dim;
    }
    Ok(Layout {
        shape: shape.to_vec(),
        output_axis,
        group_axis,
        groups,
        folded: spec.folds(),
        vector_axis,
        cluster_dim,
        index_shape,
    })
}

/// The channel axis, if one is known; the axis of the groups, if there are any, and how many there are.
fn groups(
    shape: &[usize],
    output_axis: Option<usize>,
    spec: &PaletteSpec,
) -> Result<(Option<usize>, Option<usize>, usize), Refusal> {
    let Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    } = spec.granularity()
    else {
        return Ok((output_axis, None, 1));
    };
    let rank = shape.len();
    let channel_axis = match channel_axis {
        None => output_axis,
        Some(axis) => {
            let front = from_front(axis, rank);
            Some(front.ok_or(Refusal::ChannelAxisOutOfRange { axis, rank })?)
        }
    };
    if group_size == 0 {
        return Ok((channel_axis, None, 1));
    }
    let axis = channel_axis.ok_or_else(|| unknown("per_grouped_channel"))?;
    let channels = shape[axis];
    match channels.is_multiple_of(group_size) {
        true => Ok((Some(axis), Some(axis), channels / group_size)),
        false => Err(Refusal::GroupSize {
            channels,
            axis,
            group_size,
        }),
    }
}

fn unknown(what: &'static str) -> Refusal {
    Refusal::ChannelAxisUnknown { what }
}

/// Checks what the spec asks of this kind of weight: the rest of what can be known before the values are read.
///
/// `masked` says whether the weight is pruned and its mask will be kept.
///
/// # Errors
/// [`Refusal::IntScale`] for a per-channel scale or an integer table of an integer weight,
/// [`Refusal::MaskedVector`] for vectors of a pruned one.
///
/// ```
/// use palettizer_palette::{Dtype, Mode, PaletteSpec, suits};
///
/// let spec = PaletteSpec::new(Mode::Unique).with_per_channel_scale(true);
/// assert!(suits(Dtype::F16, false, &spec).is_ok());
/// assert!(suits(Dtype::I8, false, &spec).is_err());
/// ```
pub fn suits(dtype: Dtype, masked: bool, spec: &PaletteSpec) -> Result<(), Refusal> {
    if !dtype.is_float() {
        if spec.per_channel_scale() {
            let what = "per-channel scale";
            return Err(Refusal::IntScale { what, dtype });
        }
        if spec.lut_dtype() != LutDtype::Float {
            let what = "an integer lookup table";
            return Err(Refusal::IntScale { what, dtype });
        }
    }
    if masked && spec.cluster_dim() > 1 {
        let cluster_dim = spec.cluster_dim();
        return Err(Refusal::MaskedVector { cluster_dim });
    }
    Ok(())
}
