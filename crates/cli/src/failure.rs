//! How a command ends when it does not succeed: what is said, and with which exit code.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use palettizer::{CheckpointError, visible_lines};

use crate::output::{self, Stream};

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

    /// Says what happened on stderr, and gives the exit code.
    pub(crate) fn report(self, subcommand: &str) -> i32 {
        match self {
            Failure::Usage(message) => {
                let message = visible_lines(&message);
                let mut root = crate::Cli::command();
                root.build();
                let error = match root.find_subcommand_mut(subcommand) {
                    Some(command) => command.error(ErrorKind::ArgumentConflict, message),
                    None => root.error(ErrorKind::ArgumentConflict, message),
                };
                // nothing can be said about a closed stderr
                let _ = error.print();
                2
            }
            Failure::Work(message) => {
                output::error(&message);
                1
            }
            Failure::Strict(message) => {
                output::error(&message);
                3
            }
        }
    }
}

impl From<palettizer::Error> for Failure {
    fn from(error: palettizer::Error) -> Self {
        match error {
            palettizer::Error::Strict { .. } => Failure::Strict(error.to_string()),
            _ => Failure::Work(error.to_string()),
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Model(error) => error.into(),
            CheckpointError::Unsuited { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Work(error.to_string()),
        }
    }
}

/// Prints to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    output::print(Stream::Out, text)
}
