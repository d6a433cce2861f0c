//! What can go wrong: what was found, what was expected, what to do.

use palettizer_palette::{Refusal, SpecError};

/// What can go wrong with a [`DkmPalettizer`](super::DkmPalettizer).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DkmError {
    /// No weight has this name.
    #[error("no weight is called \"{name}\"; the palettizer was made with {known}")]
    UnknownWeight {
        /// The name.
        name: String,
        /// The names that there are, as a text.
        known: String,
    },
    /// Two weights have the same name.
    #[error(
        "two weights are called \"{name}\"; give each a name of its own, and a shared one once"
    )]
    Twice {
        /// The name.
        name: String,
    },
    /// The settings of a weight cannot be.
    #[error("weight \"{name}\": {source}")]
    Spec {
        /// The weight.
        name: String,
        /// The field, what it was, and what it may be.
        source: SpecError,
    },
    /// A slice of the wrong length.
    #[error(
        "weight \"{name}\" of shape {shape:?}: {what} must hold {expected} numbers, found {found}"
    )]
    Length {
        /// The weight.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Which slice.
        what: &'static str,
        /// Numbers wanted.
        expected: usize,
        /// Numbers given.
        found: usize,
    },
    /// NaN or infinite weights.
    #[error(
        "weight \"{name}\": {count} of {elements} values are NaN or infinite: training has diverged; take a smaller learning rate or clip the gradient"
    )]
    NonFinite {
        /// The weight.
        name: String,
        /// How many.
        count: usize,
        /// Elements of the weight.
        elements: usize,
    },
    /// A gradient was asked for, but the weight has had no forward.
    #[error(
        "weight \"{name}\": backward comes after forward, which has not been called since the weight is palettized"
    )]
    NoForward {
        /// The weight.
        name: String,
    },
    /// A gradient was asked for at other values than those of the forward.
    #[error(
        "weight \"{name}\": backward takes the values of the last forward, found others; update weights after all gradients are there"
    )]
    OtherValues {
        /// The weight.
        name: String,
    },
    /// A weight was not given where all are needed.
    #[error("weight \"{name}\" is missing: give all weights that the palettizer was made with")]
    Missing {
        /// The weight.
        name: String,
    },
    /// A saved state is one of other weights.
    #[error(
        "the state of weight \"{name}\": {what}; restore the state of a palettizer that was made with the same weights and settings"
    )]
    State {
        /// The weight.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// The centroids cannot be used.
    #[error("weight \"{name}\", its centroids: {source}")]
    Centroids {
        /// The weight.
        name: String,
        /// What is wrong with them.
        source: Refusal,
    },
}
