//! Core ML packages, the weight blobs and the MIL program in them.

pub mod blob;
mod check;
mod compression;
pub mod config;
mod decompress;
mod error;
pub mod input;
mod inspect;
mod limits;
mod model;
mod notes;
pub mod opset;
pub mod package;
mod palettize;
mod program;
mod progress;
pub mod proto;
pub mod report;
mod rewrite;
pub mod save;
mod visible;

pub use compression::{Compression, PaletteInfo};
pub use error::Error;
pub use inspect::{Consumer, WeightInfo, WeightValues};
pub use limits::{DEFAULT_MAX_EXPANSION, Limits};
pub use model::{Decompressed, Model, Outcome, WeightFiles};
pub use notes::Note;
pub use progress::Progress;
pub use visible::{visible, visible_lines};
