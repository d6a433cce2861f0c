//! What can be wrong with files of values.

use std::path::PathBuf;

/// What can be wrong with a file of values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValuesError {
    /// The file is of no kind that is known, by its name.
    #[error("{}: expected a name that ends in .npz, .npy, .safetensors, .png, .jpg or .jpeg{}", path.display(), if *folders { ", or a folder of such files" } else { "" })]
    Kind {
        /// The file.
        path: PathBuf,
        /// Whether a folder would do.
        folders: bool,
    },
    /// The file cannot be read, or not written as it is asked.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An array does not fit the input that it is named for.
    #[error("{}: \"{name}\" is of {found}; the model takes {expected}, or several of them along one more axis in front", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The input.
        name: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// An array belongs to no input, or an input has no array.
    #[error("{}: {what}; the model's inputs are: {}", path.display(), known.join(", "))]
    Names {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// The inputs.
        known: Vec<String>,
    },
}
