//! A model of any format, found out by what is at a path.

use crate::budget::{Chosen, Curves};
use crate::{Error, Limits, OptimizationConfig, Report, SaveOptions, core_ai};
use palettizer_pipeline::staged_output;
use palettizer_pipeline::{Decompressed, Progress};
use std::path::Path;
use std::sync::Arc;

/// A model in a file: a Core ML package, a checkpoint, or a Core AI program. Its weights stay there, mapped into memory, until they are
/// needed. What only one format has is in its variant.
///
/// ```no_run
/// use palettizer::{Mode, Model, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, SaveOptions};
///
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
/// let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
/// let model = Model::open("llama/")?;
/// let report = model.palettize_to(&config, "small/", SaveOptions::default(), &())?;
/// assert!(report.bytes_after < model.stored_len());
/// # Ok::<(), palettizer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Model {
    /// An `.mlpackage` or an `.mlmodel`.
    CoreMl(Box<crate::coreml::Model>),
    /// A `.safetensors` file, a folder of them, or its index.
    Checkpoint(crate::safetensors::Checkpoint),
    /// An `.aimodel`, where the process can read one.
    CoreAi(Arc<dyn core_ai::Program>),
}

impl Model {
    /// Opens what is there.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    ///
    /// ```
    /// let error = palettizer::Model::open("missing.mlpackage").unwrap_err();
    /// assert!(error.to_string().starts_with("missing.mlpackage"));
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Limits::default())
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
        let path = path.as_ref();
        if core_ai::is_at(path) {
            return Ok(Model::CoreAi(core_ai::open(path)?));
        }
        // what it is can be told only if it is there
        staged_output::recover(path);
        Ok(match crate::safetensors::Checkpoint::is_at(path) {
            true => Model::Checkpoint(crate::safetensors::Checkpoint::open_with(path, limits)?),
            false => Model::CoreMl(Box::new(crate::coreml::Model::open_with(path, limits)?)),
        })
    }

    /// Bytes of the program and its weight files, or of the checkpoint's files, as all reports count them.
    pub fn stored_len(&self) -> u64 {
        match self {
            Model::CoreMl(model) => model.stored_len(),
            Model::Checkpoint(checkpoint) => checkpoint.stored_len(),
            Model::CoreAi(program) => program.stored_len(),
        }
    }

    /// Palettizes to `out`, of the same format: the memory that is needed does not grow with the model.
    ///
    /// # Errors
    /// What the configuration asks and the model cannot have, and what reading and writing may give. Then `out` is as it
    /// was before.
    pub fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        Ok(match self {
            Model::CoreMl(model) => model.palettize_to(config, out, options, progress)?,
            Model::Checkpoint(model) => model.palettize_to(config, out, options, progress)?,
            Model::CoreAi(model) => model.palettize_to(config, out.as_ref(), options, progress)?,
        })
    }

    /// What each form of each weight costs that a budget chooses from: good for other budgets too.
    ///
    /// # Errors
    /// As [`palettize_to`](Self::palettize_to), before anything is written, but for a budget that cannot be met.
    ///
    /// ```no_run
    /// use palettizer::budget::{Budget, Goal};
    /// use palettizer::{Model, OptimizationConfig, SaveOptions};
    ///
    /// let model = Model::open("Model.mlpackage")?;
    /// let budget = Budget::new(Goal::Ratio(5.0));
    /// let curves = model.curves(&OptimizationConfig::new().with_budget(budget.clone()), &())?;
    /// for ratio in [4.0, 5.0, 6.0] {
    ///     let budget = budget.clone().with_goal(Goal::Ratio(ratio)).with_curves(curves.clone());
    ///     let config = OptimizationConfig::new().with_budget(budget);
    ///     model.palettize_to(&config, format!("Small{ratio}.mlpackage"), SaveOptions::default(), &())?;
    /// }
    /// # Ok::<(), palettizer::Error>(())
    /// ```
    pub fn curves(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Curves, Error> {
        Ok(match self {
            Model::CoreMl(model) => model.curves(config, progress)?,
            Model::Checkpoint(model) => model.curves(config, progress)?,
            Model::CoreAi(model) => model.curves(config, progress)?,
        })
    }

    /// What the budget of a configuration comes to, before anything is palettized; `None` without one.
    ///
    /// # Errors
    /// As [`palettize_to`](Self::palettize_to), before anything is written.
    pub fn chosen(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Option<Chosen>, Error> {
        Ok(match self {
            Model::CoreMl(model) => model.chosen(config, progress)?,
            Model::Checkpoint(model) => model.chosen(config, progress)?,
            Model::CoreAi(model) => model.chosen(config, progress)?,
        })
    }

    /// Makes every compressed weight dense, straight to `out`.
    ///
    /// # Errors
    /// What reading and writing may give. Then `out` is as it was before.
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
        Ok(match self {
            Model::CoreMl(model) => model.decompress_to(out, options, progress)?,
            Model::Checkpoint(model) => model.decompress_to(out, options, progress)?,
            Model::CoreAi(model) => model.decompress_to(out.as_ref(), options)?,
        })
    }
}
