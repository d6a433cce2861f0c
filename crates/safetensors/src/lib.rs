//! Checkpoints of PyTorch models in safetensors files: opened, palettized, made dense again, in bounded memory.
//!
//! A checkpoint has tensors by name and no program: weights are the F16, BF16 and F32 tensors of two axes or more, with
//! their output channels on the first. What becomes of each is planned before anything is written, and said.
//!
//! ```no_run
//! use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
//! use palettizer_palette::{Mode, Nbits, PaletteSpec};
//! use palettizer_pipeline::staged_output::SaveOptions;
//! use palettizer_safetensors::Checkpoint;
//!
//! let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
//! let config = OptimizationConfig::new()
//!     .with_global(OpPalettizerConfig::new(spec))
//!     .with_op_name(".*embed_tokens.weight", None);
//! let checkpoint = Checkpoint::open("model.safetensors")?;
//! let report = checkpoint.palettize_to(&config, "small.safetensors", SaveOptions::default(), &())?;
//! println!("{} -> {} bytes", report.bytes_before, report.bytes_after);
//! # Ok::<(), palettizer_safetensors::Error>(())
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `element`, `header`, `json`, `shard`, `index` | safetensors files, and folders of them, read as hostile |
//! | `checkpoint`, `inspect` | what is in them |
//! | `compact` | a palettized weight as tensors of such a file |
//! | `weights` | which weights there are, for the pipeline |
//! | `spool`, `compress`, `partial` | palettes stored and assembled, in one run or in several |
//! | `decompress` | the way back |
//! | `write`, `output`, `palettes` | a new file, streamed, beside its place |
//! | `sensitivity` | sensitivities from such a file |

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian in every file and are read where they lie");

mod checkpoint;
mod compact;
mod compress;
mod decompress;
mod element;
mod error;
mod header;
mod index;
mod inspect;
mod json;
mod output;
mod palettes;
mod partial;
mod prices;
mod sensitivity;
mod shard;
mod spool;
mod weights;
mod write;

pub use checkpoint::{Checkpoint, Content, DenseTensor};
pub use element::ElementType;
pub use error::Error;
pub use inspect::TensorInfo;
pub use sensitivity::SafetensorsSensitivities;
