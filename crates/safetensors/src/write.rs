//! Writing a safetensors file: header first, then the data, piece by piece.
//!
//! Tensors lie in the order that the safetensors library gives them (type, last to first, then name), so that all of
//! them are aligned. Pieces that must be made first are made in batches of bounded bytes, in parallel, while the batch
//! before is written.

use crate::Error;
use crate::compact::Stored;
use crate::element::ElementType;
use crate::header::{self, Entry, MAX_HEADER};
use crate::shard::Shard;
use palettizer_pipeline::mapped_file::MappedFile;
use palettizer_pipeline::staged_output::NewFile;
use palettizer_pipeline::{Error as PipelineError, Progress, in_batches};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

/// Bytes of a file that are copied before their memory is given back.
const STRETCH: usize = 1 << 20;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(crate) struct Piece<'a> {
    pub name: String,
    pub element: ElementType,
    pub shape: Vec<usize>,
    /// Bytes of its data.
    pub len: usize,
    pub source: Source<'a>,
}

/// Where a tensor's data come from.
#[derive(Clone, Debug)]
pub(crate) enum Source<'a> {
    /// Memory.
    Memory(&'a [u8]),
    /// A range of a file.
    File(&'a MappedFile, Range<usize>),
    /// A palettized weight, which is to be dense.
    Palette(&'a Shard, &'a Stored),
}

impl<'a> Piece<'a> {
    /// A tensor of a file, as it is.
    pub(crate) fn copy(file: &'a MappedFile, entry: &Entry) -> Self {
        Piece {
            name: entry.name.clone(),
            element: entry.element,
            shape: entry.shape.clone(),
            len: entry.range.len(),
            source: Source::File(file, entry.range.clone()),
        }
    }

    /// Bytes of memory that its data take before they are written.
    fn made(&self) -> u64 {
        match self.source {
            Source::Memory(_) | Source::File(..) => 0,
            Source::Palette(..) => self.len as u64,
        }
    }

    /// Its data, if they must be made.
    fn make(&self) -> Result<Option<Vec<u8>>, Error> {
        let Source::Palette(shard, stored) = &self.source else {
            return Ok(None);
        };
        let dense = stored.palette(shard).try_decompress();
        stored.entries(shard).for_each(|entry| shard.release(entry));
        dense
            .map(Some)
            .map_err(|error| Error::compact(shard, &self.name, error))
    }
}

/// Writes `path`, which must not exist, and syncs it. Gives its length. `progress` hears of the pieces that were made.
pub(crate) fn write(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    mut pieces: Vec<Piece<'_>>,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    pieces.sort_by(|a, b| {
        let types = b.element.cmp(&a.element);
        types.then_with(|| a.name.cmp(&b.name))
    });
    let entries = pieces.iter().map(|piece| {
        (
            piece.name.as_str(),
            piece.element,
            piece.shape.as_slice(),
            piece.len,
        )
    });
    let fail = |source| Error::from(PipelineError::writing(path, source));
    let header = header::write(metadata, entries).map_err(|error| fail(error.into()))?;
    if header.len() - 8 > MAX_HEADER {
        return Err(Error::HeaderTooLarge {
            path: path.to_owned(),
            found: header.len() - 8,
            limit: MAX_HEADER,
        });
    }
    let file = NewFile::create(path).map_err(fail)?;
    let mut out = BufWriter::with_capacity(STRETCH, file);
    out.write_all(&header).map_err(fail)?;
    in_batches(
        &pieces,
        Piece::made,
        Piece::make,
        |piece, made| put(piece, made?, &mut out, progress).map_err(fail),
        progress,
    )?;
    out.flush().map_err(fail)?;
    out.get_ref().sync().map_err(fail)?;
    let data: usize = pieces.iter().map(|piece| piece.len).sum();
    Ok((header.len() + data) as u64)
}

fn put(
    piece: &Piece<'_>,
    made: Option<Vec<u8>>,
    out: &mut impl Write,
    progress: &dyn Progress,
) -> std::io::Result<()> {
    match (&piece.source, made) {
        (_, Some(made)) => {
            out.write_all(&made)?;
            progress.advance(&piece.name, made.len() as u64);
            Ok(())
        }
        (Source::Memory(bytes), None) => out.write_all(bytes),
        (Source::File(bytes, range), None) => copy(bytes, range.clone(), out),
        // Made above.
        (Source::Palette(..), None) => Ok(()),
    }
}

/// Copies a range of a mapped file, giving its memory back as it goes.
fn copy(bytes: &MappedFile, range: Range<usize>, out: &mut impl Write) -> std::io::Result<()> {
    let mut at = range.start;
    let data = bytes.as_slice().get(range).unwrap_or_default();
    for stretch in data.chunks(STRETCH) {
        out.write_all(stretch)?;
        bytes.release(at..at + stretch.len());
        at += stretch.len();
    }
    Ok(())
}
