//! A weight to a palette.
//!
//! | module | idea |
//! |---|---|
//! | `palettize` | a weight and a spec to a palette |
//! | `deferred` | the tables now, the indices when they are needed |
//! | `group_encoder`, `elements` | all groups: each gathered, given its table, measured |
//! | `scalar`, `vector`, `table` | the table of a group's scalars, or of its vectors; what is asked of it |
//! | `entries`, `storage`, `rounding` | entries as they are stored, and the numbers that a dtype has |
//! | `channels`, `products` | the per-channel scale; entries times scales |
//! | `layerwise` | tables that keep what a layer computes, and tables that were fitted elsewhere |
//! | `assemble` | tables and indices of all groups together |
//! | `recover` | the indices of a dense weight whose tables are known |

pub(crate) mod assemble;
mod channels;
mod deferred;
mod elements;
pub(crate) mod entries;
mod group_encoder;
mod layerwise;
mod palettize;
mod products;
mod recover;
pub(crate) mod rounding;
mod scalar;
pub(crate) mod storage;
pub(crate) mod table;
pub(crate) mod vector;

pub use deferred::Deferred;
pub use layerwise::assemble;
pub use palettize::palettize;
pub use recover::RecoverError;
