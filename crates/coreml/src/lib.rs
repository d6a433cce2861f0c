//! Core ML packages, the weight blobs and the MIL program in them.

pub mod blob;
pub mod config;
mod error;
pub mod opset;
pub mod package;
pub mod proto;
pub mod report;
pub mod save;
mod apply;
mod emit;
mod progress;
mod rewrite;
mod splice;
mod numbers;
mod constexpr;
mod decompress;
mod model;
mod inspect;
mod axes;
mod constant;
mod graph;
mod mil;
mod plan;
mod resolve;
mod skip;
mod walk;

pub use error::Error;
pub use inspect::{Compression, Consumer, WeightInfo};
pub use model::{Model, Outcome};
pub use progress::Progress;
