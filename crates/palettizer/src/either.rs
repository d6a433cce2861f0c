//! A model of either kind, found out by what is at a path.

use crate::{Checkpoint, CheckpointError, Limits, Model};
use std::path::Path;

/// A Core ML model, or a checkpoint.
///
/// ```
/// let error = palettizer::Either::open("missing.safetensors").unwrap_err();
/// assert!(matches!(error, palettizer::CheckpointError::Model(_)));
/// ```
#[derive(Clone, Debug)]
pub enum Either {
    /// An `.mlpackage` folder or an `.mlmodel` file.
    Model(Box<Model>),
    /// A `.safetensors` file, or a folder of shards with its index.
    Checkpoint(Checkpoint),
}

impl Either {
    /// Opens what is at the path: a checkpoint if a name there says so, or else a Core ML model.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and as [`Model::open`] in [`CheckpointError::Model`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::open_with(path, Limits::default())
    }

    /// As [`open`](Self::open), within other limits for what is there may unfold to.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        // what it is can be told only if it is there
        palettizer_coreml::save::recover(path);
        if palettizer_torch::Checkpoint::is_at(path) {
            Ok(Either::Checkpoint(Checkpoint::open_with(path, limits)?))
        } else {
            Ok(Either::Model(Box::new(Model::open_with(path, limits)?)))
        }
    }

    /// Bytes of the program and its weight files, or of all files of tensors, as the reports of all commands count them.
    pub fn stored_len(&self) -> u64 {
        match self {
            Either::Model(model) => model.stored_len(),
            Either::Checkpoint(checkpoint) => checkpoint.stored_len(),
        }
    }
}
