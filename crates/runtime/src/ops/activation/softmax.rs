//! Softmax along an axis.

use crate::call::{Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};

pub(super) fn softmax(call: &mut Call<'_>) -> Outcome {
    let rank = call.tensor("x")?.rank();
    let axis = call.axis_or("axis", -1, rank)?;
    let shared = !call.tensor("x")?.is_sole();
    if shared {
        call.count(call.tensor("x")?.shape())?;
    }
    let (mut values, shape) = call.take_floats("x")?;
    let (n, inner) = along(&shape, axis);
    palettizer_kernels::softmax(&mut values, n, inner);
    call.output(&shape, values)
}

pub(super) fn softmax_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let shape = call.tensor("x")?.shape();
    let axis = call.axis_or("axis", -1, shape.len())?;
    let (n, inner) = along(shape, axis);
    let mut gradient = call.upstream()?.to_vec();
    palettizer_kernels::softmax_gradient(call.output_floats(0)?, &mut gradient, n, inner);
    Ok(vec![("x", 0, gradient)])
}

/// How long an axis is, and how many elements lie between neighbours along it; a number alone is its own axis.
fn along(shape: &[usize], axis: usize) -> (usize, usize) {
    let n = shape.get(axis).copied().unwrap_or(1);
    let behind = shape.iter().skip(axis + 1);
    (
        n,
        behind.fold(1, |product, &dim| product.saturating_mul(dim)),
    )
}
