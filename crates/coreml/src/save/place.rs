//! Whether an output can go where the user wants it, found out before any work.

use crate::Error;
use crate::package::{DATA, MANIFEST};
use std::fs;
use std::path::{Path, PathBuf};

/// Checks `out`; gives the path to replace (a link's target) and the folder that it is in. `objection` says why what is
/// there must stay.
pub(super) fn check(
    out: &Path,
    overwrite: bool,
    objection: &dyn Fn(&Path) -> Option<String>,
) -> Result<(PathBuf, PathBuf), Error> {
    let refuse = |reason: String| {
        Err(Error::OutputPlace {
            path: out.to_owned(),
            reason,
        })
    };
    let exists = fs::symlink_metadata(out).is_ok();
    if exists && !overwrite {
        return Err(Error::Exists {
            path: out.to_owned(),
        });
    }
    if let Some(reason) = objection(out).filter(|_| exists) {
        return refuse(reason);
    }
    // What a link stands for is replaced, not the link.
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
        return refuse("this is no name for an output".to_owned());
    };
    Ok((parent.join(name), parent))
}

/// Why a package must not replace what is there.
pub(super) fn no_package(out: &Path) -> Option<String> {
    (out.is_dir() && !is_package(out) && !is_empty(out)).then(|| {
        "this is a folder with something other than a package in it; move it away".to_owned()
    })
}

fn is_package(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file() && folder.join(DATA).is_dir()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
