//! One weight tensor as a palette: indices into small lookup tables, and everything around them.
//!
//! A [`PaletteSpec`] says what is wanted; [`layout`] and [`suits`] decide from shape and dtype whether it can be had;
//! [`palettize`] does it and gives a [`Palette`] (indices, tables, scales, [`ErrorFigures`]) or a [`Refusal`]; and
//! [`decode`] says what every compressed form stands for. Nothing here knows graphs or file formats.
//!
//! ```
//! use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
//!
//! let weights: Vec<u8> = (0..4096).flat_map(|i| (i as f32 * 0.7).sin().to_le_bytes()).collect();
//! let tensor = Tensor::new(Dtype::F32, &[64, 64], &weights).map_err(|e| e.to_string())?;
//! let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
//! let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
//! assert_eq!(palette.stored_bytes(), 4096 / 2 + 16 * 4);
//! assert_eq!(palette.decompress().len(), weights.len());
//! # Ok::<(), String>(())
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `tensor`, `spec`, `mode`, `nbits`, `context` | what goes in: a weight, what is asked for, what is known beside it |
//! | `palette`, `figures`, `refusal` | what comes out: the palette, its error, or the reason why there is none |
//! | `layerwise` | what a layer's inputs look like, and what its outputs lose |
//! | `layout` | shapes, and where the elements of each group lie, before any value is read |
//! | `encode` | a weight to a palette: the tables of all groups, the per-channel scale, and indices found again |
//! | [`decode`] | what every compressed form stands for, and the dense weight of a palette |
//! | `training` | differentiable k-means: weights trained to become palettes |
//! | [`sensitivity`], `statistics` | how much each element matters, made fit for use; what a weight holds |

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian in every file and are read where they lie");

mod context;
pub mod decode;
mod encode;
mod figures;
mod layerwise;
mod layout;
mod mode;
mod nbits;
mod palette;
mod refusal;
pub mod sensitivity;
mod spec;
mod statistics;
mod tensor;
mod training;

pub use context::Context;
pub use encode::{Deferred, RecoverError, assemble, palettize};
pub use figures::{ErrorFigures, weighted_error};
pub use layerwise::{
    DEFAULT_DAMPING, DEFAULT_GUIDED_DAMPING, DEFAULT_ROUNDS, FittedTables, Layerwise,
    LayerwiseAlgorithm, LayerwiseFit, LayerwiseSettings, MomentsShape,
};
pub use layout::{Layout, layout, suits};
pub use mode::{CustomLut, LutFunction, LutGroup, Mode, ModeName};
pub use nbits::Nbits;
pub use palette::{ChannelScale, Lut, Palette};
pub use palettizer_kernels::{Precision, pack, unpack};
pub use refusal::Refusal;
pub use spec::{
    Choice, DEFAULT_GROUP_SIZE, Granularity, GranularityName, LutDtype, OptionField, OptionKind,
    PaletteSpec, SpecError, SpecOptions,
};
pub use statistics::{Statistics, statistics};
pub use tensor::{Dtype, Tensor, TensorError};
pub use training::{
    Dkm, DkmConstants, DkmElement, DkmForward, DkmLut, DkmMode, DkmSpec, ScaleScheme,
};
