//! Whether an output can go where the user wants it, found out before any work.
//!
//! Only files are replaced by files, and only by those who ask for it; a link is followed, and what it leads to is
//! replaced. What is no file and no folder (a device, a pipe) stays, and so does a link that leads nowhere.

use super::folder::parent;
use crate::Error;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// What an output is, and what it may take the place of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A file, in the place of a file.
    File,
    /// A folder, in the place of a file, or of a folder to which this has no objection.
    Folder(fn(&Path) -> Option<String>),
}

impl Kind {
    /// Why what is there must stay.
    pub(super) fn objection(self, out: &Path, there: &Metadata) -> Option<String> {
        match self {
            _ if !there.is_file() && !there.is_dir() => Some(format!(
                "this is {}; only {} are replaced",
                strange(there),
                if matches!(self, Kind::File) {
                    "files"
                } else {
                    "files and folders"
                }
            )),
            Kind::File => there
                .is_dir()
                .then(|| "this is a folder, where a file should go".to_owned()),
            Kind::Folder(objection) => objection(out),
        }
    }
}

/// Checks `out`; gives the path to replace (a link's target) and the folder that it is in.
pub(super) fn check(out: &Path, overwrite: bool, kind: Kind) -> Result<(PathBuf, PathBuf), Error> {
    let refuse = |reason: String| Err(Error::output_place(out, reason));
    match fs::metadata(out) {
        Ok(there) => {
            // Where force would not help, it is not what to ask for.
            if let Some(reason) = kind.objection(out, &there) {
                return refuse(reason);
            }
            if !overwrite {
                return Err(Error::exists(out));
            }
        }
        Err(error) if fs::symlink_metadata(out).is_ok() => {
            return refuse(format!(
                "this is a link, and what it leads to cannot be replaced: {error}; remove the link, or give another name"
            ));
        }
        // no folder: found out below, with its name
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) => {}
        Err(error) => return refuse(error.to_string()),
    }
    // What a link stands for is replaced, not the link.
    let target = out.canonicalize().unwrap_or_else(|_| out.to_owned());
    let parent = parent(&target);
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

/// What something is that is neither a file nor a folder.
fn strange(there: &Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = there.file_type();
        let kinds = [
            (kind.is_fifo(), "a pipe (FIFO)"),
            (kind.is_socket(), "a socket"),
            (kind.is_block_device() || kind.is_char_device(), "a device"),
            (kind.is_symlink(), "a link"),
        ];
        if let Some((_, name)) = kinds.into_iter().find(|(is, _)| *is) {
            return name;
        }
    }
    let _ = there;
    "neither a file nor a folder"
}

/// Whether a folder is one document, as Core ML's packages and Core AI's programs are: no other output is written into it.
pub fn is_package(folder: &Path) -> bool {
    let package = folder.join("Manifest.json").is_file() && folder.join("Data").is_dir();
    package || folder.join("main.mlirb").is_file()
}
