//! The one place where a file is mapped into memory, and where mapped pages are given back.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;

/// A file's bytes, mapped into memory, or a buffer.
///
/// ```
/// use palettizer_coreml::blob::Bytes;
///
/// let mut file = tempfile::tempfile()?;
/// std::io::Write::write_all(&mut file, b"a weight")?;
/// let bytes = Bytes::map(&file)?;
/// assert_eq!(bytes.as_slice(), b"a weight");
/// bytes.release(0..bytes.as_slice().len());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Bytes(Held);

#[derive(Debug)]
enum Held {
    /// A mapped file.
    Mapped(Mmap),
    /// A buffer.
    Owned(Vec<u8>),
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(Held::Owned(bytes))
    }
}

impl Bytes {
    /// Maps a file for reading. It should not be empty: systems differ in what they make of that.
    ///
    /// # Errors
    /// What the system says.
    #[allow(unsafe_code)]
    pub fn map(file: &File) -> io::Result<Bytes> {
        // SAFETY: the mapping is read-only and lives in a `Bytes`, which hands out slices bound to its own
        // life. What no program can rule out is that another one changes or cuts the file meanwhile:
        // then the bytes read change too, which every reader here treats as hostile anyway (nothing is
        // checked once and trusted later as to memory safety), or the system ends this process.
        // Packages that we write ourselves are replaced by renaming, never changed in place.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Bytes(Held::Mapped(map)))
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Held::Mapped(map) => map,
            Held::Owned(bytes) => bytes,
        }
    }

    /// Gives the pages that hold `range` back to the system; a later read brings them in again.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    pub fn release(&self, range: Range<usize>) {
        let Held::Mapped(map) = &self.0 else { return };
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
