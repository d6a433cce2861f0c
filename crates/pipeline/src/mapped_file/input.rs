//! Opening the files that are given: regular files only, read within a limit, and known again later.
//!
//! Whatever is no regular file is refused before it is opened: to open a named pipe is to wait for its writer, and a
//! device may have no end. What is read may change meanwhile, and nothing can keep another program from that; so every
//! file that stays mapped has a `Stamp`, which is checked before a result is handed out.

use crate::Error;
use std::fs::{File, FileType, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that is open for reading.
///
/// ```
/// use palettizer_pipeline::mapped_file::Input;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("a.txt");
/// std::fs::write(&path, "abc")?;
/// assert_eq!(Input::open(&path)?.read(100)?, b"abc");
/// assert!(Input::open(&path)?.read(2).is_err());
/// assert!(Input::open(folder.path()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Input {
    file: File,
    stamp: Stamp,
}

impl Input {
    /// Opens a regular file, or a link to one.
    ///
    /// # Errors
    /// [`Error::Io`] with what the system says, and [`Error::NotAFile`] for a folder, a pipe, a socket or a device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |source| Error::io(path, source);
        regular(path, &std::fs::metadata(path).map_err(io)?)?;
        let file = File::open(path).map_err(io)?;
        // Another file may have taken its place in between.
        let found = file.metadata().map_err(io)?;
        regular(path, &found)?;
        let stamp = Stamp::new(path, &found);
        Ok(Self { file, stamp })
    }

    /// The file's length in bytes, when it was opened.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        self.stamp.len
    }

    /// The file's content, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a longer file, [`Error::Io`].
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, Error> {
        let too_large = |found| Error::TooLarge {
            path: self.stamp.path.clone(),
            found,
            limit,
        };
        if self.len() > limit {
            return Err(too_large(self.len()));
        }
        let mut bytes = Vec::new();
        // The length that the system tells may change; what is read may not exceed the limit.
        let read = (&self.file)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes);
        read.map_err(|source| Error::io(&self.stamp.path, source))?;
        match bytes.len() as u64 > limit {
            true => Err(too_large(bytes.len() as u64)),
            false => Ok(bytes),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn into_stamp(self) -> Stamp {
        self.stamp
    }
}

/// Refuses what is no regular file.
fn regular(path: &Path, found: &Metadata) -> Result<(), Error> {
    match found.is_file() {
        true => Ok(()),
        false => Err(Error::NotAFile {
            path: path.to_owned(),
            found: kind(found.file_type()),
        }),
    }
}

/// What is there in place of a file.
pub fn kind(found: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if found.is_fifo() {
            return "a pipe, which cannot be read twice; save what comes out of it to a file and give that";
        }
        if found.is_socket() {
            return "a socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
    }
    match (found.is_dir(), found.is_symlink()) {
        (true, _) => "a folder",
        (_, true) => "a link that leads nowhere or out of here",
        _ => "something else",
    }
}

/// What tells whether a file is still as it was.
#[derive(Clone, Debug)]
pub struct Stamp {
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
    /// The file itself, whatever its name, where the system tells.
    identity: Option<(u64, u64)>,
}

impl Stamp {
    fn new(path: &Path, found: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            len: found.len(),
            modified: found.modified().ok(),
            identity: identity(found),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a file that was written to. One that was removed, or replaced by another of its name, is still mapped as
    /// it was.
    ///
    /// # Errors
    /// [`Error::Changed`].
    pub fn check(&self) -> Result<(), Error> {
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::io(&self.path, source)),
        };
        let now = Self::new(&self.path, &found);
        if self.identity.is_some() && now.identity != self.identity {
            return Ok(());
        }
        let what = match (now.len == self.len, now.modified == self.modified) {
            (true, true) => return Ok(()),
            (false, _) => format!("it had {} bytes and has {} now", self.len, now.len),
            (true, false) => "it was written to".to_owned(),
        };
        Err(self.changed(what))
    }

    pub(crate) fn changed(&self, what: String) -> Error {
        Error::Changed {
            path: self.path.clone(),
            what,
        }
    }
}

#[cfg(unix)]
fn identity(found: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_found: &Metadata) -> Option<(u64, u64)> {
    None
}
