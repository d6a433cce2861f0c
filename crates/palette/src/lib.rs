//! One weight tensor as a palette: indices into small lookup tables, and everything around them.
//!
//! A [`PaletteSpec`] says what is wanted; [`layout`] and [`suits`] decide from shape and dtype whether it can be had;
//! [`palettize`] does it and gives a [`Palette`] (indices, tables, scales, [`ErrorFigures`]) or a [`Refusal`]; and
//! [`dense`] says what every compressed form stands for. Nothing here knows graphs or file formats.
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
//! | `nbits`, `mode`, `spec`, `context`, `refusal`, `tensor`, `figures` | the words: widths, requests, what is known, reasons, weights, error |
//! | `layout`, `groups`, `channels` | shapes; where groups lie; the per-channel scale |
//! | `scalar`, `vector`, `entries` | one table of one group; entries as they are stored |
//! | `job`, `products`, `palettize`, `palette`, `restore` | all tables of a weight; entries times scales; the result; the dense weight again |
//! | [`sensitivity`] | how much each element matters, made fit for use |
//! | `dkm` | differentiable k-means: weights trained to become palettes |
//! | `recover` | the indices of a dense weight whose tables are known |
//! | `statistics`, `widen` | what a weight holds; wider indices for formats that need them |
//! | [`dense`] | the meaning of each compressed form |

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian in every file and are read where they lie");

mod channels;
mod context;
pub mod dense;
mod dkm;
mod entries;
mod figures;
mod groups;
mod job;
mod layout;
mod mode;
mod nbits;
mod palette;
mod palettize;
mod products;
mod recover;
mod refusal;
mod restore;
mod scalar;
pub mod sensitivity;
mod spec;
mod statistics;
mod tensor;
mod vector;
mod widen;

pub use context::Context;
pub use dkm::{Dkm, DkmElement, DkmForward, DkmLut, DkmMode, DkmSpec, ScaleScheme};
pub use figures::ErrorFigures;
pub use layout::{Layout, layout, suits};
pub use mode::{CustomLut, LutFunction, LutGroup, Mode};
pub use nbits::{Nbits, NbitsError};
pub use palette::{ChannelScale, Lut, Palette};
pub use palettize::palettize;
pub use palettizer_kernels::{Precision, pack, unpack};
pub use recover::RecoverError;
pub use refusal::Refusal;
pub use spec::{Granularity, LutDtype, PaletteSpec, SpecError};
pub use statistics::{Statistics, statistics};
pub use tensor::{Dtype, Tensor, TensorError};
