//! Whether an output can go where the user wants it, found out before any work.

use crate::Error;
use crate::package::{DATA, MANIFEST};
use std::fs;
use std::path::{Path, PathBuf};

const EXTENSION: &str = "mlpackage";

/// Checks `out`; gives the path to replace (a link's target) and the folder that it is in.
pub(super) fn check(out: &Path, overwrite: bool) -> Result<(PathBuf, PathBuf), Error> {
    let refuse = |reason: String| {
        Err(Error::OutputPlace {
            path: out.to_owned(),
            reason,
        })
    };
    if out.extension().is_none_or(|found| found != EXTENSION) {
        return Err(Error::OutputName {
            path: out.to_owned(),
        });
    }
    let exists = fs::symlink_metadata(out).is_ok();
    if exists && !overwrite {
        return Err(Error::Exists {
            path: out.to_owned(),
        });
    }
    if out.is_dir() && !is_package(out) && !is_empty(out) {
        return refuse(
            "this is a folder with something other than a package in it; move it away".to_owned(),
        );
    }
    // The package that a link stands for is replaced, not the link.
    let target = out.canonicalize().unwrap_or_else(|_| out.to_owned());
    let parent = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() {
        return refuse(if parent.exists() {
            format!("{} is not a folder", parent.display())
        } else {
            format!(
                "the folder {} does not exist; create it first",
                parent.display()
            )
        });
    }
    let parent = parent
        .canonicalize()
        .map_err(|source| Error::io(parent, source))?;
    if let Some(around) = parent.ancestors().find(|folder| is_package(folder)) {
        return refuse(format!("it lies inside the package {}", around.display()));
    }
    let Some(name) = target.file_name() else {
        return Err(Error::OutputName {
            path: out.to_owned(),
        });
    };
    Ok((parent.join(name), parent))
}

fn is_package(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file() && folder.join(DATA).is_dir()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
