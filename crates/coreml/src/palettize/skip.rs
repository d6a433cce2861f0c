//! Why a weight is left alone.

use palettizer_palette::Refusal;

/// Why a weight is left alone; its text stands in the report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Skip {
    /// The configuration says so.
    #[error("the configuration skips it")]
    Null,
    /// The preset says so.
    #[error("{0}")]
    Preset(&'static str),
    /// The configuration says nothing.
    #[error("no configuration applies to it")]
    Unset,
    /// A constexpr op makes it already.
    #[error("already compressed ({op_type})")]
    AlreadyCompressed {
        /// The op's type.
        op_type: String,
    },
    /// It is no matrix: a bias, say. Core ML takes no palettized constant of one dimension.
    #[error("one-dimensional")]
    OneDimensional,
    /// It is what a branch or the body of a loop gives: a value in their flow, not a weight.
    #[error("it is no weight: it is an output of a block in a loop or a branch")]
    LeavesInnerBlock,
    /// Nothing uses it.
    #[error("no op uses it")]
    Unused,
    /// It is a value in the flow of a loop or of a list, not a weight.
    #[error("it is no weight: it feeds {op_type}")]
    NoWeight {
        /// The type of the op that takes it.
        op_type: String,
    },
    /// It cannot be palettized as asked.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Skip {
    /// Whether the weight was to be palettized and could not be: what `--strict` objects to. A constant
    /// that is no palettizable weight, and one that is compressed already, are no failures.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Skip::Refused(_))
    }
}
