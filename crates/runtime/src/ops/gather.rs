//! Elements by their indices: taken from there (gather), or put there (scatter).
//!
//! Indices below 0 count from the end. Since iOS 17 that is undefined, as is what becomes of an index beyond the tensor, unless
//! `validate_indices` is true: then both are refused. What is beyond the tensor is refused here in any case; a device that reads
//! something else for it gives a result that nobody meant.

mod places;
mod scatter;
mod scatter_backward;
mod take;

use crate::call::{Args, Fault};
use crate::registry::{Def, differentiable};

pub(super) const OPS: &[Def] = &[
    differentiable("gather", take::gather, take::gather_backward)
        .moving()
        .reading_rows("x"),
    differentiable(
        "gather_along_axis",
        take::along_axis,
        take::along_axis_backward,
    )
    .moving(),
    differentiable("gather_nd", take::nd, take::nd_backward).moving(),
    differentiable("scatter", scatter::scatter, scatter_backward::scatter).by_both(),
    differentiable(
        "scatter_along_axis",
        scatter::along_axis,
        scatter_backward::along_axis,
    )
    .by_both(),
    differentiable("scatter_nd", scatter::nd, scatter_backward::nd).by_both(),
];

/// The positions that indices mean on axes of these lengths, in turn.
fn positions(args: &Args<'_>, dims: &[usize]) -> Result<Vec<usize>, Fault> {
    let strict = args.bool_or("validate_indices", false)?;
    let indices = args.elements::<i32>("indices")?;
    let mut found = Vec::with_capacity(indices.len());
    let position = |index: i32, dim: usize| {
        let index = i64::from(index);
        let counted = if index < 0 && !strict {
            index + dim as i64
        } else {
            index
        };
        let position = usize::try_from(counted).ok();
        position.filter(|&position| position < dim).ok_or_else(|| {
            Fault::from(format!(
                "indices has {index}, for an axis of {dim} positions"
            ))
        })
    };
    match dims {
        [dim] => {
            for &index in indices {
                found.push(position(index, *dim)?);
            }
        }
        _ => {
            for (&index, &dim) in indices.iter().zip(dims.iter().cycle()) {
                found.push(position(index, dim)?);
            }
        }
    }
    Ok(found)
}
