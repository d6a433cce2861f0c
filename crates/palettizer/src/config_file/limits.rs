//! How much a configuration may be. The parsers' own trees would let a few lines of nested YAML aliases fill the memory
//! and would drop all but the last of a repeated key; ours count values while they grow and refuse both.

use super::ConfigError;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;
/// Values in a document after its aliases are replaced.
pub(super) const MAX_VALUES: u64 = 500_000;
/// Mappings inside mappings; a configuration has three levels.
pub(super) const MAX_DEPTH: u64 = 32;
/// Bytes of keys and texts after aliases are replaced.
pub(super) const MAX_TEXT: u64 = 16 * MAX_BYTES;

/// The text without a byte order mark, if it is not too long.
pub(super) fn bounded(text: &str) -> Result<&str, ConfigError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge {
            limit: MAX_BYTES,
            what: "bytes",
        });
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
