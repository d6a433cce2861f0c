//! Files of values: what models are run on, and what they give.
//!
//! | file | what is in it |
//! |---|---|
//! | `.npz` | an array for each input or output, by name: numpy's `savez` |
//! | `.npy` | the array of the only one |
//! | `.safetensors` | as `.npz`, without strings |
//! | `.png`, `.jpg` | the only image |
//! | a folder | any of these, a sample or several in each |

mod error;
mod labels;
mod npy;
mod npz;
mod picture;
mod samples;
mod split;
mod stack;
mod stored;
mod tensors;
mod write;

pub use error::ValuesError;
pub use labels::labels;
pub use samples::Samples;
pub use stack::stacked;
pub use write::{writable, write};
