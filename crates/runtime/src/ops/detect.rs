//! What classifiers and detectors end in.

use crate::registry::Def;

pub(super) const OPS: &[Def] = &[];
