//! An output on its way to its place: a folder beside it to build in, and the renaming.

use super::folder::{self, Folder};
use super::place::{self, Kind};
use super::registry::Listed;
use super::{disk, swap};
use crate::{Error, FormatError};
use std::path::{Path, PathBuf};

/// How an output is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaveOptions {
    /// Replace what is there.
    pub overwrite: bool,
}

impl SaveOptions {
    /// Whether to replace what is there.
    pub fn overwriting(overwrite: bool) -> Self {
        SaveOptions { overwrite }
    }
}

/// A file or a folder that is built beside its place. Dropped before it is [committed](Self::commit) there, it leaves nothing
/// behind.
///
/// What takes the place of something keeps its permissions, and its owner as far as this user may give files away. A
/// link stays one: what it leads to is replaced.
///
/// ```
/// use palettizer_pipeline::staged_output::{SaveOptions, StagedOutput};
///
/// let folder = tempfile::tempdir()?;
/// let out = folder.path().join("answer.txt");
/// let staged = StagedOutput::file(&out, SaveOptions::default())?;
/// assert!(!out.exists());
/// staged.commit_bytes(b"42")?;
/// assert_eq!(std::fs::read_to_string(out)?, "42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StagedOutput {
    out: PathBuf,
    overwrite: bool,
    kind: Kind,
    // Dropped in this order: the folder must be gone before it is unlisted.
    folder: Folder,
    listed: Listed,
}

impl StagedOutput {
    /// Prepares to put a file at `out`; `overwrite` lets it replace a file that is there. Everything that would keep the
    /// output from being put there is found now, before any work.
    ///
    /// What dead runs have left in the same folder is removed, and what they had moved away is put back.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::OutputPlace`] if something else than a file is there, if there is no folder for it, the
    /// folder cannot be written to, or lies in a package; [`Error::DiskFull`].
    pub fn file(out: &Path, options: SaveOptions) -> Result<Self, Error> {
        Self::new(out, options, Kind::File)
    }

    /// Prepares to put a folder at `out`; `overwrite` lets it replace a file or a folder that is there, unless
    /// `objection` says why that must stay.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn folder(
        out: &Path,
        options: SaveOptions,
        objection: fn(&Path) -> Option<String>,
    ) -> Result<Self, Error> {
        Self::new(out, options, Kind::Folder(objection))
    }

    fn new(out: &Path, options: SaveOptions, kind: Kind) -> Result<Self, Error> {
        folder::recover(out);
        let (target, parent) = place::check(out, options.overwrite, kind)?;
        folder::sweep(&parent);
        let folder = Folder::new(&parent).map_err(|source| match Error::writing(out, source) {
            Error::Io { source, .. } => {
                let place = parent.display();
                Error::output_place(out, format!("nothing can be written in {place}: {source}"))
            }
            full => full,
        })?;
        let listed = Listed::new(folder.path())?;
        Ok(Self {
            out: target,
            overwrite: options.overwrite,
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
    pub fn named<T, E: FormatError>(&self, done: Result<T, E>) -> Result<T, E> {
        let name = |path: PathBuf| match path.strip_prefix(self.built()) {
            Ok(inside) if inside != Path::new("") => self.out.join(inside),
            _ if path.starts_with(self.scratch()) => self.out.clone(),
            _ => path,
        };
        done.map_err(|error| match error.common() {
            Ok(Error::Io { path, source }) => Error::io(name(path), source).into(),
            Ok(Error::DiskFull { path, source }) => Error::writing(name(path), source).into(),
            Ok(error) => error.into(),
            Err(own) => own,
        })
    }

    /// Makes a file of these bytes and puts it in its place.
    ///
    /// # Errors
    /// As [`put`](Self::commit), and [`Error::Io`] or [`Error::DiskFull`] if the file cannot be written.
    pub fn commit_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        disk::write(&self.built(), bytes).map_err(|source| Error::writing(&self.out, source))?;
        self.commit()
    }

    /// Puts what was built in its place. Everything in it must be synced.
    ///
    /// # Errors
    /// [`Error::Exists`] if the output came to be meanwhile, and [`Error::OutputPlace`] if it cannot be replaced. Then
    /// nothing has changed at the output's place.
    pub fn commit(self) -> Result<(), Error> {
        let put = || swap::put(&self.folder, &self.out, self.overwrite, self.kind);
        self.listed.undisturbed(put)
    }
}
