//! A weight to a palette.
//!
//! | module | idea |
//! |---|---|
//! | `palettize` | a weight and a spec to a palette: groups in, tables and indices together out |
//! | `group_encoder` | one group: gathered, given its table, measured |
//! | `scalar`, `vector` | the table of a group's scalars, or of its vectors |
//! | `entries` | the entries of a table as they are stored |
//! | `channels`, `products` | the per-channel scale; entries times scales |
//! | `recover` | the indices of a dense weight whose tables are known |

pub(crate) mod channels;
pub(crate) mod entries;
pub(crate) mod group_encoder;
mod palettize;
mod products;
mod recover;
pub(crate) mod scalar;
pub(crate) mod vector;

pub use palettize::palettize;
pub use recover::RecoverError;
