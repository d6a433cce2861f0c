//! The Python package: built as `pip` builds it, and unpacked where only the tests see it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{Profile, run, target};
use crate::python::pip;

/// The package, ready for use.
pub(crate) struct Installed {
    /// The wheel.
    pub(crate) wheel: PathBuf,
    /// What to put on `PYTHONPATH`.
    pub(crate) folder: PathBuf,
}

/// Builds the wheel with the environment's maturin, and unpacks it into cargo's folder: the environment itself is
/// shared by all checkouts and must not have one checkout's package in it.
pub(crate) fn install(root: &Path, python: &Path, profile: Profile) -> Result<Installed, String> {
    let target = target(root).join("python");
    let (wheels, folder) = (target.join("wheels"), target.join("packages"));
    for old in [&wheels, &folder] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|error| format!("{}: {error}", old.display()))?;
        }
    }
    let mut build = pip(python);
    build
        .current_dir(root)
        .args(["wheel", "--quiet", "--no-deps"]);
    // maturin is a program beside the environment's Python
    if let (Some(bin), Some(path)) = (python.parent(), std::env::var_os("PATH")) {
        let path = std::env::join_paths(
            [bin.to_owned()]
                .into_iter()
                .chain(std::env::split_paths(&path)),
        );
        build.env("PATH", path.map_err(|error| format!("PATH: {error}"))?);
    }
    build
        .arg("--config-settings")
        .arg(format!("build-args=--profile {}", profile.name()))
        .args(["--no-build-isolation", "--wheel-dir"])
        .arg(&wheels)
        .arg(".");
    run(&mut build, "pip wheel of the package")?;
    let found = fs::read_dir(&wheels).map_err(|error| format!("{}: {error}", wheels.display()))?;
    let wheel = found
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| format!("pip wheel left no wheel in {}", wheels.display()))?;
    let mut unpack = pip(python);
    unpack.args(["install", "--quiet", "--no-deps", "--no-index", "--target"]);
    run(unpack.arg(&folder).arg(&wheel), "pip install of the wheel")?;
    Ok(Installed { wheel, folder })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    /// Packages with their features, as cargo resolves them for `arguments`.
    fn resolved(arguments: &[&str]) -> BTreeSet<String> {
        let mut tree = Command::new(env!("CARGO"));
        tree.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .args(["tree", "--offline", "--locked", "--prefix", "none"])
            .args(["--format", "{p}|{f}"])
            .args(arguments);
        let said = tree.output().unwrap();
        let lines = String::from_utf8(said.stdout).unwrap();
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        lines
            .lines()
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .collect()
    }

    /// A feature that only a development dependency asks for would have everything above it built twice.
    #[test]
    fn builds_nothing_that_the_tests_have_built() {
        let tests = resolved(&["--workspace"]);
        let wheel = resolved(&["--package", "palettizer-python", "--edges", "no-dev"]);
        let again: Vec<_> = wheel.difference(&tests).collect();
        assert!(wheel.len() > 50 && again.is_empty(), "{again:?}");
    }
}
