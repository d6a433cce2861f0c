//! Elementwise functions of two tensors, with broadcasting.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
