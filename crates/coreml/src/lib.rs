//! Core ML packages, the weight blobs and the MIL program in them.

pub mod blob;
mod check;
pub mod config;
mod decompress;
mod error;
pub mod input;
mod inspect;
mod model;
pub mod opset;
pub mod package;
mod palettize;
mod program;
mod progress;
pub mod proto;
pub mod report;
mod rewrite;
pub mod save;

pub use error::Error;
pub use inspect::{Compression, Consumer, WeightInfo, WeightValues};
pub use model::{Model, Outcome, WeightFiles};
pub use progress::Progress;
