//! The index of a folder of shards: which tensor is in which file.

use crate::Error;
use crate::json::Object;
use crate::shard::Shard;
use palettizer_pipeline::mapped_file::Input;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// What an index's name ends in.
pub(crate) const SUFFIX: &str = ".safetensors.index.json";

/// The largest index that is read, in bytes.
const MAX_INDEX: u64 = 100_000_000;

/// The most shards that are opened.
const MAX_SHARDS: usize = 10_000;

/// The key, in the index's metadata, of the bytes of all tensors.
const TOTAL_SIZE: &str = "total_size";

/// An index, read.
#[derive(Debug)]
pub(crate) struct Index {
    pub path: PathBuf,
    /// What it says beside the map, `total_size` among it: as text, for a tree of it could take a hundred times as much.
    metadata: BTreeMap<String, Box<RawValue>>,
    /// The file of each tensor.
    files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Option<Object<Box<RawValue>>>,
    weight_map: Object<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    metadata: &'a BTreeMap<String, Box<RawValue>>,
    weight_map: &'a BTreeMap<String, String>,
}

impl Index {
    /// The index in a folder.
    pub(crate) fn find(folder: &Path) -> Result<PathBuf, Error> {
        let io = |source| palettizer_pipeline::Error::io(folder, source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            if name.to_string_lossy().ends_with(SUFFIX) {
                found.push(folder.join(name));
            }
        }
        found.sort();
        let none = |what: String| Error::NotACheckpoint {
            path: folder.to_owned(),
            what,
        };
        match found.as_slice() {
            [index] => Ok(index.clone()),
            [] => Err(none(format!(
                "this folder has no index of shards (*{SUFFIX}): give a .safetensors file of it"
            ))),
            [first, ..] => Err(none(format!(
                "this folder has {} indices of shards: give one of them, such as {}",
                found.len(),
                first.display()
            ))),
        }
    }

    /// Reads an index and opens its shards, in the order of their names.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Shard>), Error> {
        let text = Input::open(path)?.read(MAX_INDEX)?;
        let bad = |what| Error::Index {
            path: path.to_owned(),
            what,
        };
        let raw: Raw = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let index = Self {
            path: path.to_owned(),
            metadata: raw.metadata.map(|object| object.0).unwrap_or_default(),
            files: raw.weight_map.0,
        };
        let names: BTreeSet<&String> = index.files.values().collect();
        if names.len() > MAX_SHARDS {
            let found = names.len();
            return Err(bad(format!(
                "{found} shards, and at most {MAX_SHARDS} are read"
            )));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards = Vec::with_capacity(names.len());
        for name in names {
            let mut parts = Path::new(name).components();
            let plain = matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(only)), None) if only == name.as_str()
            );
            if !plain || name.contains('\\') {
                return Err(bad(format!(
                    "weight_map names the file \"{name}\": shards must lie beside the index"
                )));
            }
            // What may not be looked at is there: opening it says so.
            if let Ok(false) = folder.join(name).try_exists() {
                return Err(bad(format!("there is no shard \"{name}\"")));
            }
            shards.push(Shard::open(&folder.join(name))?);
        }
        index.agrees(&shards).map_err(bad)?;
        Ok((index, shards))
    }

    /// The shards must hold what the map says, and nothing else.
    fn agrees(&self, shards: &[Shard]) -> Result<(), String> {
        for shard in shards {
            let file = shard.name();
            for entry in &shard.header.tensors {
                let name = &entry.name;
                let Some(other) = self.files.get(name) else {
                    return Err(format!(
                        "tensor \"{name}\" of \"{file}\" is not in weight_map"
                    ));
                };
                if *other != file {
                    return Err(format!(
                        "tensor \"{name}\" is in \"{file}\", but weight_map says \"{other}\""
                    ));
                }
            }
        }
        let there: BTreeSet<&String> = shards
            .iter()
            .flat_map(|shard| shard.header.tensors.iter().map(|entry| &entry.name))
            .collect();
        let missing = self.files.iter().find(|(name, _)| !there.contains(name));
        missing.map_or(Ok(()), |(name, file)| {
            Err(format!(
                "weight_map says that tensor \"{name}\" is in \"{file}\", which has none"
            ))
        })
    }

    /// The text of an index for other tensors in the same shards; what else was in it stays.
    pub(crate) fn rewritten(
        &self,
        files: &BTreeMap<String, String>,
        total_size: u64,
    ) -> serde_json::Result<Vec<u8>> {
        let mut metadata = self.metadata.clone();
        metadata.insert(TOTAL_SIZE.to_owned(), to_raw_value(&total_size)?);
        let mut text = serde_json::to_vec_pretty(&Written {
            metadata: &metadata,
            weight_map: files,
        })?;
        text.push(b'\n');
        Ok(text)
    }
}
