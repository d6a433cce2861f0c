//! Why a command ends when it does not succeed.

use palettizer::{Error, PipelineError, coreml, safetensors};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The flags contradict each other: exit code 2.
    Usage(String),
    /// The input is bad or the work failed: exit code 1.
    Work(String),
    /// `--strict` and a skip that was not asked for: exit code 3.
    Strict(String),
}

impl Failure {
    /// A failure of the work, with what it was about.
    pub(crate) fn about(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Failure::Work(format!("{what}: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Pipeline(PipelineError::Strict { .. }) => Failure::Strict(error.to_string()),
            Error::Checkpoint(safetensors::Error::Unsuited { .. }) => {
                Failure::Usage(error.to_string())
            }
            _ => Failure::Work(error.to_string()),
        }
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        Error::from(error).into()
    }
}

impl From<coreml::Error> for Failure {
    fn from(error: coreml::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<safetensors::Error> for Failure {
    fn from(error: safetensors::Error) -> Self {
        Error::from(error).into()
    }
}
