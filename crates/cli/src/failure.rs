//! Why a command ends when it does not succeed.

use palettizer::{Error, PipelineError, safetensors};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The flags contradict each other: exit code 2.
    Usage(String),
    /// The input is bad or the work failed: exit code 1.
    Work(String),
    /// `--strict` and a skip that was not asked for, or a comparison below its minimum: exit code 3.
    Strict(String),
}

impl Failure {
    /// A failure of the work, with what it was about.
    pub(crate) fn about(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Failure::Work(format!("{what}: {error}"))
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let text = error.to_string();
        match error {
            Error::Pipeline(PipelineError::Strict { .. }) => Failure::Strict(text),
            Error::Checkpoint(safetensors::Error::Unsuited { .. }) => Failure::Usage(text),
            _ => Failure::Work(text),
        }
    }
}
