//! What is wrong with a request: which field, what was found, what it may be.

use thiserror::Error;

/// A field of a request that cannot be what it is. Flags, files and bindings write its name in their own manner.
///
/// ```
/// use palettizer_palette::{Mode, Nbits, PaletteSpec};
///
/// let error = PaletteSpec::new(Mode::Uniform(Nbits::B4)).with_cluster_dim(2).build().unwrap_err();
/// assert_eq!(error.field, "cluster_dim");
/// assert_eq!(
///     error.to_string(),
///     "cluster_dim is 2 with mode uniform; expected 1, or mode kmeans or unique"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} is {found}; expected {allowed}")]
#[non_exhaustive]
pub struct SpecError {
    /// The field's name, as users write it.
    pub field: &'static str,
    /// What it was, and with what.
    pub found: String,
    /// What it may be.
    pub allowed: String,
}

impl SpecError {
    /// A field that is `found` and should be `allowed`.
    pub fn new(field: &'static str, found: impl ToString, allowed: impl Into<String>) -> Self {
        SpecError {
            field,
            found: found.to_string(),
            allowed: allowed.into(),
        }
    }
}
