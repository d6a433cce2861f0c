//! Elementwise functions of one tensor.

use crate::call::{Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};

pub(super) const OPS: &[Def] = &[
    differentiable(
        "relu",
        |call| map(call, |x| x.max(0.0)),
        |call| slope(call, |_, y| f32::from(y > 0.0)),
    ),
    differentiable(
        "tanh",
        |call| map(call, f32::tanh),
        |call| slope(call, |_, y| 1.0 - y * y),
    ),
];

/// Applies a function to each element of `x`, in place where the memory is free.
pub(super) fn map(call: &mut Call<'_>, f: impl Fn(f32) -> f32 + Sync) -> Outcome {
    let (mut values, shape) = call.take_floats("x")?;
    values.iter_mut().for_each(|value| *value = f(*value));
    call.output(&shape, values)
}

/// The gradient of `x`, from the derivative at each element as a function of x and y.
pub(super) fn slope(
    call: &Backward<'_>,
    derivative: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Gradients, Fault> {
    let (x, y, upstream) = (call.floats("x")?, call.output_floats(0)?, call.upstream()?);
    let at = x.iter().zip(y).zip(upstream);
    Ok(vec![(
        "x",
        0,
        at.map(|((&x, &y), &g)| g * derivative(x, y)).collect(),
    )])
}
