//! A checkpoint, opened: its shards, and the tensors and palettized weights in them.

use crate::Error;
use crate::compact::{FORMAT, Meta, Stored, VERSION, WEIGHTS, foreign, parse_weights};
use crate::element::ElementType;
use crate::header::Entry;
use crate::index::{self, Index};
use crate::shard::Shard;
use palettizer_palette::Palette;
use palettizer_pipeline::Limits;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the name of a safetensors file ends in.
pub(crate) const EXTENSION: &str = ".safetensors";

/// A checkpoint: a `.safetensors` file, or a folder of them with an index. Its tensors stay in the files, mapped into
/// memory, until they are needed.
///
/// ```
/// use palettizer_pipeline::staged_output::SaveOptions;
/// use palettizer_safetensors::{Checkpoint, Content, DenseTensor, ElementType};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// let bias = DenseTensor::new(ElementType::U8, vec![3], &[1, 2, 3]);
/// Checkpoint::write(&path, &[("bias", Content::Dense(bias))], &Default::default(), SaveOptions::default())?;
///
/// let checkpoint = Checkpoint::open(&path)?;
/// assert_eq!(checkpoint.names(), ["bias"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint(pub(crate) Arc<Opened>);

/// An opened checkpoint.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The file, or the folder.
    pub path: PathBuf,
    /// The index of a folder.
    pub index: Option<Index>,
    /// The files in the order of their names.
    pub shards: Vec<Shard>,
    /// Tensors and palettized weights, shard after shard in the order of their data.
    pub items: Vec<Item>,
    /// The place of each in `items`, by name.
    by_name: HashMap<String, usize>,
    /// How much the palettized weights may unfold to.
    limits: Limits,
}

/// A tensor, or a palettized weight.
#[derive(Debug)]
pub(crate) struct Item {
    pub name: String,
    /// The shard's place.
    pub shard: usize,
    pub kind: Kind,
}

/// What an item is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A tensor: its place in the shard's header.
    Dense(usize),
    /// A palettized weight.
    Palette(Stored),
}

/// A tensor as it lies in a file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DenseTensor<'a> {
    /// The type of its elements.
    pub element: ElementType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements: little-endian, row-major.
    pub bytes: &'a [u8],
}

impl<'a> DenseTensor<'a> {
    /// A tensor with little-endian, row-major elements.
    pub fn new(element: ElementType, shape: Vec<usize>, bytes: &'a [u8]) -> Self {
        DenseTensor {
            element,
            shape,
            bytes,
        }
    }
}

/// What a checkpoint holds under a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// A tensor.
    Dense(DenseTensor<'a>),
    /// A palettized weight.
    Palette(Box<Palette>),
}

impl Checkpoint {
    /// Bytes of all files of tensors.
    pub fn stored_len(&self) -> u64 {
        self.0.len()
    }

    /// Opens a `.safetensors` file, the index of a folder of shards (`*.safetensors.index.json`), or the folder.
    ///
    /// # Errors
    /// [`Error::NotACheckpoint`], [`Error::Damaged`], [`Error::Index`], [`Error::Format`] or [`Error::Compact`] by what
    /// is wrong; an error of the system's in [`Error::Pipeline`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Limits::default())
    }

    /// As [`open`](Self::open), within other limits for what palettized weights may unfold to.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        let path = path.as_ref();
        palettizer_pipeline::staged_output::recover(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (path, index, shards) = if path.is_dir() {
            let (index, shards) = Index::open(&Index::find(path)?)?;
            (path, Some(index), shards)
        } else if name.ends_with(index::SUFFIX) {
            let (index, shards) = Index::open(path)?;
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            (folder.unwrap_or(Path::new(".")), Some(index), shards)
        } else if name.ends_with(EXTENSION) {
            (path, None, vec![Shard::open(path)?])
        } else {
            return Err(Error::NotACheckpoint {
                path: path.to_owned(),
                what: format!(
                    "expected a name that ends in {EXTENSION} or {}, or a folder",
                    index::SUFFIX
                ),
            });
        };
        Opened::new(path, index, shards, limits).map(|opened| Self(Arc::new(opened)))
    }

    /// Whether `path` looks like a checkpoint, by its name or, for a folder, by the names of the files in it.
    ///
    /// ```
    /// use palettizer_safetensors::Checkpoint;
    ///
    /// assert!(Checkpoint::is_at("model.safetensors"));
    /// assert!(!Checkpoint::is_at("Model.mlpackage"));
    /// ```
    pub fn is_at(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let named = |name: &std::ffi::OsStr| {
            let name = name.to_string_lossy();
            name.ends_with(EXTENSION) || name.ends_with(index::SUFFIX)
        };
        match std::fs::read_dir(path) {
            Ok(entries) => entries.flatten().any(|entry| named(&entry.file_name())),
            Err(_) => path.file_name().is_some_and(named),
        }
    }

    /// The names of all tensors and palettized weights, shard after shard in the order of their data.
    pub fn names(&self) -> Vec<&str> {
        self.0.items.iter().map(|item| item.name.as_str()).collect()
    }

    /// The tensor or the palettized weight of a name. A palette's error figures are not stored: they are zero.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], and in [`Error::Pipeline`] for a palettized weight that stands for more than the files may
    /// unfold to.
    pub fn get(&self, name: &str) -> Result<Content<'_>, Error> {
        let item = self.0.item(name).ok_or_else(|| Error::UnknownTensor {
            path: self.0.path.clone(),
            name: name.to_owned(),
        })?;
        let shard = &self.0.shards[item.shard];
        Ok(match &item.kind {
            Kind::Palette(stored) => {
                self.0.unfolds(name, stored.dense_len())?;
                let palette = stored.palette(shard);
                shard.bytes.unchanged()?;
                Content::Palette(Box::new(palette))
            }
            Kind::Dense(at) => {
                let entry = &shard.header.tensors[*at];
                Content::Dense(DenseTensor::new(
                    entry.element,
                    entry.shape.clone(),
                    shard.data(entry),
                ))
            }
        })
    }

    /// The strings that the files have for their users, those of palettizer left out. Of a name that several shards have
    /// a string for, that of the last.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let shards = self.0.shards.iter();
        shards
            .flat_map(|shard| foreign(&shard.header.metadata))
            .collect()
    }
}

impl Opened {
    fn new(
        path: &Path,
        index: Option<Index>,
        shards: Vec<Shard>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut items = Vec::new();
        for (at, shard) in shards.iter().enumerate() {
            items.extend(items_of(shard, at)?);
        }
        let names = items.iter().enumerate();
        let by_name: HashMap<_, _> = names.map(|(at, item)| (item.name.clone(), at)).collect();
        let mut names = items.iter().enumerate();
        // The index has every tensor once, so that this is a weight, palettized in two shards.
        if let Some((_, twice)) = names.find(|(at, item)| by_name[&item.name] != *at) {
            return Err(Error::Index {
                path: path.to_owned(),
                what: format!("\"{}\" is in two shards", twice.name),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            index,
            shards,
            items,
            by_name,
            limits,
        })
    }

    pub(crate) fn item(&self, name: &str) -> Option<&Item> {
        self.by_name.get(name).map(|&at| &self.items[at])
    }

    /// Refuses what unfolds to more bytes than files of this size may.
    pub(crate) fn unfolds(&self, name: &str, bytes: u64) -> Result<(), Error> {
        Ok(self.limits.check(name, bytes, self.len())?)
    }

    /// What came of work on this checkpoint; if a file has changed, that is why it is worth nothing.
    pub(crate) fn settle<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Pipeline(palettizer_pipeline::Error::Stopped)) = done {
            return done;
        }
        for shard in &self.shards {
            shard.bytes.unchanged()?;
        }
        done
    }

    /// A dense tensor's entry; `None` for a palettized weight.
    pub(crate) fn entry(&self, item: &Item) -> Option<&Entry> {
        match item.kind {
            Kind::Dense(at) => Some(&self.shards[item.shard].header.tensors[at]),
            Kind::Palette(_) => None,
        }
    }

    /// The shape of an item, its type when it is dense, and the bytes that it takes.
    pub(crate) fn extent<'i>(&'i self, item: &'i Item) -> (&'i [usize], ElementType, u64) {
        let shard = &self.shards[item.shard];
        match &item.kind {
            Kind::Dense(at) => {
                let entry = &shard.header.tensors[*at];
                (&entry.shape, entry.element, entry.range.len() as u64)
            }
            Kind::Palette(stored) => (stored.shape(), stored.dtype.into(), stored.bytes(shard)),
        }
    }

    /// Bytes of all files.
    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(Shard::len).sum()
    }
}

/// The tensors and palettized weights of a shard, in the order of their (first) data.
fn items_of(shard: &Shard, number: usize) -> Result<Vec<Item>, Error> {
    let tensors = &shard.header.tensors;
    let places = shard.header.places();
    let mut items: Vec<(usize, String, Kind)> = Vec::new();
    let mut taken = vec![false; tensors.len()];
    for (name, meta) in palettized(shard)? {
        let stored = Stored::find(&name, &meta, tensors, &places)
            .map_err(|what| Error::compact(shard, &name, what))?;
        for at in stored.positions() {
            if std::mem::replace(&mut taken[at], true) {
                let part = &tensors[at].name;
                let what = format!("its tensor \"{part}\" belongs to another weight too");
                return Err(Error::compact(shard, &name, what));
            }
        }
        let first = stored.positions().min().unwrap_or(0);
        items.push((first, name, Kind::Palette(stored)));
    }
    let dense = (0..tensors.len()).filter(|&at| !taken[at]);
    items.extend(dense.map(|at| (at, tensors[at].name.clone(), Kind::Dense(at))));
    items.sort_by_key(|(at, ..)| *at);
    let item = |(_, name, kind)| Item {
        name,
        shard: number,
        kind,
    };
    Ok(items.into_iter().map(item).collect())
}

/// What a shard's metadata say of its palettized weights.
fn palettized(shard: &Shard) -> Result<BTreeMap<String, Meta>, Error> {
    let metadata = &shard.header.metadata;
    match metadata.get(FORMAT) {
        None => return Ok(BTreeMap::new()),
        Some(found) if found != VERSION => {
            return Err(Error::Format {
                path: shard.path.clone(),
                found: found.clone(),
            });
        }
        Some(_) => {}
    }
    let damaged = |what: String| Error::Damaged {
        path: shard.path.clone(),
        what: format!("its metadata's {WEIGHTS}: {what}"),
    };
    let json = metadata
        .get(WEIGHTS)
        .ok_or_else(|| damaged("missing".to_owned()))?;
    parse_weights(json).map_err(|error| damaged(error.to_string()))
}
