//! The checkpoint as a user of the library has it.

use crate::{Report, SaveOptions};
use palettizer_coreml::config::OptimizationConfig;
use palettizer_coreml::{Decompressed, Limits, Progress};
use palettizer_torch::{Content, Error, TensorInfo};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// A checkpoint: a `.safetensors` file, or a folder of shards with its index. Its tensors stay in the files, mapped into
/// memory, until they are needed.
///
/// The weights are the fp16, bf16 and fp32 tensors of two axes or more; their output channels are on the first. A
/// configuration names tensors where it names ops of a model: the tensor's own name decides, then the first pattern that
/// fits it (a regular expression that matches the whole name), then the global configuration.
///
/// ```
/// use palettizer::{
///     Checkpoint, Content, DenseTensor, ElementType, Mode, Nbits, OpPalettizerConfig,
///     OptimizationConfig, PaletteSpec, SaveOptions,
/// };
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// let bytes: Vec<u8> = (0..4096).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
/// let weight = DenseTensor::new(ElementType::F32, vec![64, 64], &bytes);
/// Checkpoint::write(&path, &[("fc.weight", Content::Dense(weight))], &Default::default(), SaveOptions::default())?;
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
/// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
/// let small = folder.path().join("small.safetensors");
/// let report = Checkpoint::open(&path)?.palettize_to(&config, &small, SaveOptions::default(), &())?;
/// assert!(report.bytes_after * 6 < report.bytes_before);
///
/// let dense = folder.path().join("dense.safetensors");
/// Checkpoint::open(&small)?.decompress_to(&dense, SaveOptions::default(), &())?;
/// assert_eq!(Checkpoint::open(&dense)?.weights(2048)?[0].unique_values, Some(16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint(palettizer_torch::Checkpoint);

impl Checkpoint {
    /// Opens a `.safetensors` file, a folder of shards, or the index of one (`*.safetensors.index.json`).
    ///
    /// # Errors
    /// What is wrong with a file, and what to do.
    ///
    /// ```
    /// let error = palettizer::Checkpoint::open("missing.safetensors").unwrap_err();
    /// assert!(error.to_string().starts_with("missing.safetensors"));
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        palettizer_torch::Checkpoint::open(path).map(Self)
    }

    /// As [`open`](Self::open), within other limits for what palettized weights may unfold to.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        palettizer_torch::Checkpoint::open_with(path, limits).map(Self)
    }

    /// Writes tensors and palettes to a `.safetensors` file; `metadata` are strings for its users.
    ///
    /// # Errors
    /// As [`write_palettes`](palettizer_torch::write_palettes).
    pub fn write(
        out: impl AsRef<Path>,
        contents: &[(impl AsRef<str>, Content<'_>)],
        metadata: &BTreeMap<String, String>,
        options: SaveOptions,
    ) -> Result<(), Error> {
        palettizer_torch::write_palettes(out.as_ref(), contents, metadata, options.overwrite)
    }

    /// Bytes of all files of tensors, as the reports of all commands count them.
    pub fn stored_len(&self) -> u64 {
        self.0.stored_len()
    }

    /// The names of all tensors and palettized weights, shard after shard in the order of their data.
    pub fn names(&self) -> Vec<&str> {
        self.0.names()
    }

    /// The tensor or the palettized weight of a name.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn get(&self, name: &str) -> Result<Content<'_>, Error> {
        self.0.get(name)
    }

    /// The strings that the files have for their users.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.0.metadata()
    }

    /// Every tensor and palettized weight with more than `threshold` elements.
    ///
    /// # Errors
    /// What reading a palettized weight may give.
    pub fn weights(&self, threshold: usize) -> Result<Vec<TensorInfo>, Error> {
        self.0.weights(threshold)
    }

    /// Palettizes to `out`: a file if the checkpoint is one, or else a folder with shards of the same names and an index.
    /// The memory that is needed does not grow with the checkpoint.
    ///
    /// # Errors
    /// [`Error::Unsuited`] for settings that only programs have, and what the configuration, reading and writing may give.
    /// Then `out` is as it was before.
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
            .compress_to(config, out, options.overwrite, progress)?;
        Ok(Report::of_checkpoint(outcome, start.elapsed()))
    }

    /// The weights that `config` palettizes, with their bytes: those that [`palettize_part`](Self::palettize_part) takes.
    ///
    /// # Errors
    /// As [`palettize_to`](Self::palettize_to), before anything is written.
    pub fn jobs(&self, config: &OptimizationConfig) -> Result<Vec<(&str, u64)>, Error> {
        self.0.jobs(config)
    }

    /// Palettizes some of the weights to a part, a file that [`assemble`](Self::assemble) takes, so that machines can
    /// share the work.
    ///
    /// # Errors
    /// [`Error::NoJob`] for a weight that is not to be palettized; else as [`palettize_to`](Self::palettize_to).
    ///
    /// ```no_run
    /// use palettizer::{Checkpoint, OptimizationConfig, SaveOptions};
    ///
    /// let (config, options) = (OptimizationConfig::new(), SaveOptions::default());
    /// let checkpoint = Checkpoint::open("model.safetensors")?;
    /// let jobs: Vec<&str> = checkpoint.jobs(&config)?.into_iter().map(|(name, _)| name).collect();
    /// let mut parts = Vec::new();
    /// for (number, names) in jobs.chunks(8).enumerate() {
    ///     let part = format!("part-{number}.safetensors");
    ///     checkpoint.palettize_part(names, &config, &part, options, &())?;
    ///     parts.push(part);
    /// }
    /// checkpoint.assemble(&config, &parts, "small.safetensors", options, &())?;
    /// # Ok::<(), palettizer::CheckpointError>(())
    /// ```
    pub fn palettize_part(
        &self,
        names: &[impl AsRef<str>],
        config: &OptimizationConfig,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        self.0
            .compress_part(names, config, out.as_ref(), options.overwrite, progress)
    }

    /// Puts parts together to what [`palettize_to`](Self::palettize_to) writes, byte for byte.
    ///
    /// # Errors
    /// [`Error::Part`] and [`Error::MissingParts`]; else as [`palettize_to`](Self::palettize_to).
    pub fn assemble(
        &self,
        config: &OptimizationConfig,
        parts: &[impl AsRef<Path>],
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let start = Instant::now();
        let out = out.as_ref();
        let outcome = self
            .0
            .assemble(config, parts, out, options.overwrite, progress)?;
        Ok(Report::of_checkpoint(outcome, start.elapsed()))
    }

    /// Makes every palettized weight dense, bit for bit what a runtime computes; all else is copied.
    ///
    /// # Errors
    /// What reading and writing may give. Then `out` is as it was before.
    pub fn decompress_to(
        &self,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Decompressed, Error> {
        self.0
            .decompress_to(out.as_ref(), options.overwrite, progress)
    }
}
