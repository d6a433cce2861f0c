//! The weight files that a model refers to.

use crate::program::walk::{each_op, values};
use crate::proto::Model;
use std::collections::BTreeSet;
use std::convert::Infallible;

/// The names of the weight files, each once, in order.
pub(super) fn weight_files(model: &Model) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Ok(()) = each_op(model, &mut |op| {
        for place in values(op).filter_map(|value| value.blob_file.as_ref()) {
            if !names.contains(&place.file_name) {
                names.insert(place.file_name.clone());
            }
        }
        Ok::<(), Infallible>(())
    });
    names
}
