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
//! let (small, report) = model.palettize(&config)?;
//! small.save("Small.mlpackage", SaveOptions::default())?;
//! println!("{} -> {} bytes", report.bytes_before, report.bytes_after);
//! # Ok::<(), palettizer::Error>(())
//! ```
//!
//! [`Model::palettize_to`] does the same straight to a file, in memory that does not grow with the model, and
//! [`Checkpoint`] does it with the tensors of a `.safetensors` file or of a folder of them. [`Either`] opens what is
//! there.
//!
//! [`dkm`] trains palettes in any training loop.
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
//! # Ok::<(), CheckpointError>(())
//! ```

mod checkpoint;
pub mod config_file;
pub mod demo;
pub mod dkm;
mod either;
mod model;
mod op_options;
mod report;
mod sensitivity;

pub use checkpoint::Checkpoint;
pub use either::Either;
pub use model::{Model, SaveOptions};
pub use op_options::OpOptions;
pub use palettizer_coreml::blob::guard_mappings;
pub use palettizer_coreml::config::{
    DEFAULT_WEIGHT_THRESHOLD, MissingSensitivity, OpPalettizerConfig, OptimizationConfig, Preset,
    Sensitivities, SensitivitySource, UnknownPreset,
};
pub use palettizer_coreml::opset::{Target, UnknownTarget};
pub use palettizer_coreml::report::{Status, WeightReport};
pub use palettizer_coreml::save::Beside;
pub use palettizer_coreml::save::remove_unfinished as remove_unfinished_output;
pub use palettizer_coreml::{
    Compression, Consumer, DEFAULT_MAX_EXPANSION, Decompressed, Error, Limits, Note, PaletteInfo,
    Progress, WeightFiles, WeightInfo, WeightValues,
};
pub use palettizer_coreml::{visible, visible_lines};
pub use palettizer_palette::{
    Choice, CustomLut, DEFAULT_GROUP_SIZE, Dtype, Granularity, GranularityName, LutDtype,
    LutFunction, LutGroup, Mode, ModeName, Nbits, OptionField, OptionKind, PaletteSpec, Precision,
    SpecError, SpecOptions,
};
pub use palettizer_torch::{
    Content, DenseTensor, ElementType, Error as CheckpointError, TensorInfo,
};
pub use report::{REPORT_VERSION, Report};
pub use sensitivity::sensitivities;
