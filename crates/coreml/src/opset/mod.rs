//! Opsets: which one a program is written in, and how to raise it.
//!
//! **Idea.** An opset is a set of op definitions; a newer one takes over most definitions of the
//! one before and redefines some. Raising a program means to write down the newer opset's name and
//! to see to it that each op still means what it meant. Three tables decide it: `definitions.tsv`
//! (made by `scripts/opset_table.py`: every definition of every op), `redefinitions` (made by hand:
//! for each redefinition, does an old use keep its meaning, is it rewritten, or is it in the way),
//! and the rules that rewrite. An op that is not in the tables is in the way: nothing is raised on
//! a guess. Everything is checked before anything is changed.
//!
//! **Source.** The op registry of coremltools 9.0 (`converters/mil/mil/ops/defs`), and its pass
//! `guard_negative_gather_indices` for the meaning of negative indices.
//!
//! **What the writer of the weights has to do.** The iOS16 forms of `constexpr_lut_to_dense` and
//! `constexpr_sparse_to_dense` hold packed bits as a list of bytes, the iOS18 forms as a tensor of
//! `uint1` … `uint8`. The bits are the same, so [`raise`] changes only the [`Value`]'s own type and
//! leaves its place in the weight file alone: **after `raise`, a value's type says which dtype and
//! shape its blob has to be written under**, whatever the old blob's record says. A blob that is
//! used both ways becomes two.
//!
//! [`Value`]: crate::proto::Value

mod constexpr;
mod definitions;
mod error;
mod indices;
mod raise;
mod redefinitions;
mod scope;
mod target;
#[cfg(test)]
mod tests;

pub use error::{OpInTheWay, OpsetError};
pub use raise::raise;
pub use target::Opset;
