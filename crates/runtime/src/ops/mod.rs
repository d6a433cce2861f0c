//! The operations, a file for each family. Their semantics are those of coremltools' documentation of MIL and of its
//! `value_inference`; each is tested against both, or against torch.

mod activation;
mod binary;
mod blocks;
mod conv;
mod create;
mod detect;
mod gather;
mod list;
mod matrix;
mod normalization;
mod pool;
mod quantization;
mod random;
mod recurrent;
mod reduction;
mod resize;
mod shape;
mod slice;
mod sort;
mod state;
mod unary;
mod window;

use crate::registry::Def;

/// The operations of all families.
pub(crate) const ALL: &[&[Def]] = &[
    activation::OPS,
    binary::OPS,
    blocks::OPS,
    conv::OPS,
    create::OPS,
    detect::OPS,
    gather::OPS,
    list::OPS,
    matrix::OPS,
    normalization::OPS,
    pool::OPS,
    quantization::OPS,
    random::OPS,
    recurrent::OPS,
    reduction::OPS,
    resize::OPS,
    shape::OPS,
    slice::OPS,
    sort::OPS,
    state::OPS,
    unary::OPS,
];
