//! The one place where a file is mapped into memory, and where mapped pages are given back.

use super::guard::Watch;
use super::input::{Input, Stamp};
use crate::Error;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;

/// A file's bytes, mapped into memory, or a buffer.
///
/// ```
/// use palettizer_pipeline::mapped_file::MappedFile;
///
/// let mut file = tempfile::tempfile()?;
/// std::io::Write::write_all(&mut file, b"a weight")?;
/// let bytes = MappedFile::map(&file)?;
/// assert_eq!(bytes.as_slice(), b"a weight");
/// bytes.release(0..bytes.as_slice().len());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct MappedFile {
    held: Held,
    /// What the file was like, if it has a name.
    stamp: Option<Stamp>,
}

#[derive(Debug)]
enum Held {
    /// A mapped file. The watch ends before the mapping does.
    Mapped(Watch, Mmap),
    /// A buffer.
    Owned(Vec<u8>),
}

impl From<Vec<u8>> for MappedFile {
    fn from(bytes: Vec<u8>) -> Self {
        MappedFile {
            held: Held::Owned(bytes),
            stamp: None,
        }
    }
}

impl MappedFile {
    /// Maps a file that is given.
    ///
    /// # Errors
    /// As [`Input::open`], and what the system says.
    pub fn open(path: &std::path::Path) -> Result<MappedFile, Error> {
        Self::of(Input::open(path)?)
    }

    /// Maps a file that is open.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of(input: Input) -> Result<MappedFile, Error> {
        let mapped = match input.len() {
            // Systems differ in what they make of mapping an empty file.
            0 => Ok(MappedFile::from(Vec::new())),
            _ => MappedFile::map(input.file()),
        };
        let stamp = input.into_stamp();
        let mut bytes = mapped.map_err(|source| Error::io(stamp.path(), source))?;
        bytes.stamp = Some(stamp);
        Ok(bytes)
    }

    /// Maps a file for reading. It should not be empty: systems differ in what they make of that.
    ///
    /// # Errors
    /// What the system says.
    #[allow(unsafe_code)]
    pub fn map(file: &File) -> io::Result<MappedFile> {
        // SAFETY: the mapping is read-only and lives in a `MappedFile`, which hands out slices bound to its own
        // life. What no program can rule out is that another one changes or cuts the file meanwhile:
        // then the bytes read change too, which every reader here treats as hostile anyway (nothing is
        // checked once and trusted later as to memory safety), or the system ends this process, unless it is
        // guarded against that.
        // Packages that we write ourselves are replaced by renaming, never changed in place.
        let map = unsafe { Mmap::map(file) }?;
        Ok(MappedFile {
            held: Held::Mapped(Watch::new(&map), map),
            stamp: None,
        })
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u8] {
        match &self.held {
            Held::Mapped(_, map) => map,
            Held::Owned(bytes) => bytes,
        }
    }

    /// Whether the file is still as it was when it was opened.
    ///
    /// # Errors
    /// [`Error::Changed`]: what was read since is not to be trusted.
    pub fn unchanged(&self) -> Result<(), Error> {
        let Some(stamp) = &self.stamp else {
            return Ok(());
        };
        stamp.check()?;
        match &self.held {
            Held::Mapped(watch, _) if watch.lost() => {
                Err(stamp.changed("a part of it could not be read any more".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Gives the pages that hold `range` back to the system; a later read brings them in again.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    pub fn release(&self, range: Range<usize>) {
        let Held::Mapped(_, map) = &self.held else {
            return;
        };
        let end = range.end.min(map.len());
        let Some(len) = end.checked_sub(range.start).filter(|&len| len > 0) else {
            return;
        };
        // SAFETY: `DontNeed` loses changes only in memory that was written to. This mapping is of a file
        // and read-only, so that a page dropped here is read from the file again when next touched;
        // slices into it stay valid and keep their contents. The range lies within the mapping.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, len)
        };
        // Advice only: a system that refuses it keeps the pages, and nothing else changes.
        drop(advised);
    }

    /// Elsewhere the system decides by itself.
    #[cfg(not(unix))]
    pub fn release(&self, _range: Range<usize>) {}
}
