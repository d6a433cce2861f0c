//! Reading blobs out of a weight file, mapped or in memory.
//!
//! What is accepted is what the reader of coremltools 9.0 accepts: neither the count in the header nor
//! alignment is checked there, and unused bits count for packed types only. Beyond it we refuse a size
//! that is no whole number of elements, and (in [`WeightFile::check_overlaps`]) blobs that overlap.

use super::{HEADER_LEN, RECORD_LEN, SENTINEL, VERSION, check_size, elements, is_packed};
use super::{overlap, u32_at, u64_at};
use crate::Error;
use crate::blob::BlobError;
use crate::proto::DataType;
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::mapped_file::{Input, MappedFile};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One weight file: mapped, or a buffer in memory. A clone shares the bytes.
///
/// ```
/// use palettizer_coreml::blob::{WeightFile, WeightWriter};
/// use palettizer_coreml::proto::DataType;
/// use std::io::Cursor;
///
/// let mut writer = WeightWriter::new(Cursor::new(Vec::new()))?;
/// let offset = writer.append(DataType::UInt3, &[0b10_001_000, 0b0_100_01], 1)?;
/// let bytes = writer.finish()?.into_inner();
///
/// let file = WeightFile::from_bytes("weight.bin", bytes)?;
/// let blob = file.blob(offset)?;
/// assert_eq!(blob.dtype, DataType::UInt3);
/// assert_eq!(blob.elements(), 5);
/// # Ok::<(), palettizer_coreml::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WeightFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The file's path, or its name if it is in memory.
    path: PathBuf,
    bytes: MappedFile,
}

/// One blob of a weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob<'a> {
    /// The element type.
    pub dtype: DataType,
    /// The elements: little-endian, or packed least-significant bits first. Well-made files have them at
    /// a multiple of 64; do not count on it.
    pub data: &'a [u8],
    /// The bits at the end of `data` that belong to no element: less than 8, and 0 if elements are whole bytes.
    pub unused_bits: u64,
    /// Where in the file `data` begins.
    pub data_offset: u64,
}

/// The elements of a blob, of a file that stays open for as long as they are needed. A clone shares them.
#[derive(Clone, Debug)]
pub struct SharedBytes {
    file: WeightFile,
    range: Range<usize>,
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.file
            .bytes()
            .get(self.range.clone())
            .unwrap_or_default()
    }
}

impl Blob<'_> {
    /// The number of elements.
    pub fn elements(&self) -> u64 {
        // Checked when the blob was read.
        elements(self.dtype, self.data.len() as u64, self.unused_bits).unwrap_or(0)
    }

    /// Where in the file the data lies, as [`WeightFile::release`] takes it.
    pub fn data_range(&self) -> Range<u64> {
        self.data_offset..self.data_offset.saturating_add(self.data.len() as u64)
    }
}

impl WeightFile {
    /// Maps a weight file.
    ///
    /// # Errors
    /// [`PipelineError::Io`] if it cannot be opened or mapped, [`PipelineError::NotAFile`] if it is a folder, a pipe or a device,
    /// and [`BlobError::Header`] or [`BlobError::Version`] if it is no weight file of version 2.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let input = Input::open(path)?;
        let len = input.len();
        if len < HEADER_LEN {
            let file = path.to_owned();
            return Err(BlobError::Header { file, len }.into());
        }
        Self::checked(path.to_owned(), MappedFile::of(input)?)
    }

    /// Takes a weight file that is in memory; `name` is for messages.
    ///
    /// # Errors
    /// [`BlobError::Header`] or [`BlobError::Version`] if it is no weight file of version 2.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, Error> {
        Self::checked(name.into(), bytes.into())
    }

    fn checked(path: PathBuf, bytes: MappedFile) -> Result<Self, Error> {
        let header = bytes.as_slice();
        let len = header.len() as u64;
        if len < HEADER_LEN {
            return Err(BlobError::Header { file: path, len }.into());
        }
        match u32_at(header, 4) {
            Some(VERSION) => Ok(Self {
                inner: Arc::new(Inner { path, bytes }),
            }),
            found => Err(BlobError::Version {
                file: path,
                found: found.unwrap_or(0),
            }
            .into()),
        }
    }

    /// The file's path, or its name if it is in memory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The file's bytes, header and all.
    pub fn bytes(&self) -> &[u8] {
        self.inner.bytes.as_slice()
    }

    /// The file's length in bytes.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a weight file has a header at least"
    )]
    pub fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Whether the file is still as it was when it was opened.
    ///
    /// # Errors
    /// [`PipelineError::Changed`].
    pub fn unchanged(&self) -> Result<(), PipelineError> {
        self.inner.bytes.unchanged()
    }

    /// The blob whose record is at `offset`.
    ///
    /// # Errors
    /// [`BlobError::Offset`] if no record fits there, [`BlobError::Sentinel`] if there is something else,
    /// [`BlobError::Dtype`] for an unknown element type, [`BlobError::Empty`] without data,
    /// [`BlobError::Truncated`] if the data would end past the file's end, [`BlobError::Padding`] if
    /// they are no whole number of elements.
    pub fn blob(&self, offset: u64) -> Result<Blob<'_>, Error> {
        let file = || self.inner.path.clone();
        let len = self.len();
        let record = slice(self.bytes(), offset, RECORD_LEN).ok_or_else(|| BlobError::Offset {
            file: file(),
            offset,
            len,
        })?;
        // A record is 64 bytes long, so that none of these is missing.
        let word = |at| u32_at(record, at).unwrap_or(0);
        let long = |at| u64_at(record, at).unwrap_or(0);
        if word(0) != SENTINEL {
            return Err(BlobError::Sentinel {
                file: file(),
                offset,
                found: word(0),
            }
            .into());
        }
        let dtype = DataType::from_blob_number(word(4)).ok_or_else(|| BlobError::Dtype {
            file: file(),
            offset,
            found: word(4),
        })?;
        let (size, data_offset) = (long(8), long(16));
        let unused_bits = if is_packed(dtype) { long(24) } else { 0 };
        let data = slice(self.bytes(), data_offset, size).ok_or_else(|| BlobError::Truncated {
            file: file(),
            offset,
            data_offset,
            size,
            len,
        })?;
        check_size(self.path(), offset, dtype, size, unused_bits)?;
        Ok(Blob {
            dtype,
            data,
            unused_bits,
            data_offset,
        })
    }

    /// The elements of the blob whose record is at `offset`, to be kept.
    ///
    /// # Errors
    /// As [`blob`](Self::blob).
    pub fn shared(&self, offset: u64) -> Result<SharedBytes, Error> {
        let found = self.blob(offset)?;
        // it lies within the file, so that its place is a usize
        let start = usize::try_from(found.data_offset).unwrap_or(usize::MAX);
        Ok(SharedBytes {
            file: self.clone(),
            range: start..start.saturating_add(found.data.len()),
        })
    }

    /// Checks that no two of the blobs at these offsets share a byte, and none lies over the header. An
    /// offset given twice counts once.
    ///
    /// # Errors
    /// [`BlobError::Overlap`], or what [`blob`](Self::blob) finds wrong with one of them.
    pub fn check_overlaps(&self, offsets: &[u64]) -> Result<(), Error> {
        overlap::check(self, offsets)
    }

    /// Gives the memory that holds a range of a mapped file back to the system. What is read there
    /// later is read from the file again. Nothing happens to a file in memory.
    pub fn release(&self, range: Range<u64>) {
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        self.inner
            .bytes
            .release(clamp(range.start)..clamp(range.end));
    }
}

/// `len` bytes at `offset`, if all of them are there.
fn slice(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    bytes.get(start..end)
}
