//! The text of a configuration, of a file or not, as a tree.

use std::path::Path;

use palettizer_pipeline::Error;
use palettizer_pipeline::mapped_file::Input;
use serde_json::Value;

use super::{ConfigError, json, yaml};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// A YAML document as a tree, as [`from_yaml_str`](super::from_yaml_str) reads it: for settings that are not ours.
///
/// ```
/// let value = palettizer::config_file::yaml_value("a: [1, yes]")?;
/// assert_eq!(value, serde_json::json!({"a": [1, true]}));
/// # Ok::<(), palettizer::config_file::ConfigError>(())
/// ```
///
/// # Errors
/// [`ConfigError::Syntax`] with line and column, [`ConfigError::TooLarge`].
pub fn yaml_value(text: &str) -> Result<Value, ConfigError> {
    yaml::read(bounded(text)?)
}

/// The YAML document of a file, whatever its name ends in, as a tree.
///
/// # Errors
/// As [`yaml_value`], in [`ConfigError::InFile`], and what reading the file may give.
pub fn yaml_file(path: impl AsRef<Path>) -> Result<Value, ConfigError> {
    let path = path.as_ref();
    let value = file_text(path).and_then(|text| yaml_value(&text));
    value.map_err(|source| source.in_file(path))
}

pub(super) fn json_value(text: &str) -> Result<Value, ConfigError> {
    json::read(bounded(text)?)
}

/// What a file holds, by its extension.
pub(super) fn file_value(path: &Path) -> Result<Value, ConfigError> {
    // A pipe has no extension as a rule, and that is not what is wrong with it.
    let text = file_text(path);
    let extension = path.extension().unwrap_or_default();
    match extension.to_ascii_lowercase().to_str() {
        Some("yaml" | "yml") => yaml_value(&text?),
        Some("json") => json_value(&text?),
        _ => match text {
            Err(error @ ConfigError::NotAFile { .. }) => Err(error),
            _ => Err(ConfigError::Extension),
        },
    }
}

fn file_text(path: &Path) -> Result<String, ConfigError> {
    let bytes = Input::open(path).and_then(|input| input.read(MAX_BYTES));
    let bytes = bytes.map_err(|error| match error {
        Error::Io { source, .. } => ConfigError::Read(source),
        Error::TooLarge { limit, .. } => ConfigError::TooLarge {
            limit,
            what: "bytes",
        },
        Error::NotAFile { found, .. } => ConfigError::NotAFile { found },
        error => ConfigError::Read(std::io::Error::other(error)),
    })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ConfigError::Encoding("this is UTF-16".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ConfigError::Encoding(format!("not UTF-8 at byte {}", at + 1))
    })
}

/// The text without a byte order mark, if it is not too long.
fn bounded(text: &str) -> Result<&str, ConfigError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge {
            limit: MAX_BYTES,
            what: "bytes",
        });
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
