//! One safetensors file, mapped into memory.

use crate::Error;
use crate::header::{self, Entry, Header};
use palettizer_pipeline::mapped_file::MappedFile;
use palettizer_pipeline::mapped_file::foreign;
use std::path::{Path, PathBuf};

/// A safetensors file, its header read and checked.
#[derive(Debug)]
pub(crate) struct Shard {
    pub path: PathBuf,
    pub header: Header,
    pub bytes: MappedFile,
}

impl Shard {
    /// Maps a file and checks its header; `Error::Damaged` if that is not one of this file.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let bytes = MappedFile::open(path)?;
        let header = header::read(bytes.as_slice()).map_err(|what| {
            let path = path.to_owned();
            match foreign(&path) {
                Some(what) => palettizer_pipeline::Error::Foreign { path, what }.into(),
                None => Error::Damaged { path, what },
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            header,
            bytes,
        })
    }

    /// The file's length.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.as_slice().len() as u64
    }

    /// The file's name.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// A tensor's data.
    pub(crate) fn data(&self, entry: &Entry) -> &[u8] {
        // The range was checked against the file when its header was read.
        self.bytes
            .as_slice()
            .get(entry.range.clone())
            .unwrap_or_default()
    }

    /// Gives the memory of a tensor's data back.
    pub(crate) fn release(&self, entry: &Entry) {
        self.bytes.release(entry.range.clone());
    }
}
