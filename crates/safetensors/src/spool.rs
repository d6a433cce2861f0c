//! Palettized weights on their way into a new file: in a spool of this run, or in the partial result of another.
//!
//! How many bytes a weight takes is not certain before it is palettized: mode unique takes the bits that the values
//! need, and values can refuse. So weights are spooled first, and the file, whose header comes first, is assembled from
//! the spool.

use crate::Error;
use crate::compact::{Meta, parts};
use crate::header::Entry;
use crate::write::Piece;
use palettizer_palette::{ErrorFigures, Palette};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::mapped_file::MappedFile;
use palettizer_pipeline::staged_output::NewFile;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// A palettized weight in a file.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    pub meta: Meta,
    pub nbits: u32,
    pub luts: usize,
    pub figures: ErrorFigures,
    /// Its tensors, in that file.
    pub parts: Vec<Entry>,
}

impl Spooled {
    /// Its tensors, to be written from that file.
    pub(crate) fn pieces<'a>(&'a self, file: &'a MappedFile) -> impl Iterator<Item = Piece<'a>> {
        self.parts.iter().map(|part| Piece::copy(file, part))
    }

    /// Bytes of its tensors.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.range.len() as u64).sum()
    }
}

/// A file that palettes are appended to.
pub(crate) struct Spool {
    path: PathBuf,
    out: BufWriter<NewFile>,
    len: usize,
}

impl Spool {
    /// A new file at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let file = NewFile::create(path);
        let file = file.map_err(|source| PipelineError::writing(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 20, file),
            len: 0,
        })
    }

    /// Appends the tensors of a weight's palette.
    pub(crate) fn append(&mut self, weight: &str, palette: &Palette) -> Result<Spooled, Error> {
        let mut placed = Vec::new();
        for (role, element, shape, bytes) in parts(palette) {
            let fail = |source| PipelineError::writing(&self.path, source);
            self.out.write_all(bytes).map_err(fail)?;
            let start = self.len;
            self.len += bytes.len();
            placed.push(Entry {
                name: role.of(weight),
                element,
                shape,
                range: start..self.len,
            });
        }
        Ok(Spooled {
            meta: Meta::from(palette),
            nbits: palette.nbits.bits(),
            luts: palette.luts(),
            figures: palette.error,
            parts: placed,
        })
    }

    /// The file's bytes.
    pub(crate) fn finish(mut self) -> Result<MappedFile, Error> {
        let fail = |source| PipelineError::writing(&self.path, source);
        self.out.flush().map_err(fail)?;
        match self.len {
            0 => Ok(MappedFile::from(Vec::new())),
            _ => Ok(MappedFile::map(self.out.get_ref().file()).map_err(fail)?),
        }
    }
}
