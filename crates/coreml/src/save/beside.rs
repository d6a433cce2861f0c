//! An output on its way to its place: a folder beside it to build in, and the renaming.

use super::folder::{self, Folder};
use super::place::{self, Kind};
use super::registry::Listed;
use super::{disk, swap};
use crate::Error;
use std::path::{Path, PathBuf};

/// A file or a folder that is built beside its place. Dropped before it is [put](Self::put) there, it leaves nothing
/// behind.
///
/// What takes the place of something keeps its permissions, and its owner as far as this user may give files away. A
/// link stays one: what it leads to is replaced.
///
/// ```
/// use palettizer_coreml::save::Beside;
///
/// let folder = tempfile::tempdir()?;
/// let out = folder.path().join("answer.txt");
/// let beside = Beside::file(&out, false)?;
/// assert!(!out.exists());
/// beside.put_bytes(b"42")?;
/// assert_eq!(std::fs::read_to_string(out)?, "42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Beside {
    out: PathBuf,
    overwrite: bool,
    kind: Kind,
    // Dropped in this order: the folder must be gone before it is unlisted.
    folder: Folder,
    listed: Listed,
}

impl Beside {
    /// Prepares to put a file at `out`; `overwrite` lets it replace a file that is there. Everything that would keep the
    /// output from being put there is found now, before any work.
    ///
    /// What dead runs have left in the same folder is removed, and what they had moved away is put back.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::OutputPlace`] if something else than a file is there, if there is no folder for it, the
    /// folder cannot be written to, or lies in a package; [`Error::DiskFull`].
    pub fn file(out: &Path, overwrite: bool) -> Result<Self, Error> {
        Self::new(out, overwrite, Kind::File)
    }

    /// Prepares to put a folder at `out`; `overwrite` lets it replace a file or a folder that is there, unless
    /// `objection` says why that must stay.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn folder(
        out: &Path,
        overwrite: bool,
        objection: fn(&Path) -> Option<String>,
    ) -> Result<Self, Error> {
        Self::new(out, overwrite, Kind::Folder(objection))
    }

    fn new(out: &Path, overwrite: bool, kind: Kind) -> Result<Self, Error> {
        folder::recover(out);
        let (target, parent) = place::check(out, overwrite, kind)?;
        folder::sweep(&parent);
        let folder = Folder::new(&parent).map_err(|source| match Error::writing(out, source) {
            Error::Io { source, .. } => Error::OutputPlace {
                path: out.to_owned(),
                reason: format!("nothing can be written in {}: {source}", parent.display()),
            },
            full => full,
        })?;
        let listed = Listed::new(folder.path())?;
        Ok(Self {
            out: target,
            overwrite,
            kind,
            folder,
            listed,
        })
    }

    /// Where the output goes.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The folder beside it, for what is needed on the way.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Where the output is to be built, in that folder.
    pub fn built(&self) -> PathBuf {
        self.folder.new_output()
    }

    /// Gives what came of building with the output's name in errors, for users do not know the folder beside it.
    ///
    /// # Errors
    /// Those of `done`.
    pub fn named<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        let name = |path: PathBuf| match path.strip_prefix(self.built()) {
            Ok(inside) if inside != Path::new("") => self.out.join(inside),
            _ if path.starts_with(self.scratch()) => self.out.clone(),
            _ => path,
        };
        done.map_err(|error| match error {
            Error::Io { path, source } => Error::Io {
                path: name(path),
                source,
            },
            Error::DiskFull { path, source } => Error::DiskFull {
                path: name(path),
                source,
            },
            error => error,
        })
    }

    /// Makes a file of these bytes and puts it in its place.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Io`] or [`Error::DiskFull`] if the file cannot be written.
    pub fn put_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        disk::write(&self.built(), bytes).map_err(|source| Error::writing(&self.out, source))?;
        self.put()
    }

    /// Puts what was built in its place. Everything in it must be synced.
    ///
    /// # Errors
    /// [`Error::Exists`] if the output came to be meanwhile, and [`Error::OutputPlace`] if it cannot be replaced. Then
    /// nothing has changed at the output's place.
    pub fn put(self) -> Result<(), Error> {
        let put = || swap::put(&self.folder, &self.out, self.overwrite, self.kind);
        self.listed.undisturbed(put)
    }
}
