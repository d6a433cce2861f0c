//! Products: linear, matmul, einsum, attention.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
