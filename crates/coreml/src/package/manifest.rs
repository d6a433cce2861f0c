//! `Manifest.json`: which file of a package is the model, and what else belongs to it.
//!
//! The JSON is kept as it was read. It is written back byte for byte, unless an item has to be added
//! for weights that the package did not have before.

use super::path;
use crate::Error;
use crate::package::PackageError;
use palettizer_pipeline::mapped_file::Input;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The manifest's name in a package.
pub(crate) const MANIFEST: &str = "Manifest.json";

/// The folder that the items' paths start from.
pub(crate) const DATA: &str = "Data";

/// The largest manifest that is read: it lists a handful of items, and takes a hundred times its length in memory.
const MAX_LEN: u64 = 1 << 20;

const ITEMS: &str = "itemInfoEntries";
const ROOT: &str = "rootModelIdentifier";
const VERSION: &str = "fileFormatVersion";
const AUTHOR: &str = "com.apple.CoreML";

/// A checked manifest.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// As it was read; empty for one that is yet to be made.
    bytes: Vec<u8>,
    entries: Map<String, Value>,
    /// The items' paths, relative to `Data`.
    pub(super) items: Vec<PathBuf>,
    /// The model's path, relative to `Data`.
    pub(crate) model: PathBuf,
}

impl Manifest {
    /// Reads the manifest of the package at `root`.
    pub(super) fn read(root: &Path) -> Result<Manifest, Error> {
        let path = root.join(MANIFEST);
        let bytes = Input::open(&path)?.read(MAX_LEN)?;
        Self::parse(&path, bytes)
    }

    /// Checks a manifest's bytes; `path` is for messages.
    pub(super) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Manifest, Error> {
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|source| PackageError::ManifestSyntax {
                path: path.to_owned(),
                source,
            })?;
        let fault = |field: &str, found: Option<&Value>, expected| PackageError::ManifestField {
            path: path.to_owned(),
            field: field.to_owned(),
            found: describe(found),
            expected,
        };
        let Value::Object(entries) = value else {
            return Err(fault("(the whole file)", Some(&value), "an object").into());
        };
        let text = |field: &str| {
            let found = entries.get(field);
            let text = found.and_then(Value::as_str);
            text.ok_or_else(|| fault(field, found, "a string"))
        };
        let version = text(VERSION)?;
        if version.split('.').next() != Some("1") {
            return Err(PackageError::ManifestVersion {
                path: path.to_owned(),
                found: shorten(version),
            }
            .into());
        }
        let infos = entries.get(ITEMS);
        let infos = infos
            .and_then(Value::as_object)
            .ok_or_else(|| fault(ITEMS, infos, "an object"))?;
        let mut items = Vec::new();
        for (id, info) in infos {
            let found = info.get("path");
            let item = found.and_then(Value::as_str).ok_or_else(|| {
                fault(&format!("{ITEMS}.{}.path", shorten(id)), found, "a string")
            })?;
            items.push((id, path::relative(path, item)?));
        }
        let root = text(ROOT)?;
        let model = items
            .iter()
            .find(|(id, _)| *id == root)
            .map(|(_, path)| path.clone())
            .ok_or_else(|| {
                fault(
                    ROOT,
                    entries.get(ROOT),
                    "the identifier of one of the itemInfoEntries",
                )
            })?;
        let items = items.into_iter().map(|(_, path)| path).collect();
        Ok(Manifest {
            bytes,
            items,
            model,
            entries,
        })
    }

    /// The manifest of a package that is made of a bare model, laid out as coremltools does.
    pub(super) fn fresh() -> Manifest {
        Manifest {
            bytes: Vec::new(),
            entries: Map::new(),
            items: Vec::new(),
            model: Path::new(AUTHOR).join("model.mlmodel"),
        }
    }

    /// The folder of the model, relative to `Data`: `@model_path` in the program.
    pub(crate) fn model_folder(&self) -> &Path {
        self.model.parent().unwrap_or(Path::new(""))
    }

    /// The manifest's bytes for a package with this model and these weight files (relative to `Data`).
    ///
    /// New identifiers come from the model's bytes, so that equal packages get equal manifests.
    pub(crate) fn to_bytes(&self, model: &[u8], weight_files: &[PathBuf]) -> Vec<u8> {
        let mut entries = self.entries.clone();
        if entries.is_empty() {
            let id = identifier(model, "model");
            let info = info("model.mlmodel", "Specification", &self.model);
            entries.insert(VERSION.to_owned(), json!("1.0.0"));
            entries.insert(ITEMS.to_owned(), json!({ &id: info }));
            entries.insert(ROOT.to_owned(), json!(id));
        }
        let mut added = self.bytes.is_empty();
        for file in weight_files {
            if self.items.iter().any(|item| file.starts_with(item)) {
                continue;
            }
            let item = item_of(file, self.model_folder());
            let key = identifier(model, &slashed(&item));
            let name = item.file_name().unwrap_or_default().to_string_lossy();
            if let Some(Value::Object(infos)) = entries.get_mut(ITEMS) {
                infos.insert(key, info(&name, "Weights", &item));
            }
            added = true;
        }
        if added {
            pretty(&entries)
        } else {
            self.bytes.clone()
        }
    }
}

fn info(name: &str, what: &str, path: &Path) -> Value {
    json!({
        "author": AUTHOR,
        "description": format!("CoreML Model {what}"),
        "name": name,
        "path": slashed(path),
    })
}

/// The item that brings a weight file into the package: its topmost folder beside the model.
fn item_of(file: &Path, model_folder: &Path) -> PathBuf {
    let below = file.strip_prefix(model_folder).unwrap_or(file);
    match below.components().next() {
        Some(first) => model_folder.join(first),
        None => file.to_owned(),
    }
}

/// A path as the manifest has it, on every system.
fn slashed(path: &Path) -> String {
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
    names.join("/")
}

/// A UUID (version 8, which is what the maker likes) from the content: FNV-1a, twice.
fn identifier(content: &[u8], what: &str) -> String {
    let fnv = |basis: u64| {
        let bytes = what.bytes().chain([0]).chain(content.iter().copied());
        bytes.fold(basis, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let high = (fnv(0xcbf2_9ce4_8422_2325) & !0xf000) | 0x8000;
    let low = (fnv(0x6c62_272e_07bb_0142) & (u64::MAX >> 2)) | 1 << 63;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// JSON as coremltools lays it out.
fn pretty(entries: &Map<String, Value>) -> Vec<u8> {
    let mut text = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, layout);
    // Neither a `Vec` nor a map with string keys can fail.
    drop(entries.serialize(&mut serializer));
    text.push(b'\n');
    text
}

fn describe(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(_)) => "a boolean".to_owned(),
        Some(Value::Number(_)) => "a number".to_owned(),
        Some(Value::String(text)) => format!("\"{}\"", shorten(text)),
        Some(Value::Array(_)) => "an array".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
    }
}

/// A text from outside, short enough for a message.
fn shorten(text: &str) -> String {
    const MAX: usize = 80;
    let mut short: String = text.chars().take(MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
