//! Core ML packages, the weight blobs and the MIL program in them.

pub mod blob;
mod check;
mod compression;
mod decompress;
mod error;
mod inspect;
mod model;
mod notes;
pub mod opset;
pub mod package;
mod palettize;
mod program;
pub mod proto;
mod rewrite;

pub use compression::Compression;
pub use decompress::constexpr::Dense;
pub use decompress::numbers::Numbers;
pub use error::Error;
pub use inspect::{Consumer, WeightInfo, WeightValues};
pub use model::{Model, WeightFiles};
pub use palettize::apply::WeightForms;
pub use program::constant::Constant;
pub use program::mil::{is_constexpr, op_name};
