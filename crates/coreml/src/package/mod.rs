//! Packages: an `.mlpackage` folder, a bare `.mlmodel` file, or the same in memory.
//!
//! Opening one reads and checks the manifest, decodes the model, and maps every weight file that the
//! program refers to. Everything that can be wrong with the outside of a package is found here, before
//! any work. The model is handed out as [`proto::Model`](crate::proto::Model); what else is in the
//! package (other items, stray files) is kept, to be written back by [`StagedPackage`].

mod error;
mod kind;
mod manifest;
mod path;
mod staged;
mod tree;

use crate::Error;
use crate::blob::WeightFile;
use crate::program::walk::weight_files;
use crate::proto::{Model, measure};
pub use error::PackageError;
pub use kind::{kind_name, stages};
pub(crate) use manifest::{DATA, MANIFEST, Manifest};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::Limits;
use palettizer_pipeline::mapped_file::{self, Input};
pub(crate) use path::weight_file as weight_file_path;
use prost::Message;
pub use staged::StagedPackage;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
pub(crate) use tree::Tree;

/// The largest model that is read: protobuf's own limit for a message.
const MAX_MODEL_LEN: u64 = (2 << 30) - 1;

/// The folder of the weight files, beside the model's file.
const WEIGHTS: &str = "weights";

/// A package without its program: the manifest, the weight files, and whatever else is in it.
///
/// A clone shares the weight files.
#[derive(Clone, Debug)]
pub struct Package {
    /// Where it came from, for messages.
    path: PathBuf,
    /// The folder; `None` for a bare model and for one in memory.
    root: Option<PathBuf>,
    manifest: Manifest,
    tree: Tree,
    model_len: u64,
    weights: BTreeMap<String, WeightFile>,
    limits: Limits,
}

impl Package {
    /// Opens an `.mlpackage` folder or a `.mlmodel` file.
    ///
    /// # Errors
    /// [`PipelineError::Io`] if something cannot be read; [`PackageError::NotAPackage`], [`PipelineError::NotAFile`],
    /// [`PipelineError::TooLarge`], [`PackageError::TooMany`], [`PackageError::MissingItem`], [`PackageError::UnsafePath`] and those
    /// named `Manifest…` if the folder is no proper package; [`PackageError::Protobuf`], [`PackageError::EmptyModel`]
    /// and [`PackageError::NotAnMlProgram`] if the model is none of ours; [`PackageError::WeightFileName`],
    /// [`PackageError::MissingWeightFile`], [`Error::Blob`] if the program
    /// refers to weight files that cannot be used.
    ///
    /// ```no_run
    /// use palettizer_coreml::package::Package;
    /// let (package, model) = Package::open("Model.mlpackage")?;
    /// println!("{} bytes, version {}", package.stored_len(), model.specification_version);
    /// # Ok::<(), palettizer_coreml::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<(Package, Model), Error> {
        Self::open_with(path.as_ref(), Limits::default())
    }

    /// As [`open`](Self::open), within other limits.
    pub(crate) fn open_with(path: &Path, limits: Limits) -> Result<(Package, Model), Error> {
        palettizer_pipeline::staged_output::recover(path);
        let metadata = fs::metadata(path).map_err(|source| PipelineError::io(path, source))?;
        let foreign = |what| PipelineError::Foreign {
            path: path.to_owned(),
            what,
        };
        let opened = if metadata.is_dir() {
            match mapped_file::folder(path) {
                Some(what) if !path.join(MANIFEST).exists() => Err(foreign(what).into()),
                _ => Self::open_folder(path, limits),
            }
        } else if let Some(what) =
            (metadata.is_file().then(|| mapped_file::by_content(path))).flatten()
        {
            Err(foreign(what).into())
        } else {
            // A model may have any name. If it is none, the name may say what it is.
            Self::open_bare(path, limits).map_err(|error| match mapped_file::by_name(path) {
                Some(what) if no_model(&error) => foreign(what).into(),
                _ => error,
            })
        };
        opened.map(|(package, model)| (package.with_limits(limits), model))
    }

    /// The same package, within other limits.
    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How much it may unfold to.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    fn open_folder(root: &Path, limits: Limits) -> Result<(Package, Model), Error> {
        let manifest = root.join(MANIFEST);
        let there = manifest.try_exists();
        if !there.map_err(|source| PipelineError::io(&manifest, source))? {
            return Err(PackageError::NotAPackage {
                path: root.to_owned(),
                reason: "expected a folder with a Manifest.json, or a .mlmodel file",
            }
            .into());
        }
        let manifest = Manifest::read(root)?;
        for item in &manifest.items {
            if path::resolve(root, &Path::new(DATA).join(item))?.is_none() {
                return Err(PackageError::MissingItem {
                    path: root.to_owned(),
                    item: item.display().to_string(),
                }
                .into());
            }
        }
        let tree = Tree::read(root)?;
        let (model, model_len) = read_model(&root.join(DATA).join(&manifest.model), limits)?;
        let folder = Path::new(DATA).join(manifest.model_folder());
        let mut weights = BTreeMap::new();
        for name in weight_files(&model) {
            let file = path::resolve(root, &folder.join(path::weight_file(name)?))?;
            let file = file.ok_or_else(|| PackageError::missing(root, name))?;
            weights.insert(name.to_owned(), WeightFile::open(&file)?);
        }
        let package = Package {
            path: root.to_owned(),
            root: Some(root.to_owned()),
            manifest,
            tree,
            model_len,
            weights,
            limits: Limits::default(),
        };
        Ok((package, model))
    }

    fn open_bare(path: &Path, limits: Limits) -> Result<(Package, Model), Error> {
        let (model, model_len) = read_model(path, limits)?;
        Self::without_folder(path.to_owned(), model, model_len, BTreeMap::new())
    }

    /// Makes a package of a serialized model and its weight files, by the names that the program refers
    /// to them with (such as `@model_path/weights/weight.bin`). No file is read.
    ///
    /// # Errors
    /// As [`open`](Self::open), as far as there is neither folder nor manifest.
    ///
    /// ```
    /// use palettizer_coreml::package::Package;
    /// use std::collections::BTreeMap;
    ///
    /// // Specification version 9, and an ML Program with nothing in it.
    /// let (package, model) = Package::from_parts(&[0x08, 9, 0xb2, 0x1f, 0], BTreeMap::new())?;
    /// assert!(model.ml_program.is_some());
    /// assert_eq!(package.weight_file_names().count(), 0);
    /// # Ok::<(), palettizer_coreml::Error>(())
    /// ```
    pub fn from_parts(
        model: &[u8],
        weights: BTreeMap<String, Vec<u8>>,
    ) -> Result<(Package, Model), Error> {
        let path = PathBuf::from("(in memory)");
        let decoded = decode_model(&path, model, Limits::default())?;
        let mut files = BTreeMap::new();
        for (name, bytes) in weights {
            path::weight_file(&name)?;
            let file = WeightFile::from_bytes(&name, bytes)?;
            files.insert(name, file);
        }
        Self::without_folder(path, decoded, model.len() as u64, files)
    }

    /// Makes a package of a serialized model and the folder that its weight files are in: what the program calls
    /// `@model_path/weights/weight.bin` is `weight.bin` there. The files are mapped.
    pub(crate) fn open_parts(model: &[u8], weights_dir: &Path) -> Result<(Package, Model), Error> {
        // a model without weight files has no folder; messages begin with a name all the same
        let shown = match weights_dir.as_os_str().is_empty() {
            true => Path::new("model in memory"),
            false => weights_dir,
        };
        let decoded = decode_model(shown, model, Limits::default())?;
        let mut files = BTreeMap::new();
        for name in weight_files(&decoded) {
            let relative = path::weight_file(name)?;
            let file = match relative.strip_prefix(WEIGHTS) {
                Ok(inside) => path::resolve(weights_dir, inside)?,
                Err(_) => None,
            };
            let file = file.ok_or_else(|| PackageError::missing(shown, name))?;
            files.insert(name.to_owned(), WeightFile::open(&file)?);
        }
        Self::without_folder(shown.to_owned(), decoded, model.len() as u64, files)
    }

    fn without_folder(
        path: PathBuf,
        model: Model,
        model_len: u64,
        weights: BTreeMap<String, WeightFile>,
    ) -> Result<(Package, Model), Error> {
        for name in weight_files(&model) {
            path::weight_file(name)?;
            if !weights.contains_key(name) {
                return Err(PackageError::missing(&path, name).into());
            }
        }
        let package = Package {
            path,
            root: None,
            manifest: Manifest::fresh(),
            tree: Tree::default(),
            model_len,
            weights,
            limits: Limits::default(),
        };
        Ok((package, model))
    }

    /// A package equal to this one but for the given weight files, by name; those not named stay.
    ///
    /// # Errors
    /// [`PackageError::WeightFileName`] for a name that is not like `@model_path/weights/weight.bin`.
    pub fn with_weight_files(
        &self,
        files: impl IntoIterator<Item = (String, WeightFile)>,
    ) -> Result<Package, Error> {
        let mut package = self.clone();
        for (name, file) in files {
            path::weight_file(&name)?;
            package.weights.insert(name, file);
        }
        Ok(package)
    }

    /// A package equal to this one whose model takes `len` bytes.
    pub(crate) fn with_model_len(mut self, len: u64) -> Package {
        self.model_len = len;
        self
    }

    /// The weight file that the program refers to by this name.
    ///
    /// # Errors
    /// [`PackageError::WeightFileName`] or [`PackageError::MissingWeightFile`] if the package has no such file; not
    /// for a name in the model that came with the package.
    pub fn weight_file(&self, file_name: &str) -> Result<&WeightFile, Error> {
        path::weight_file(file_name)?;
        let found = self.weights.get(file_name);
        Ok(found.ok_or_else(|| PackageError::missing(&self.path, file_name))?)
    }

    /// The names of the weight files that the program refers to, in order.
    pub fn weight_file_names(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }

    /// Whether the weight files are still as they were when they were opened.
    ///
    /// # Errors
    /// [`PipelineError::Changed`].
    pub fn unchanged(&self) -> Result<(), Error> {
        Ok(self.weights.values().try_for_each(WeightFile::unchanged)?)
    }

    /// What came of work on this package; if a weight file has changed, that is why it is worth nothing.
    pub(crate) fn unless_changed<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Err(Error::Pipeline(PipelineError::Stopped)) => done,
            _ => self.unchanged().and(done),
        }
    }

    /// Bytes of the model and its weight files, as they are stored.
    pub fn stored_len(&self) -> u64 {
        self.model_len.saturating_add(self.weights_len())
    }

    /// Bytes of a package's folder beside the model and its weight files, if it has these.
    ///
    /// # Errors
    /// What reading the folder gives, and a name that leads out of it.
    pub(crate) fn bytes_beside(&self, weight_files: &BTreeSet<&str>) -> Result<u64, Error> {
        let folder = self.manifest.model_folder();
        let weights = weight_files
            .iter()
            .map(|name| Ok(folder.join(weight_file_path(name)?)));
        let weights = weights.collect::<Result<Vec<PathBuf>, Error>>()?;
        let mut bytes = self.manifest.to_bytes(&[], &weights).len() as u64;
        let Some(root) = &self.root else {
            return Ok(bytes);
        };
        let mut counted: BTreeSet<PathBuf> = weights
            .iter()
            .map(|path| Path::new(DATA).join(path))
            .collect();
        counted.insert(Path::new(DATA).join(&self.manifest.model));
        counted.insert(PathBuf::from(MANIFEST));
        for file in self
            .tree
            .files
            .iter()
            .filter(|file| !counted.contains(*file))
        {
            let path = root.join(file);
            let found = path
                .metadata()
                .map_err(|source| PipelineError::io(&path, source))?;
            bytes += found.len();
        }
        Ok(bytes)
    }

    /// Bytes of the weight files.
    pub(crate) fn weights_len(&self) -> u64 {
        let weights = self.weights.values().map(WeightFile::len);
        weights.fold(0, u64::saturating_add)
    }

    /// Where the package was opened, or `(in memory)`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether an error says that a file holds no Core ML model at all.
fn no_model(error: &Error) -> bool {
    matches!(
        error,
        Error::Package(PackageError::Protobuf { .. } | PackageError::EmptyModel { .. })
            | Error::Pipeline(PipelineError::TooLarge { .. })
    )
}

/// Reads and decodes a model's file; gives its length too.
fn read_model(path: &Path, limits: Limits) -> Result<(Model, u64), Error> {
    let bytes = Input::open(path)?.read(MAX_MODEL_LEN)?;
    Ok((decode_model(path, &bytes, limits)?, bytes.len() as u64))
}

fn decode_model(path: &Path, bytes: &[u8], limits: Limits) -> Result<Model, Error> {
    let stored = bytes.len() as u64;
    let allowed = limits.program(stored);
    let asked = measure::<Model>(bytes, allowed);
    if asked > allowed {
        return Err(PipelineError::Expansion {
            name: path.display().to_string(),
            asked,
            stored,
            allowed,
        }
        .into());
    }
    let model = Model::decode(bytes).map_err(|source| PackageError::Protobuf {
        path: path.to_owned(),
        source,
    })?;
    kind::check(&model, path)?;
    Ok(model)
}
