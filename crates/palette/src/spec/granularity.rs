//! Which weights share a lookup table.

use super::names;

names! {
    /// Which weights share a lookup table, by name alone.
    ///
    /// ```
    /// use palettizer_palette::GranularityName;
    ///
    /// assert_eq!("per_tensor".parse(), Ok(GranularityName::PerTensor));
    /// ```
    GranularityName as "granularity" {
        /// One table for each weight
        PerTensor = "per_tensor",
        /// One table for each group of channels
        PerGroupedChannel = "per_grouped_channel",
    }
}

/// Which weights share a lookup table.
///
/// ```
/// use palettizer_palette::Granularity;
///
/// let rows = Granularity::PerGroupedChannel { group_size: 16, channel_axis: None };
/// assert_eq!(rows.name(), "per_grouped_channel");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// One table for the whole tensor.
    #[default]
    PerTensor,
    /// One table for every `group_size` consecutive channels.
    PerGroupedChannel {
        /// Channels that share a table, which must divide the number of channels; 0: all of them.
        group_size: usize,
        /// The axis, counted from the end when negative; `None`: the consumer's output axis.
        channel_axis: Option<i64>,
    },
}

impl Granularity {
    /// The name users write: `per_tensor` or `per_grouped_channel`.
    pub fn name(&self) -> &'static str {
        match self {
            Granularity::PerTensor => GranularityName::PerTensor.name(),
            Granularity::PerGroupedChannel { .. } => GranularityName::PerGroupedChannel.name(),
        }
    }
}
