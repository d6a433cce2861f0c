//! What can be wrong with a configuration.

use std::path::{Path, PathBuf};

/// Why a configuration cannot be read: the key by its whole path, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// What is wrong in a file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<ConfigError>,
    },
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[source] std::io::Error),
    /// There is no regular file.
    #[error("expected a regular file here, found {found}")]
    NotAFile {
        /// What is there.
        found: &'static str,
    },
    /// The file is no text in UTF-8.
    #[error("{0}: a configuration is text in UTF-8: save it as such")]
    Encoding(String),
    /// The file's name does not say what it holds.
    #[error("a configuration is a .yaml, .yml or .json file")]
    Extension,
    /// The text is too long, nested too deeply, or has too many values once its aliases are replaced.
    #[error("the configuration has more than {limit} {what}")]
    TooLarge {
        /// The limit that it exceeds.
        limit: u64,
        /// What was counted.
        what: &'static str,
    },
    /// The text is not YAML or JSON.
    #[error("not valid {format}: {message}")]
    Syntax {
        /// YAML or JSON.
        format: &'static str,
        /// What the parser said, and where.
        message: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key}{}; expected one of {}", suggestion(*.nearest), .allowed.join(", "))]
    UnknownKey {
        /// The key's whole path.
        key: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
        /// The keys that exist there.
        allowed: Vec<&'static str>,
    },
    /// A value that cannot be, or is missing.
    #[error("{key} is {found}; expected {expected}")]
    Value {
        /// The key's whole path.
        key: String,
        /// What it is.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// Constants are not configured by their op type.
    #[error(
        "{key}: constants have no settings by op type; use global_config, or op_name_configs with a constant's name"
    )]
    ConstType {
        /// The key's whole path.
        key: String,
    },
}

impl ConfigError {
    pub(super) fn in_file(self, path: &Path) -> Self {
        ConfigError::InFile {
            path: path.to_owned(),
            source: Box::new(self),
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!(" (did you mean {key}?)"))
}
