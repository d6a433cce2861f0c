//! Tensors from sizes and numbers.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
