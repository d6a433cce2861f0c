//! Space, batch and depth in exchange.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
