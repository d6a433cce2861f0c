//! Palettization (weight clustering) of Core ML models and safetensors checkpoints: exact, fast, on any machine.
//!
//! A palettized weight is stored as small indices into lookup tables (LUTs) of centroids. This crate opens a
//! Core ML package, decides for every weight what will happen to it and why, palettizes, and writes a package
//! that Apple's runtimes and coremltools load:
//!
//! ```no_run
//! use palettizer::{Mode, Model, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, SaveOptions};
//!
//! let model = Model::open("Model.mlpackage")?;
//! let config = OptimizationConfig::new()
//!     .with_global(OpPalettizerConfig::new(PaletteSpec::new(Mode::Kmeans(Nbits::B4))))
//!     .with_op_type("gather", None);
//! let report = model.palettize_to(&config, "Small.mlpackage", SaveOptions::default(), &())?;
//! println!("{} -> {} bytes", report.bytes_before, report.bytes_after);
//! # Ok::<(), palettizer::Error>(())
//! ```
//!
//! A [`Model`] is a Core ML package or a checkpoint, a `.safetensors` file or a folder of them. What only one format has,
//! such as models in memory, is in [`coreml`] and [`safetensors`].
//!
//! [`dkm`] trains palettes in any training loop; [`layerwise`] fits them to what a layer computes.
//!
//! Where it is known how much each element of the weights matters, as the squared gradients of a loss say, k-means can
//! minimise what its errors cost:
//!
//! ```no_run
//! # use palettizer::*;
//! let sensitivities = sensitivities("squared_gradients.safetensors", MissingSensitivity::Error)?;
//! let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
//! let config = OptimizationConfig::new()
//!     .with_global(OpPalettizerConfig::new(spec))
//!     .with_sensitivity(sensitivities);
//! # Ok::<(), palettizer::Error>(())
//! ```

pub mod budget;
pub mod compare;
pub mod config_file;
pub mod core_ai;
pub mod dkm;
mod error;
pub mod layerwise;
mod model;
mod op_options;
mod sensitivity;
pub mod values;

pub use error::Error;
pub use model::Model;
pub use op_options::OpOptions;
#[doc(inline)]
pub use palettizer_coreml as coreml;
pub use palettizer_palette::{
    Choice, CustomLut, DEFAULT_GROUP_SIZE, Dtype, Granularity, GranularityName, LutDtype,
    LutFunction, LutGroup, Mode, ModeName, Nbits, OptionField, OptionKind, PaletteSpec, Precision,
    SpecError, SpecOptions,
};
pub use palettizer_pipeline::config::{
    DEFAULT_WEIGHT_THRESHOLD, OpPalettizerConfig, OptimizationConfig, Preset, Target,
    UnknownPreset, UnknownTarget,
};
pub use palettizer_pipeline::mapped_file::guard_mappings;
pub use palettizer_pipeline::staged_output::remove_unfinished as remove_unfinished_output;
pub use palettizer_pipeline::staged_output::{SaveOptions, StagedOutput};
pub use palettizer_pipeline::{
    DEFAULT_MAX_EXPANSION, Decompressed, Error as PipelineError, Fate, Figures, Limits,
    MissingSensitivity, Note, PaletteInfo, Progress, REPORT_VERSION, Report, Sensitivities,
    SensitivitySource, WeightReport, visible, visible_lines,
};
#[doc(inline)]
pub use palettizer_runtime as runtime;
#[doc(inline)]
pub use palettizer_safetensors as safetensors;
pub use sensitivity::{
    SensitivityLoss, SensitivityOptions, WeightSensitivities, probe_sensitivities, sensitivities,
};
