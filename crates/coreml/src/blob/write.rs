//! Writing a weight file, blob by blob, without holding it.

use super::{ALIGNMENT, HEADER_LEN, RECORD_LEN, SENTINEL, VERSION, check_size};
use crate::Error;
use crate::blob::BlobError;
use crate::proto::DataType;
use palettizer_pipeline::Error as PipelineError;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Writes a weight file. Data go straight to `W`: give it a `BufWriter`, which passes large slices on
/// unbuffered.
///
/// The bytes are those that coremltools' writer makes of the same blobs.
///
/// ```
/// use palettizer_coreml::blob::WeightWriter;
/// use palettizer_coreml::proto::DataType;
/// use std::io::Cursor;
///
/// let mut writer = WeightWriter::new(Cursor::new(Vec::new()))?;
/// assert_eq!(writer.append(DataType::UInt8, &[1, 2, 3], 0)?, 64);
/// assert_eq!(writer.append(DataType::UInt8, &[4], 0)?, 192);
/// let bytes = writer.finish()?.into_inner();
/// assert_eq!(bytes[0], 2);
/// # Ok::<(), palettizer_coreml::Error>(())
/// ```
#[derive(Debug)]
pub struct WeightWriter<W> {
    out: W,
    path: PathBuf,
    position: u64,
    count: u32,
}

impl<W: Write + Seek> WeightWriter<W> {
    /// Begins a weight file at the start of `out`.
    ///
    /// # Errors
    /// [`PipelineError::Io`] or [`PipelineError::DiskFull`] if the header cannot be written.
    pub fn new(out: W) -> Result<Self, Error> {
        Self::with_path(out, Path::new("weight.bin"))
    }

    /// Begins a weight file at the start of `out`, which errors will call by this path.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_path(out: W, path: &Path) -> Result<Self, Error> {
        let mut writer = Self {
            out,
            path: path.to_owned(),
            position: 0,
            count: 0,
        };
        writer.seek(0)?;
        writer.header()?;
        writer.position = HEADER_LEN;
        Ok(writer)
    }

    /// Appends a blob and gives the offset of its record, which is what a program refers to.
    ///
    /// # Errors
    /// [`BlobError::NoBlobType`] for a type that no weight file holds, [`BlobError::Empty`] without data, [`BlobError::Padding`] if `data` less `unused_bits` bits are
    /// no whole number of elements, [`PipelineError::Io`] or [`PipelineError::DiskFull`] if writing fails.
    pub fn append(&mut self, dtype: DataType, data: &[u8], unused_bits: u64) -> Result<u64, Error> {
        let offset = self.position.next_multiple_of(ALIGNMENT);
        let size = data.len() as u64;
        let number = dtype.blob_number().ok_or_else(|| BlobError::NoBlobType {
            file: self.path.clone(),
            dtype: dtype.name(),
        })?;
        check_size(&self.path, offset, dtype, size, unused_bits)?;
        let count = self.count.checked_add(1).ok_or_else(|| {
            self.error(io::Error::other(
                "a weight file holds at most 2^32 - 1 blobs",
            ))
        })?;
        let data_offset = offset + RECORD_LEN;

        // The gap before the record and the record, in one write.
        let mut head = [0u8; (ALIGNMENT + RECORD_LEN) as usize];
        let gap = (offset - self.position) as usize;
        let (_, record) = head.split_at_mut(gap);
        for (at, field) in [
            (0, u64::from(SENTINEL) | u64::from(number) << 32),
            (8, size),
            (16, data_offset),
            (24, unused_bits),
        ] {
            if let Some(place) = record.get_mut(at..at + 8) {
                place.copy_from_slice(&field.to_le_bytes());
            }
        }
        let head = head.get(..gap + RECORD_LEN as usize).unwrap_or(&[]);
        self.write(head)?;
        self.write(data)?;
        self.position = data_offset + size;
        self.count = count;
        Ok(offset)
    }

    /// The bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes the number of blobs into the header, flushes, and gives `W` back at the file's end.
    ///
    /// # Errors
    /// [`PipelineError::Io`] or [`PipelineError::DiskFull`] if writing fails.
    pub fn finish(mut self) -> Result<W, Error> {
        self.seek(0)?;
        self.header()?;
        self.seek(self.position)?;
        match self.out.flush() {
            Ok(()) => Ok(self.out),
            Err(source) => Err(self.error(source)),
        }
    }

    fn header(&mut self) -> Result<(), Error> {
        let mut header = [0u8; HEADER_LEN as usize];
        let fields = u64::from(self.count) | u64::from(VERSION) << 32;
        if let Some(place) = header.get_mut(..8) {
            place.copy_from_slice(&fields.to_le_bytes());
        }
        self.write(&header)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self
            .out
            .write_all(bytes)
            .map_err(|source| PipelineError::writing(&self.path, source))?)
    }

    fn seek(&mut self, position: u64) -> Result<(), Error> {
        match self.out.seek(SeekFrom::Start(position)) {
            Ok(_) => Ok(()),
            Err(source) => Err(self.error(source)),
        }
    }

    fn error(&self, source: io::Error) -> Error {
        PipelineError::writing(&self.path, source).into()
    }
}
