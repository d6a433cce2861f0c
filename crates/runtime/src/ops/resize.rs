//! Images in other sizes.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
