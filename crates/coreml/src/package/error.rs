//! What can be wrong with a package, its manifest and the file of its model.

use std::path::{Path, PathBuf};

/// What can be wrong with a package, its manifest and the file of its model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// A folder is no package.
    #[error("{}: no Core ML package: {reason}", path.display())]
    NotAPackage {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what to give instead.
        reason: &'static str,
    },
    /// A package holds more files than any honest one, or folders nested deeper.
    #[error("{}: more than {limit} {what}: remove what does not belong to the package", path.display())]
    TooMany {
        /// The package.
        path: PathBuf,
        /// What there are too many of.
        what: &'static str,
        /// The largest number that is read.
        limit: usize,
    },
    /// The manifest is no JSON.
    #[error("{}: not valid JSON: {source}", path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A field of the manifest is missing or of the wrong kind.
    #[error("{}: `{field}` is {found}, expected {expected}", path.display())]
    ManifestField {
        /// The manifest.
        path: PathBuf,
        /// The field's path in the JSON.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// The manifest is of a version that we do not know.
    #[error("{}: package format version \"{found}\", expected 1.x.y: written by a newer tool?", path.display())]
    ManifestVersion {
        /// The manifest.
        path: PathBuf,
        /// The version in it.
        found: String,
    },
    /// A path in the package leads, or may lead, out of it.
    #[error("{}: path \"{found}\" {reason}: paths must stay inside the package", path.display())]
    UnsafePath {
        /// The manifest, or the package.
        path: PathBuf,
        /// The path in it.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The manifest lists an item that is not there.
    #[error("{}: the manifest lists \"{item}\", but there is no such file or folder in Data", path.display())]
    MissingItem {
        /// The package.
        path: PathBuf,
        /// The item's path.
        item: String,
    },
    /// The model is not valid protobuf.
    #[error("{}: not a Core ML model: {source}; give an .mlpackage, an .mlmodel or a .safetensors checkpoint", path.display())]
    Protobuf {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: prost::DecodeError,
    },
    /// The model has no type: the file is empty, or something else.
    #[error("{}: not a Core ML model: it names no model type; give an .mlpackage, an .mlmodel or a .safetensors checkpoint", path.display())]
    EmptyModel {
        /// The file.
        path: PathBuf,
    },
    /// The model is neither an ML Program nor a pipeline that holds one.
    #[error("{}: this is a {kind} model, not an ML Program: {advice}", path.display())]
    NotAnMlProgram {
        /// The file.
        path: PathBuf,
        /// The type's name in the specification.
        kind: String,
        /// What the user can do.
        advice: &'static str,
    },
    /// The output does not have a package's name.
    #[error("{}: the output is a package: expected a name that ends in .mlpackage", path.display())]
    OutputName {
        /// The output.
        path: PathBuf,
    },
    /// The program names a weight file in a way that leads nowhere.
    #[error(
        "weight file \"{found}\" {reason}: expected a path such as \"@model_path/weights/weight.bin\""
    )]
    WeightFileName {
        /// The name.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program names a weight file that is not there.
    #[error("{}: the program refers to weight file \"{name}\", which is missing", path.display())]
    MissingWeightFile {
        /// The package.
        path: PathBuf,
        /// The file's name in the program.
        name: String,
    },
}

impl PackageError {
    pub(super) fn missing(path: &Path, name: &str) -> Self {
        PackageError::MissingWeightFile {
            path: path.to_owned(),
            name: name.to_owned(),
        }
    }
}
