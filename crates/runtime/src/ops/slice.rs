//! Parts of tensors, and tensors from parts.

mod by_index;
mod join;
mod pad;
mod repeat;

use crate::call::Fault;
use crate::registry::{Def, differentiable};

pub(super) use by_index::{cropped, range};
pub(super) use pad::Pads;

pub(super) const OPS: &[Def] = &[
    differentiable(
        "slice_by_index",
        by_index::by_index,
        by_index::by_index_backward,
    )
    .moving(),
    differentiable(
        "slice_by_size",
        by_index::by_size,
        by_index::by_size_backward,
    )
    .moving(),
    differentiable("slice_update", by_index::update, by_index::update_backward).moving(),
    differentiable("concat", join::concat, join::concat_backward).moving(),
    differentiable("stack", join::stack, join::stack_backward).moving(),
    differentiable("split", join::split, join::split_backward).moving(),
    differentiable("pad", pad::pad, pad::pad_backward).moving(),
    differentiable("tile", repeat::tile, repeat::tile_backward).moving(),
    differentiable("sliding_windows", repeat::windows, repeat::windows_backward).moving(),
    differentiable("band_part", repeat::band_part, repeat::band_part_backward).moving(),
];

/// A number of elements, or of repetitions, as a program gives it.
fn size(param: &str, size: i64) -> Result<usize, Fault> {
    usize::try_from(size).map_err(|_| format!("{param} has {size}; expected none below 0").into())
}
