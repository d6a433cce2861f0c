//! The same elements in another shape or order.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
