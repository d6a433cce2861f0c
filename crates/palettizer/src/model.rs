//! The model as a user of the library has it.

use crate::Report;
use palettizer_coreml::config::OptimizationConfig;
use palettizer_coreml::{
    Decompressed, Error, Limits, Progress, WeightFiles, WeightInfo, WeightValues,
};
use std::path::Path;
use std::time::Instant;

/// A Core ML model. Its weights stay in the file, mapped into memory, until they are needed.
///
/// ```
/// use palettizer::{Mode, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec};
///
/// let model = palettizer::demo::model()?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
/// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
/// let (small, report) = model.palettize(&config)?;
/// assert!(report.bytes_after * 3 < report.bytes_before);
/// assert_eq!(small.decompress()?.weights(2048)?.len(), model.weights(2048)?.len());
/// # Ok::<(), palettizer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model(palettizer_coreml::Model);

/// How a model is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaveOptions {
    /// Replace what is there.
    pub overwrite: bool,
}

impl SaveOptions {
    /// Whether to replace what is there.
    pub fn overwriting(overwrite: bool) -> Self {
        SaveOptions { overwrite }
    }
}

impl Model {
    /// Opens an `.mlpackage` folder or an `.mlmodel` file.
    ///
    /// # Errors
    /// An [`Error`] that says what is wrong with the file and what to do; a model that is no ML Program and
    /// no pipeline of them is refused by the name of its type.
    ///
    /// ```
    /// let error = palettizer::Model::open("missing.mlpackage").unwrap_err();
    /// assert!(error.to_string().starts_with("missing.mlpackage"));
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        palettizer_coreml::Model::open(path).map(Self)
    }

    /// As [`open`](Self::open), within other limits for what the program and compressed weights may unfold to.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// ```no_run
    /// use palettizer::{Limits, Model};
    /// let model = Model::open_with("Model.mlpackage", Limits::default().with_max_expansion(2000))?;
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        palettizer_coreml::Model::open_with(path, limits).map(Self)
    }

    /// The same model, within other limits for what compressed weights may unfold to.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self(self.0.with_limits(limits))
    }

    /// Bytes of the program and its weight files, as the reports of all commands count them.
    pub fn stored_len(&self) -> u64 {
        self.0.stored_len()
    }

    /// Takes a model from memory: the serialized program (the content of `model.mlmodel`), and its weight
    /// files by the names that the program has for them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// ```
    /// let (spec, weights) = palettizer::demo::model()?.to_parts()?;
    /// let model = palettizer::Model::from_parts(&spec, weights)?;
    /// assert!(!model.weights(2048)?.is_empty());
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn from_parts(spec: &[u8], weights: WeightFiles) -> Result<Self, Error> {
        palettizer_coreml::Model::from_parts(spec, weights).map(Self)
    }

    /// Takes a model from its serialized program and the folder that its weight files are in, as coremltools holds one.
    /// The files are mapped.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// ```no_run
    /// let spec = std::fs::read("Model.mlpackage/Data/com.apple.CoreML/model.mlmodel")?;
    /// let weights = "Model.mlpackage/Data/com.apple.CoreML/weights";
    /// let model = palettizer::Model::open_parts(&spec, weights)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_parts(spec: &[u8], weights_dir: impl AsRef<Path>) -> Result<Self, Error> {
        palettizer_coreml::Model::open_parts(spec, weights_dir.as_ref()).map(Self)
    }

    /// The serialized program and its weight files, by the names that the program has for them.
    ///
    /// # Errors
    /// None for a model that was opened.
    ///
    /// ```
    /// let (spec, weights) = palettizer::demo::model()?.to_parts()?;
    /// assert!(spec.len() > 100 && weights.contains_key("@model_path/weights/weight.bin"));
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn to_parts(&self) -> Result<(Vec<u8>, WeightFiles), Error> {
        self.0.to_parts()
    }

    /// Every constant with more than `threshold` elements, in the order of the program, compressed ones
    /// included.
    ///
    /// # Errors
    /// What reading the weights may give.
    ///
    /// ```
    /// for weight in palettizer::demo::model()?.weights(2048)? {
    ///     println!("{} {:?} {}", weight.name, weight.shape, weight.unique_values);
    /// }
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn weights(&self, threshold: usize) -> Result<Vec<WeightInfo>, Error> {
        self.0.weights(threshold)
    }

    /// The values of one constant, by its name: those that it stands for if it is compressed.
    ///
    /// # Errors
    /// [`Error::NoConstant`] if there is none of this name, and what reading it may give.
    ///
    /// ```
    /// let model = palettizer::demo::model()?;
    /// for weight in model.weights(2048)? {
    ///     assert_eq!(model.weight_values(&weight.name)?.shape, weight.shape);
    /// }
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn weight_values(&self, name: &str) -> Result<WeightValues<'_>, Error> {
        self.0.weight_values(name)
    }

    /// Palettizes in memory.
    ///
    /// # Errors
    /// [`Error::OpsetTooOld`] if the program's opset lacks an op, [`Error::Opset`] if it cannot be raised,
    /// [`Error::ConfigConflict`] and [`Error::Strict`] by the configuration, and what reading may give.
    ///
    /// ```
    /// use palettizer::{Mode, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, Status};
    ///
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    /// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    /// let (small, report) = palettizer::demo::model()?.palettize(&config)?;
    /// assert!(report.weights.iter().any(|weight| weight.status == Status::Compressed));
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn palettize(&self, config: &OptimizationConfig) -> Result<(Self, Report), Error> {
        self.palettize_with(config, &())
    }

    /// Palettizes in memory, and tells `progress` of it.
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize), and [`Error::Stopped`] when `progress` asks for it.
    pub fn palettize_with(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<(Self, Report), Error> {
        let start = Instant::now();
        let (model, outcome) = self.0.palettize(config, progress)?;
        Ok((Self(model), Report::new(outcome, start.elapsed())))
    }

    /// Palettizes straight to the package `out`: the memory that is needed does not grow with the model.
    ///
    /// # Errors
    /// As [`palettize`](Self::palettize), and what writing may give. Then `out` is as it was before.
    ///
    /// ```no_run
    /// use palettizer::{Mode, Model, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, SaveOptions};
    ///
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    /// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    /// let model = Model::open("Model.mlpackage")?;
    /// let report = model.palettize_to(&config, "Small.mlpackage", SaveOptions::default(), &())?;
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let start = Instant::now();
        let out = out.as_ref();
        let outcome = self
            .0
            .palettize_to(config, out, options.overwrite, progress)?;
        Ok(Report::new(outcome, start.elapsed()))
    }

    /// Makes every compressed constant dense, in memory.
    ///
    /// # Errors
    /// What reading the weights may give.
    ///
    /// ```
    /// let model = palettizer::demo::model()?.decompress()?;
    /// assert!(model.weights(0)?.iter().all(|weight| weight.compression.is_none()));
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn decompress(&self) -> Result<Self, Error> {
        self.decompress_with(&())
    }

    /// Makes every compressed constant dense, in memory, and tells `progress` of it.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress), and [`Error::Stopped`] when `progress` asks for it.
    pub fn decompress_with(&self, progress: &dyn Progress) -> Result<Self, Error> {
        self.0.decompress(progress).map(Self)
    }

    /// Makes every compressed constant dense, straight to the package `out`.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress), and what writing may give. Then `out` is as it was before.
    ///
    /// ```no_run
    /// use palettizer::{Model, SaveOptions};
    /// Model::open("Small.mlpackage")?.decompress_to("Dense.mlpackage", SaveOptions::default(), &())?;
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn decompress_to(
        &self,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Decompressed, Error> {
        self.0
            .decompress_to(out.as_ref(), options.overwrite, progress)
    }

    /// Writes the model to the package `out`, whose name ends in `.mlpackage`.
    ///
    /// # Errors
    /// What writing may give. Then `out` is as it was before.
    ///
    /// ```no_run
    /// use palettizer::SaveOptions;
    /// palettizer::demo::model()?.save("Digits.mlpackage", SaveOptions::overwriting(true))?;
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn save(&self, out: impl AsRef<Path>, options: SaveOptions) -> Result<(), Error> {
        self.0.save(out.as_ref(), options.overwrite)
    }
}
