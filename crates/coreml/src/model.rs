//! A Core ML model, opened: what can be asked of it and made of it.

use crate::Error;
use crate::blob::{WeightFile, WeightWriter};
use crate::config::{OptimizationConfig, Unmatched};
use crate::decompress::decompress;
use crate::inspect::{self, WeightInfo, WeightValues};
use crate::limits::Limits;
use crate::notes::Note;
use crate::opset::Target;
use crate::package::Package;
use crate::palettize::apply::{Applied, apply};

use crate::progress::Progress;
use crate::proto;
use crate::report::WeightReport;
use crate::rewrite::Written;
use crate::save::Staging;
use prost::Message;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// A Core ML model: its program, and the package that its weights are in. Weights stay in the file, mapped
/// into memory, until they are needed.
///
/// ```no_run
/// use palettizer_coreml::Model;
/// use palettizer_coreml::config::{OpPalettizerConfig, OptimizationConfig};
/// use palettizer_palette::{Mode, Nbits, PaletteSpec};
///
/// let model = Model::open("Model.mlpackage")?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
/// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
/// let outcome = model.palettize_to(&config, "Small.mlpackage".as_ref(), false, &())?;
/// println!("{} -> {} bytes", outcome.bytes_before, outcome.bytes_after);
/// # Ok::<(), palettizer_coreml::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    package: Package,
    spec: proto::Model,
}

/// Weight files by the names that a program has for them, such as `@model_path/weights/weight.bin`.
pub type WeightFiles = BTreeMap<String, Vec<u8>>;

/// What palettizing a model came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Bytes of the program and its weight files before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// The deployment target of the new model, such as `iOS18`.
    pub target: String,
    /// What became of every weight, in the order of the program.
    pub weights: Vec<WeightReport>,
    /// Op types and names of the configuration that fit nothing in the model.
    pub unmatched: Vec<Unmatched>,
    /// Forms that were written of which there are public reports of trouble on devices.
    pub notes: Vec<Note>,
}

/// What making a model or a checkpoint dense came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decompressed {
    /// How many weights were compressed; of a model that was dense already, none.
    pub weights: usize,
}

impl Decompressed {
    /// So many weights were compressed.
    pub fn new(weights: usize) -> Self {
        Self { weights }
    }
}

impl Model {
    /// Opens an `.mlpackage` folder or an `.mlmodel` file.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the file and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (package, spec) = Package::open(path)?;
        Self::checked(package, spec)
    }

    /// As [`open`](Self::open), within other limits.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        let (package, spec) = Package::open_with(path, limits)?;
        Self::checked(package, spec)
    }

    /// The same model, within other limits for what its weights may unfold to.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.package = self.package.with_limits(limits);
        self
    }

    /// Takes a model from memory: the serialized program, and its weight files by the names that the
    /// program has for them, such as `@model_path/weights/weight.bin`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_parts(spec: &[u8], weights: WeightFiles) -> Result<Self, Error> {
        let (package, spec) = Package::from_parts(spec, weights)?;
        Self::checked(package, spec)
    }

    /// Takes a model from its serialized program and the folder `weights_dir` that its weight files are in: `weight.bin`
    /// there is `@model_path/weights/weight.bin` to the program. This is how coremltools holds a model. The files are
    /// mapped, not copied: do not change them meanwhile.
    ///
    /// # Errors
    /// As [`open`](Self::open). A program without weight files needs no folder.
    ///
    /// ```no_run
    /// let spec = std::fs::read("Model.mlpackage/Data/com.apple.CoreML/model.mlmodel")?;
    /// let weights = "Model.mlpackage/Data/com.apple.CoreML/weights";
    /// let model = palettizer_coreml::Model::open_parts(&spec, weights.as_ref())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_parts(spec: &[u8], weights_dir: &Path) -> Result<Self, Error> {
        let (package, spec) = Package::open_parts(spec, weights_dir)?;
        Self::checked(package, spec)
    }

    /// The opposite of [`from_parts`](Self::from_parts): the serialized program and its weight files.
    ///
    /// # Errors
    /// [`Error::MissingWeightFile`], which a model that was opened cannot give.
    pub fn to_parts(&self) -> Result<(Vec<u8>, WeightFiles), Error> {
        let mut weights = BTreeMap::new();
        for name in self.package.weight_file_names() {
            let file = self.package.weight_file(name)?;
            weights.insert(name.to_owned(), file.bytes().to_vec());
        }
        Ok((self.spec.encode_to_vec(), weights))
    }

    fn checked(package: Package, spec: proto::Model) -> Result<Self, Error> {
        crate::check::check(&package, &spec)?;
        Ok(Self { package, spec })
    }

    /// The parsed model.
    pub fn spec(&self) -> &proto::Model {
        &self.spec
    }

    /// The package that the model came in.
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// Every constant with more than `threshold` elements, compressed ones included.
    ///
    /// # Errors
    /// What reading the weights may give.
    pub fn weights(&self, threshold: usize) -> Result<Vec<WeightInfo>, Error> {
        let found = inspect::weights(&self.package, &self.spec, threshold);
        self.package.settle(found)
    }

    /// The values of one constant, by its name: those that it stands for if it is compressed. Of several constants of a
    /// name (in several functions) the first in the order of the program.
    ///
    /// # Errors
    /// [`Error::NoConstant`] if there is none of this name, and what reading it may give.
    ///
    /// ```no_run
    /// let model = palettizer_coreml::Model::open("Model.mlpackage")?;
    /// for weight in model.weights(2048)? {
    ///     let values = model.weight_values(&weight.name)?;
    ///     println!("{} {} {:?}", weight.name, values.dtype, values.shape);
    /// }
    /// # Ok::<(), palettizer_coreml::Error>(())
    /// ```
    pub fn weight_values(&self, name: &str) -> Result<WeightValues<'_>, Error> {
        let found = inspect::values_of(&self.package, &self.spec, name);
        self.package.settle(found)
    }

    /// The model with its weights palettized as `config` says, in memory.
    ///
    /// # Errors
    /// What planning, reading the weights or a strict configuration may give.
    pub fn palettize(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<(Self, Outcome), Error> {
        let mut open = in_memory;
        let applied = apply(&self.package, &self.spec, config, &mut open, progress);
        let applied = self.package.settle(applied)?;
        let outcome = self.outcome(&applied);
        let model = self.with(applied.spec, applied.files)?;
        Ok((model, outcome))
    }

    /// Palettizes to the package `out` as it goes: the memory that is needed does not grow with the model.
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize), and what writing may give. Then there is no `out`, or, with
    /// `overwrite`, the old one.
    pub fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: &Path,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        let mut staging = Staging::new(out, overwrite)?;
        let mut open = |name: &str| staging.create_weight_file(name);
        let applied = apply(&self.package, &self.spec, config, &mut open, progress);
        let applied = self.package.settle(applied)?;
        let outcome = self.outcome(&applied);
        // The files are closed before they are moved.
        drop(applied.files);
        staging.commit(&self.package, &applied.spec)?;
        Ok(outcome)
    }

    /// The model with every compressed constant made dense, in memory.
    ///
    /// # Errors
    /// What reading the weights may give.
    pub fn decompress(&self, progress: &dyn Progress) -> Result<Self, Error> {
        let mut open = in_memory;
        let made = decompress(&self.package, &self.spec, &mut open, progress);
        let dense = self.package.settle(made)?;
        self.with(dense.spec, dense.files)
    }

    /// Makes every compressed constant dense, straight to the package `out`.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress), and what writing may give, with `out` as it was.
    pub fn decompress_to(
        &self,
        out: &Path,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<Decompressed, Error> {
        let mut staging = Staging::new(out, overwrite)?;
        let mut open = |name: &str| staging.create_weight_file(name);
        let made = decompress(&self.package, &self.spec, &mut open, progress);
        let dense = self.package.settle(made)?;
        drop(dense.files);
        staging.commit(&self.package, &dense.spec)?;
        Ok(Decompressed::new(dense.weights))
    }

    /// Writes the model to the package `out`.
    ///
    /// # Errors
    /// What writing may give, with `out` as it was.
    pub fn save(&self, out: &Path, overwrite: bool) -> Result<(), Error> {
        Staging::new(out, overwrite)?.commit(&self.package, &self.spec)
    }

    /// Bytes of the program and its weight files.
    pub fn stored_len(&self) -> u64 {
        self.package.stored_len()
    }

    fn with(
        &self,
        spec: proto::Model,
        files: Option<Written<Cursor<Vec<u8>>>>,
    ) -> Result<Self, Error> {
        let mut named = Vec::new();
        for (name, (bytes, _)) in files.into_iter().flatten() {
            let file = WeightFile::from_bytes(&name, bytes.into_inner())?;
            named.push((name, file));
        }
        let package = self.package.with_weight_files(named)?;
        let package = package.with_model_len(spec.encoded_len() as u64);
        Ok(Self { package, spec })
    }

    fn outcome<W>(&self, applied: &Applied<W>) -> Outcome {
        let program = applied.spec.encoded_len() as u64;
        let weights: u64 = match &applied.files {
            Some(files) => files.values().map(|(_, len)| len).sum(),
            None => {
                let files = self.package.weight_file_names();
                let files = files.filter_map(|name| self.package.weight_file(name).ok());
                files.map(WeightFile::len).sum()
            }
        };
        Outcome {
            bytes_before: self.stored_len(),
            bytes_after: program + weights,
            target: Target::ALL
                .into_iter()
                .find(|target| target.specification_version() == applied.spec.specification_version)
                .map_or_else(String::new, |target| target.to_string()),
            weights: applied.weights.clone(),
            unmatched: applied.unmatched.clone(),
            notes: applied.notes.clone(),
        }
    }
}

fn in_memory(_name: &str) -> Result<WeightWriter<Cursor<Vec<u8>>>, Error> {
    WeightWriter::new(Cursor::new(Vec::new()))
}
