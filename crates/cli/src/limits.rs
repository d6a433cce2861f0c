//! The flag for how much a file may unfold to.

use palettizer::{DEFAULT_MAX_EXPANSION, Limits};

/// What every command has that opens a model.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LimitFlags {
    /// Refuse a file whose weights unfold to more than N times its size (256 MiB are always allowed)
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_EXPANSION, help_heading = "Limits")]
    max_expansion: u64,
}

impl From<LimitFlags> for Limits {
    fn from(flags: LimitFlags) -> Self {
        Limits::default().with_max_expansion(flags.max_expansion)
    }
}
