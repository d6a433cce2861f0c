//! What can be wrong with a compressed form.

use thiserror::Error;

use super::MAX_ELEMENTS;

/// Inputs of a compressed form that contradict each other.
///
/// ```
/// use palettizer_palette::decode::{self, DenseError};
///
/// let error = decode::lut_to_dense(&[0, 3], &[2], &[1.0, 2.0], &[1, 2, 1], None).unwrap_err();
/// assert_eq!(error, DenseError::Index { index: 3, entries: 2 });
/// assert_eq!(error.to_string(), "index 3 in a table of 2 entries");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DenseError {
    /// More elements than any real weight has.
    #[error("shape {shape:?} has more than {MAX_ELEMENTS} elements")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
    },
    /// The output does not fit in memory.
    #[error("no memory for {elements} elements")]
    OutOfMemory {
        /// Elements of the output.
        elements: usize,
    },
    /// A tensor of the wrong rank.
    #[error("{what} has rank {found}, expected {expected}")]
    Rank {
        /// Which input.
        what: &'static str,
        /// Rank wanted.
        expected: usize,
        /// Rank found.
        found: usize,
    },
    /// Data of a length that its shape does not have.
    #[error("{what}: {found} elements, expected {expected}")]
    Length {
        /// Which input.
        what: &'static str,
        /// Elements wanted.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// Indices of another weight.
    #[error("the indices stand for a weight of shape {found:?}, expected {expected:?}")]
    Shape {
        /// Shape of the weight.
        expected: Vec<usize>,
        /// What indices and tables come to.
        found: Vec<usize>,
    },
    /// An axis that cannot be cut into that many blocks.
    #[error("{what} has {blocks} blocks on axis {axis}, which do not divide its {dim} elements")]
    Blocks {
        /// Which input.
        what: &'static str,
        /// The axis.
        axis: usize,
        /// Length of the axis.
        dim: usize,
        /// Blocks asked for.
        blocks: usize,
    },
    /// A table whose number of entries is no power of two from 2 to 256.
    #[error("a table has {found} entries; allowed: 2, 4, 8, … 256")]
    Entries {
        /// Entries found.
        found: usize,
    },
    /// Vectors of no length, or without an axis.
    #[error("a table of vectors of length {length} and no vector axis")]
    Vector {
        /// Length of a vector.
        length: usize,
    },
    /// An axis that is not there.
    #[error("axis {axis} is out of range for rank {rank}")]
    Axis {
        /// The axis, as it was written.
        axis: i64,
        /// The rank.
        rank: usize,
    },
    /// An index outside its table.
    #[error("index {index} in a table of {entries} entries")]
    Index {
        /// The index.
        index: u8,
        /// Entries of the table.
        entries: usize,
    },
    /// A mask that keeps another number of values than there are.
    #[error("the mask keeps {kept} values, found {found}")]
    Kept {
        /// Bits set in the mask.
        kept: usize,
        /// Values given.
        found: usize,
    },
    /// A scale on integers, which only float weights can have.
    #[error("an integer weight has a scale or a quantized lookup table; only float weights can")]
    IntegerScale,
}
