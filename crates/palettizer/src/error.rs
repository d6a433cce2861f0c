//! One error over all formats.

use crate::{coreml, runtime, safetensors};
use palettizer_pipeline::FormatError;

/// What can go wrong: with any model, or with one of a format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// With any model.
    #[error(transparent)]
    Pipeline(palettizer_pipeline::Error),
    /// With a Core ML model.
    #[error(transparent)]
    CoreMl(coreml::Error),
    /// With a checkpoint.
    #[error(transparent)]
    Checkpoint(safetensors::Error),
    /// With a Core AI program: what whoever reads them says.
    #[error("{0}")]
    CoreAi(String),
    /// When a program is run.
    #[error(transparent)]
    Runtime(runtime::Error),
    /// With a file of values.
    #[error(transparent)]
    Values(#[from] crate::values::ValuesError),
}

impl From<palettizer_pipeline::Error> for Error {
    fn from(error: palettizer_pipeline::Error) -> Self {
        Error::Pipeline(error)
    }
}

impl From<coreml::Error> for Error {
    fn from(error: coreml::Error) -> Self {
        error.common().map_or_else(Error::CoreMl, Error::Pipeline)
    }
}

impl From<safetensors::Error> for Error {
    fn from(error: safetensors::Error) -> Self {
        error
            .common()
            .map_or_else(Error::Checkpoint, Error::Pipeline)
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Self {
        match error {
            runtime::Error::Model(error) => error.into(),
            runtime::Error::Stopped => Error::Pipeline(palettizer_pipeline::Error::Stopped),
            other => Error::Runtime(other),
        }
    }
}
