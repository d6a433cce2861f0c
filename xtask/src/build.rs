//! Commands, and how cargo builds what they need.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command to its end; an error says what was being done.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(error) => Err(format!("{what} cannot start: {error}")),
    }
}

/// A cargo command on the workspace.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(args);
    command
}

/// Where cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root.join(target)
}

/// How the binary and the wheel are built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// As `cargo test` builds: nothing is compiled twice, and overflow is a panic.
    Dev,
    /// As users build: what is measured.
    Release,
}

impl Profile {
    /// The name that cargo and maturin know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Dev => "dev",
            Profile::Release => "release",
        }
    }

    /// The folder that cargo builds in.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }
}
