//! An output on its way to its place: a folder beside it to build in, and the renaming.

use super::{place, registry, sync_folder};
use crate::Error;
use registry::Listed;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file or a folder that is built beside its place. Dropped before it is [put](Self::put) there, it leaves nothing
/// behind.
///
/// ```
/// use palettizer_coreml::save::Beside;
///
/// let folder = tempfile::tempdir()?;
/// let out = folder.path().join("answer.txt");
/// let beside = Beside::new(&out, false, &|_| None)?;
/// std::fs::write(beside.built(), "42")?;
/// assert!(!out.exists());
/// beside.put()?;
/// assert_eq!(std::fs::read_to_string(out)?, "42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Beside {
    out: PathBuf,
    overwrite: bool,
    // Dropped in this order: the folder must be gone before it is unlisted.
    folder: TempDir,
    listed: Listed,
}

impl Beside {
    /// Prepares to put something at `out`; `overwrite` lets it replace what is there, unless `objection` says why that
    /// must stay. Everything that would keep the output from being put there is found now, before any work.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::OutputPlace`] if there is no folder for it, the folder cannot be written to, or lies
    /// in a package; [`Error::DiskFull`].
    pub fn new(
        out: &Path,
        overwrite: bool,
        objection: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<Self, Error> {
        let (target, parent) = place::check(out, overwrite, objection)?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(target.file_name().unwrap_or_default());
        prefix.push(".");
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .map_err(|source| match Error::writing(&parent, source) {
                Error::Io { path, source } => Error::OutputPlace {
                    path: out.to_owned(),
                    reason: format!("nothing can be written in {}: {source}", path.display()),
                },
                full => full,
            })?;
        let listed = Listed::new(folder.path())?;
        Ok(Self {
            out: target,
            overwrite,
            folder,
            listed,
        })
    }

    /// Where the output goes.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The folder beside it, for what is needed on the way.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the output is to be built, in that folder.
    pub fn built(&self) -> PathBuf {
        self.folder().join(registry::NEW)
    }

    /// Puts what was built in its place. Everything in it must be synced.
    ///
    /// # Errors
    /// [`Error::Exists`] if the output came to be meanwhile, and [`Error::OutputPlace`] if it cannot be replaced. Then
    /// nothing has changed at the output's place.
    pub fn put(self) -> Result<(), Error> {
        let swapped = self.listed.undisturbed(|| self.swap());
        if swapped.is_err() && self.folder().join(registry::OLD).exists() {
            // Whatever happens, what the user had is not ours to delete.
            let _kept = self.folder.keep();
        }
        swapped
    }

    fn swap(&self) -> Result<(), Error> {
        let (built, out) = (self.built(), &self.out);
        let old = self.folder().join(registry::OLD);
        let refuse = |reason: String| Error::OutputPlace {
            path: out.clone(),
            reason,
        };
        let exists = fs::symlink_metadata(out).is_ok();
        if exists && !self.overwrite {
            return Err(Error::Exists { path: out.clone() });
        }
        if exists {
            fs::rename(out, &old)
                .map_err(|source| refuse(format!("the old one cannot be moved away: {source}")))?;
        }
        if let Err(source) = fs::rename(&built, out) {
            if exists && let Err(second) = fs::rename(&old, out) {
                return Err(refuse(format!(
                    "{source}; the old one could not be moved back ({second}) and is now at {}",
                    old.display()
                )));
            }
            return Err(refuse(source.to_string()));
        }
        // The output is in place; that its name might not survive a power cut is no reason to fail.
        if let Some(parent) = out.parent() {
            drop(sync_folder(parent));
        }
        Ok(())
    }
}
