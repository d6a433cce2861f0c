//! A package, built part by part.

use super::{DATA, MANIFEST, Package, PackageError, weight_file_path};
use crate::Error;
use crate::blob::{WeightFile, WeightWriter};
use crate::proto::Model;
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::staged_output::{NewFile, SaveOptions, StagedOutput, disk, is_package};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Weight files are written and copied in pieces of this size.
const PIECE: usize = 1 << 20;

const EXTENSION: &str = "mlpackage";

/// A package on its way to disk. Dropped before [`commit`](Self::commit), it leaves nothing behind.
#[derive(Debug)]
pub struct StagedPackage {
    /// The new weight files, by name, where they are now.
    weights: BTreeMap<String, PathBuf>,
    staged: StagedOutput,
}

impl StagedPackage {
    /// Prepares to save at `out`, which must end in `.mlpackage`; it may replace a package only if `options` say so.
    ///
    /// Everything that would keep the package from being put there is found now, before any work.
    ///
    /// # Errors
    /// [`PackageError::OutputName`], [`PipelineError::Exists`], [`PipelineError::OutputPlace`] if there is no folder for it,
    /// the folder cannot be written to, or lies in another package; [`PipelineError::DiskFull`].
    ///
    /// ```no_run
    /// use palettizer_coreml::package::Package;
    /// use palettizer_coreml::package::StagedPackage;
    /// use palettizer_pipeline::staged_output::SaveOptions;
    ///
    /// let (package, model) = Package::open("Model.mlpackage")?;
    /// let staging = StagedPackage::new("Copy.mlpackage".as_ref(), SaveOptions::default())?;
    /// staging.commit(&package, &model)?;
    /// # Ok::<(), palettizer_coreml::Error>(())
    /// ```
    pub fn new(out: &Path, options: SaveOptions) -> Result<Self, Error> {
        if out.extension().is_none_or(|found| found != EXTENSION) {
            return Err(PackageError::OutputName {
                path: out.to_owned(),
            }
            .into());
        }
        Ok(Self {
            weights: BTreeMap::new(),
            staged: StagedOutput::folder(out, options, no_package)?,
        })
    }

    /// Begins a weight file; `file_name` is what the program calls it, such as
    /// `@model_path/weights/weight.bin`. It must be [finished](WeightWriter::finish) before the commit.
    ///
    /// # Errors
    /// [`PackageError::WeightFileName`] for a name that leads out of the package; [`PipelineError::Io`] or
    /// [`PipelineError::DiskFull`] if the file cannot be written.
    pub fn create_weight_file(
        &mut self,
        file_name: &str,
    ) -> Result<WeightWriter<BufWriter<NewFile>>, Error> {
        weight_file_path(file_name)?;
        // Which folder it goes to is up to the package's manifest, so that it is moved at the end.
        let folder = self.staged.scratch();
        let path = folder.join(format!("{}.bin", self.weights.len()));
        let out = self.staged.out();
        let file = NewFile::create(&path).map_err(|source| PipelineError::writing(out, source))?;
        self.weights.insert(file_name.to_owned(), path);
        WeightWriter::with_path(BufWriter::with_capacity(PIECE, file), out)
    }

    /// Writes the rest of the package and puts it in place: the model, the manifest, the weight files
    /// that were not created anew and everything else in `package`, as it is there.
    ///
    /// # Errors
    /// [`PipelineError::Io`], [`PipelineError::DiskFull`], [`PipelineError::Exists`] if the output came to be meanwhile, and
    /// [`PipelineError::OutputPlace`] if it cannot be replaced. Then nothing has changed at the output's place.
    pub fn commit(self, package: &Package, model: &Model) -> Result<(), Error> {
        if let Some(root) = &package.root {
            let root = root
                .canonicalize()
                .map_err(|e| PipelineError::io(root, e))?;
            let out = self.staged.out();
            if root != out && root.starts_with(out) {
                return Err(PipelineError::OutputPlace {
                    path: out.to_owned(),
                    reason: "it would replace a folder that holds the input".to_owned(),
                }
                .into());
            }
        }
        let built = self.staged.built();
        let done = package.unless_changed(self.build(&built, package, model));
        self.staged.named(done)?;
        Ok(self.staged.commit()?)
    }

    /// Builds the whole package at `built`.
    fn build(&self, built: &Path, package: &Package, model: &Model) -> Result<(), Error> {
        let manifest = &package.manifest;
        let model_file = Path::new(DATA).join(&manifest.model);
        let mut written: BTreeSet<PathBuf> = [model_file.clone(), PathBuf::from(MANIFEST)].into();

        create_folder(built)?;
        for folder in &package.tree.folders {
            create_folder(&built.join(folder))?;
        }

        let mut weight_files = Vec::new();
        let names: BTreeSet<&String> = self.weights.keys().chain(package.weights.keys()).collect();
        for name in names {
            let in_data = manifest.model_folder().join(weight_file_path(name)?);
            let path = Path::new(DATA).join(&in_data);
            let to = built.join(&path);
            create_parent(&to)?;
            if let Some(from) = self.weights.get(name) {
                disk::rename(from, &to).map_err(|source| PipelineError::writing(&to, source))?;
                sync(&to)?;
            } else if let Some(file) = package.weights.get(name) {
                copy_weights(file, &to)?;
            }
            weight_files.push(in_data);
            written.insert(path);
        }

        let bytes = model.encode_to_vec();
        write(&built.join(&model_file), &bytes)?;
        write(
            &built.join(MANIFEST),
            &manifest.to_bytes(&bytes, &weight_files),
        )?;

        if let Some(root) = &package.root {
            for file in &package.tree.files {
                if !written.contains(file) {
                    let (from, to) = (root.join(file), built.join(file));
                    disk::copy(&from, &to).map_err(|source| PipelineError::writing(&to, source))?;
                    sync(&to)?;
                }
            }
        }
        sync_folders(built)
    }
}

/// Copies a weight file that nobody rewrote, giving its memory back piece by piece.
fn copy_weights(file: &WeightFile, to: &Path) -> Result<(), Error> {
    let fail = |source| PipelineError::writing(to, source);
    let mut out = NewFile::create(to).map_err(fail)?;
    let mut at = 0u64;
    for piece in file.bytes().chunks(PIECE) {
        out.write_all(piece).map_err(fail)?;
        let end = at + piece.len() as u64;
        file.release(at..end);
        at = end;
    }
    Ok(out.sync().map_err(fail)?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    create_parent(path)?;
    Ok(disk::write(path, bytes).map_err(|source| PipelineError::writing(path, source))?)
}

fn create_parent(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), create_folder)
}

fn create_folder(path: &Path) -> Result<(), Error> {
    Ok(disk::create_folders(path).map_err(|source| PipelineError::writing(path, source))?)
}

fn sync(path: &Path) -> Result<(), Error> {
    Ok(disk::sync(path).map_err(|source| PipelineError::writing(path, source))?)
}

fn sync_folders(folder: &Path) -> Result<(), Error> {
    let io = |source| PipelineError::io(folder, source);
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    Ok(disk::sync_folder(folder).map_err(io)?)
}

/// Why a package must not replace what is there.
fn no_package(out: &Path) -> Option<String> {
    let empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    (out.is_dir() && !is_package(out) && !empty()).then(|| {
        "this is a folder with something other than a package in it; move it away".to_owned()
    })
}
