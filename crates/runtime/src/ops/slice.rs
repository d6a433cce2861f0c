//! Parts of tensors, and tensors put together.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
