//! Why no palette is found in a dense weight.

use thiserror::Error;

use crate::decode::DenseError;

/// Why a dense weight is not what its tables can make.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RecoverError {
    /// Tables, scale and weight that do not fit together.
    #[error(transparent)]
    Parts(#[from] DenseError),
    /// A weight without elements.
    #[error("the shape {shape:?} holds no element")]
    Empty {
        /// The weight's shape.
        shape: Vec<usize>,
    },
    /// Tables of a size for which there is no index type.
    #[error(
        "tables of {found} entries: expected 2, 4, 8, 16, 64 or 256, for which Core ML has index types"
    )]
    Entries {
        /// Entries of one table.
        found: usize,
    },
    /// Vectors that do not come out even.
    #[error("entries of {dim} elements do not divide the {channels} channels of axis {axis}")]
    Vectors {
        /// Length of the axis.
        channels: usize,
        /// The axis vectors lie along.
        axis: usize,
        /// Elements of an entry.
        dim: usize,
    },
    /// A value (or a vector) that its table does not have.
    #[error(
        "{} at {at:?} is none of the {entries} entries of its table (number {table}): was the weight changed after it \
         was palettized?",
        text(.values)
    )]
    Value {
        /// The value, or the vector's.
        values: Vec<f32>,
        /// Where in the weight its first element is.
        at: Vec<usize>,
        /// Which table, in row-major order.
        table: usize,
        /// Entries of the table.
        entries: usize,
    },
}

fn text(values: &[f32]) -> String {
    match values {
        [one] => one.to_string(),
        vector => format!("{vector:?}"),
    }
}
