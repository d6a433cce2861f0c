//! One safetensors file, mapped into memory.

use crate::Error;
use crate::header::{self, Entry, Header};
use palettizer_coreml::blob::Bytes;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A safetensors file, its header read and checked.
#[derive(Debug)]
pub(crate) struct Shard {
    pub path: PathBuf,
    pub header: Header,
    pub bytes: Bytes,
}

impl Shard {
    /// Maps a file and checks its header; `Error::Damaged` if that is not one of this file.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| palettizer_coreml::Error::io(path, source);
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if !about.is_file() {
            let path = path.to_owned();
            return Err(palettizer_coreml::Error::NotAFile { path }.into());
        }
        let bytes = match about.len() {
            // Systems differ in what they make of mapping an empty file.
            0 => Bytes::from(Vec::new()),
            _ => Bytes::map(&file).map_err(io)?,
        };
        let header = header::read(bytes.as_slice()).map_err(|what| Error::Damaged {
            path: path.to_owned(),
            what,
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
