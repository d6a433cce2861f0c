//! Putting what was built in its place.
//!
//! A name that nothing has is taken by one renaming, which fails if the name was taken meanwhile. A file takes the place
//! of a file by one renaming. Else (a folder cannot be renamed over another) the two names are exchanged at once, where
//! the system can; where it cannot, the old output is moved away first, and back if the second renaming fails. A run that
//! is killed between the two leaves nothing at the place; the next one puts the old output back (see `folder`).

use super::folder::{Folder, parent};
use super::{disk, place::Kind};
use crate::Error;
use std::fs;
use std::io;
use std::path::Path;

/// Puts what is built in `folder` at `out`, which must be synced. It takes after what it replaces: the owner, as far as
/// this user may, and the permissions.
pub(super) fn put(folder: &Folder, out: &Path, overwrite: bool, kind: Kind) -> Result<(), Error> {
    let built = folder.new_output();
    match fs::symlink_metadata(out) {
        Ok(there) if overwrite => {
            if let Some(reason) = kind.objection(out, &there) {
                return Err(refuse(out, reason));
            }
            disk::take_after(&built, &there);
            replace(
                folder,
                &built,
                out,
                there.is_file() && matches!(kind, Kind::File),
            )?;
        }
        _ => new(&built, out)?,
    }
    // The output is in place; that its name might not survive a power cut is no reason to fail.
    drop(disk::sync_folder(parent(out)));
    Ok(())
}

fn new(built: &Path, out: &Path) -> Result<(), Error> {
    disk::rename_new(built, out).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists {
            path: out.to_owned(),
        },
        _ => refuse(out, source.to_string()),
    })
}

fn replace(folder: &Folder, built: &Path, out: &Path, files: bool) -> Result<(), Error> {
    let at_once = match files {
        true => disk::rename(built, out),
        false => disk::exchange(built, out),
    };
    // Whatever the fault is, if it is not that the system cannot do this at once, the next step finds it too.
    at_once.or_else(|_| by_two_renamings(folder, built, out))
}

fn by_two_renamings(folder: &Folder, built: &Path, out: &Path) -> Result<(), Error> {
    let old = folder.old_output(out);
    let away = |source| refuse(out, format!("the old one cannot be moved away: {source}"));
    disk::create_folders(parent(&old)).map_err(away)?;
    disk::rename(out, &old).map_err(away)?;
    disk::rename_new(built, out).map_err(|source| {
        refuse(
            out,
            match disk::rename_new(&old, out) {
                Ok(()) => source.to_string(),
                Err(second) => format!(
                    "{source}; the old one could not be moved back ({second}) and is now at {}",
                    old.display()
                ),
            },
        )
    })
}

fn refuse(out: &Path, reason: String) -> Error {
    Error::OutputPlace {
        path: out.to_owned(),
        reason,
    }
}
