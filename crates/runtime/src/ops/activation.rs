//! Activations.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
