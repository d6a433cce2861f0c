//! A Core ML model, opened: what can be asked of it and made of it.

use crate::Error;
use crate::blob::{SharedBytes, WeightFile, WeightWriter};
use crate::decompress::constexpr::{Dense, Rows, evaluate, evaluate_rows};
use crate::decompress::decompress;
use crate::inspect::{self, WeightInfo, WeightValues};
use crate::package::{Package, StagedPackage};
use crate::palettize::apply::{WeightForms, allotted, apply, choices, costs};
use crate::program::constant::Constant;
use crate::proto;
use crate::rewrite::Written;
use palettizer_pipeline::budget::{Chosen, Curves};
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{Decompressed, Limits, Progress, Report};
use prost::Message;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// A Core ML model: its program, and the package that its weights are in. Weights stay in the file, mapped
/// into memory, until they are needed.
///
/// ```no_run
/// use palettizer_coreml::Model;
/// use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
/// use palettizer_palette::{Mode, Nbits, PaletteSpec};
/// use palettizer_pipeline::staged_output::SaveOptions;
///
/// let model = Model::open("Model.mlpackage")?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
/// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
/// let report = model.palettize_to(&config, "Small.mlpackage", SaveOptions::default(), &())?;
/// println!("{} -> {} bytes", report.bytes_before, report.bytes_after);
/// # Ok::<(), palettizer_coreml::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    package: Package,
    spec: proto::Model,
}

/// Weight files by the names that a program has for them, such as `@model_path/weights/weight.bin`.
pub type WeightFiles = BTreeMap<String, Vec<u8>>;

impl Model {
    /// Opens an `.mlpackage` folder or an `.mlmodel` file.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the file and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Limits::default())
    }

    /// As [`open`](Self::open), within other limits.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        let (package, spec) = Package::open_with(path.as_ref(), limits)?;
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
    /// let model = palettizer_coreml::Model::open_parts(&spec, weights)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_parts(spec: &[u8], weights_dir: impl AsRef<Path>) -> Result<Self, Error> {
        let (package, spec) = Package::open_parts(spec, weights_dir.as_ref())?;
        Self::checked(package, spec)
    }

    /// The opposite of [`from_parts`](Self::from_parts): the serialized program and its weight files.
    ///
    /// # Errors
    /// [`Error::Package`], which a model that was opened cannot give.
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

    /// What users of the model see: inputs, outputs and states of each function, of which kinds.
    ///
    /// # Errors
    /// [`Error::BadValue`] if it is damaged.
    pub fn interface(&self) -> Result<proto::view::ModelDescription, Error> {
        proto::view::description(&self.spec)
            .map_err(|error| Error::bad_value("description", error.to_string()))
    }

    /// The elements of a value: in place, or in a weight file. `name` says in an error whose it is.
    ///
    /// # Errors
    /// [`Error::BadValue`], [`Error::Blob`] if the value does not fit its type.
    pub fn constant<'a>(
        &'a self,
        name: &str,
        value: &'a proto::Value,
    ) -> Result<Constant<'a>, Error> {
        Constant::read_raised(&self.package, name, value)
    }

    /// The bytes of a constant where they lie in a weight file, to be kept; `None` for one that the program itself holds.
    ///
    /// # Errors
    /// As [`constant`](Self::constant), but for the checks of its type and size.
    pub fn shared(&self, value: &proto::Value) -> Result<Option<SharedBytes>, Error> {
        let Some(place) = &value.blob_file else {
            return Ok(None);
        };
        let file = self.package.weight_file(&place.file_name)?;
        file.shared(place.offset).map(Some)
    }

    /// What the outputs of a `constexpr_` operation stand for; `made` gives those of the operations that it is chained to. With
    /// `room`, the fp16 elements of a palettized weight come as fp32: the same values, and a pass over them the less where they
    /// are to be computed with. They lie in `room` if it is enough.
    ///
    /// # Errors
    /// [`Error::Constexpr`] if parameters are missing or do not fit each other, and what reading them may give.
    pub fn expand<'a>(
        &'a self,
        op: &'a proto::Operation,
        made: &'a dyn Fn(&str) -> Option<&'a Dense>,
        room: Option<Vec<f32>>,
    ) -> Result<Vec<Dense>, Error> {
        evaluate(&self.package, op, made, room)
    }

    /// Of what `op` stands for, a tensor of `of` rows along its first axis, the rows that are named, in their order: the others are
    /// not expanded. `data` are these rows of the data that it is chained to, if it is; `made` gives what else it is chained to, all of
    /// it. `None` for what cannot be expanded by rows: then [`expand`](Self::expand) says what there is, or what is wrong with it.
    ///
    /// # Errors
    /// As [`expand`](Self::expand).
    pub fn expand_rows<'a>(
        &'a self,
        op: &'a proto::Operation,
        made: &'a dyn Fn(&str) -> Option<&'a Dense>,
        data: Option<Dense>,
        of: usize,
        named: &[usize],
        room: Option<Vec<f32>>,
    ) -> Result<Option<Dense>, Error> {
        evaluate_rows(&self.package, op, made, data, Rows { of, named }, room)
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
        self.package.unless_changed(found)
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
        self.package.unless_changed(found)
    }

    /// The model with its weights palettized as `config` says, in memory.
    ///
    /// # Errors
    /// [`Error::OpsetTooOld`] if the program's opset lacks an op, [`Error::Opset`] if it cannot be raised, and in
    /// [`Error::Pipeline`] what the configuration and reading may give.
    ///
    /// ```no_run
    /// # use palettizer_coreml::Model;
    /// # use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
    /// # use palettizer_palette::{Mode, Nbits, PaletteSpec};
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    /// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    /// let (small, report) = Model::open("Model.mlpackage")?.palettize(&config, &())?;
    /// assert!(report.weights.iter().any(|weight| weight.figures().is_some()));
    /// # Ok::<(), palettizer_coreml::Error>(())
    /// ```
    pub fn palettize(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<(Self, Report), Error> {
        let applied = apply(&self.package, &self.spec, config, &mut in_memory, progress);
        let applied = self.package.unless_changed(applied)?;
        let model = self.with(applied.spec, applied.files)?;
        Ok((model, applied.report))
    }

    /// Palettizes to the package `out` as it goes: the memory that is needed does not grow with the model.
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize), and what writing may give. Then there is no `out`, or the old one.
    pub fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let mut staging = StagedPackage::new(out.as_ref(), options)?;
        let mut open = |name: &str| staging.create_weight_file(name);
        let applied = apply(&self.package, &self.spec, config, &mut open, progress);
        let applied = self.package.unless_changed(applied)?;
        // The files are closed before they are moved.
        drop(applied.files);
        staging.commit(&self.package, &applied.spec)?;
        Ok(applied.report)
    }

    /// What each form of each weight costs that a budget chooses from: good for other budgets too, with
    /// [`Budget::with_curves`](palettizer_pipeline::budget::Budget::with_curves).
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize), but for a budget that cannot be met.
    pub fn curves(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Curves, Error> {
        let curves = costs(&self.package, &self.spec, config, progress);
        self.package.unless_changed(curves)
    }

    /// What the budget of a configuration comes to, before anything is palettized; `None` without one.
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize).
    pub fn chosen(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Option<Chosen>, Error> {
        let chosen = allotted(&self.package, &self.spec, config, progress);
        self.package.unless_changed(chosen)
    }

    /// The weights that a configuration palettizes, with the forms that they may take: several, if a budget is to choose.
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize), before anything is done.
    pub fn forms(&self, config: &OptimizationConfig) -> Result<Vec<WeightForms>, Error> {
        choices(&self.package, &self.spec, config)
    }

    /// The model with every compressed constant made dense, in memory.
    ///
    /// # Errors
    /// What reading the weights may give.
    pub fn decompress(&self, progress: &dyn Progress) -> Result<Self, Error> {
        let dense = decompress(&self.package, &self.spec, &mut in_memory, progress);
        let dense = self.package.unless_changed(dense)?;
        self.with(dense.spec, dense.files)
    }

    /// Makes every compressed constant dense, straight to the package `out`.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress), and what writing may give, with `out` as it was.
    pub fn decompress_to(
        &self,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Decompressed, Error> {
        let mut staging = StagedPackage::new(out.as_ref(), options)?;
        let mut open = |name: &str| staging.create_weight_file(name);
        let dense = decompress(&self.package, &self.spec, &mut open, progress);
        let dense = self.package.unless_changed(dense)?;
        drop(dense.files);
        staging.commit(&self.package, &dense.spec)?;
        Ok(Decompressed::new(dense.weights))
    }

    /// Writes the model to the package `out`.
    ///
    /// # Errors
    /// What writing may give, with `out` as it was.
    pub fn save(&self, out: impl AsRef<Path>, options: SaveOptions) -> Result<(), Error> {
        StagedPackage::new(out.as_ref(), options)?.commit(&self.package, &self.spec)
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
}

fn in_memory(_name: &str) -> Result<WeightWriter<Cursor<Vec<u8>>>, Error> {
    WeightWriter::new(Cursor::new(Vec::new()))
}
