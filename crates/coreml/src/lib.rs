//! Core ML packages, the weight blobs and the MIL program in them.

mod apply;
mod axes;
pub mod blob;
pub mod config;
mod constant;
mod constexpr;
mod decompress;
mod emit;
mod error;
mod graph;
mod inspect;
mod mil;
mod model;
mod numbers;
pub mod opset;
pub mod package;
mod plan;
mod progress;
pub mod proto;
pub mod report;
mod resolve;
mod rewrite;
pub mod save;
mod skip;
mod splice;
mod walk;

pub use error::Error;
pub use inspect::{Compression, Consumer, WeightInfo};
pub use model::{Model, Outcome, WeightFiles};
pub use progress::Progress;
