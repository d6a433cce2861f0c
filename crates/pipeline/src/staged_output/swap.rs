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
                return Err(Error::output_place(out, reason));
            }
            disk::take_after(&built, &there);
            let at_once = match there.is_file() && matches!(kind, Kind::File) {
                true => disk::rename(&built, out),
                false => disk::exchange(&built, out),
            };
            // Whatever the fault is, if it is not that the system cannot do this at once, the next step finds it too.
            at_once.or_else(|_| by_two_renamings(folder, &built, out))?;
        }
        _ => new(&built, out)?,
    }
    // The output is in place; that its name might not survive a power cut is no reason to fail.
    drop(disk::sync_folder(parent(out)));
    Ok(())
}

fn new(built: &Path, out: &Path) -> Result<(), Error> {
    disk::rename_new(built, out).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::exists(out),
        _ => Error::output_place(out, source),
    })
}

fn by_two_renamings(folder: &Folder, built: &Path, out: &Path) -> Result<(), Error> {
    let old = folder.old_output(out);
    let away = |source: io::Error| {
        Error::output_place(out, format!("the old one cannot be moved away: {source}"))
    };
    disk::create_folders(parent(&old)).map_err(away)?;
    disk::rename(out, &old).map_err(away)?;
    disk::rename_new(built, out).map_err(|source| {
        let reason = match disk::rename_new(&old, out) {
            Ok(()) => source.to_string(),
            Err(second) => format!(
                "{source}; the old one could not be moved back ({second}) and is now at {}",
                old.display()
            ),
        };
        Error::output_place(out, reason)
    })
}
