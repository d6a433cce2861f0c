//! Gradients of functions of two tensors: what was broadcast gets the sum over what it was repeated along.

use super::{as_floats, operands};
use crate::broadcast::{apply, apply_in_place, sum_to};
use crate::call::Fault;
use crate::grad::{Backward, Gradients};

/// From the derivatives with respect to x and to y.
pub(super) fn backward(
    call: &Backward<'_>,
    by_x: impl Fn(f32, f32) -> f32 + Sync,
    by_y: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Gradients, Fault> {
    let mut gradients = by(call, "x", by_x)?;
    gradients.extend(by(call, "y", by_y)?);
    Ok(gradients)
}

fn by(
    call: &Backward<'_>,
    param: &'static str,
    derivative: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Gradients, Fault> {
    if !call.wants(param) {
        return Ok(Vec::new());
    }
    let (x, y, shape) = operands(call)?;
    let (a, b, upstream) = (as_floats("x", x)?, as_floats("y", y)?, call.upstream()?);
    let mut gradient = vec![0.0; upstream.len()];
    apply(
        (&a, x.shape()),
        (&b, y.shape()),
        &shape,
        &mut gradient,
        derivative,
    )?;
    apply_in_place(
        &mut gradient,
        &shape,
        (upstream, &shape),
        |derivative, g| derivative * g,
    )?;
    let own = call.tensor(param)?.shape();
    Ok(vec![(param, 0, sum_to(gradient, &shape, own))])
}

/// The gradients of a product: each factor's is made of the other.
pub(super) fn product(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (_, _, shape) = operands(call)?;
    let mut gradients = Gradients::new();
    for (param, other) in [("x", "y"), ("y", "x")] {
        if call.wants(param) {
            let factor = call.tensor(other)?;
            let factors = (&*as_floats(other, factor)?, factor.shape());
            let mut gradient = call.upstream()?.to_vec();
            apply_in_place(&mut gradient, &shape, factors, |g, factor| factor * g)?;
            let own = call.tensor(param)?.shape();
            gradients.push((param, 0, sum_to(gradient, &shape, own)));
        }
    }
    Ok(gradients)
}

/// The gradients of a sum with these factors.
pub(super) fn constant(call: &Backward<'_>, by_x: f32, by_y: f32) -> Result<Gradients, Fault> {
    let (_, _, shape) = operands(call)?;
    let mut gradients = Vec::new();
    for (param, factor) in [("x", by_x), ("y", by_y)] {
        if call.wants(param) {
            let mut gradient = sum_to(
                call.upstream()?.to_vec(),
                &shape,
                call.tensor(param)?.shape(),
            );
            if factor != 1.0 {
                gradient.iter_mut().for_each(|value| *value *= factor);
            }
            gradients.push((param, 0, gradient));
        }
    }
    Ok(gradients)
}

/// The gradients of what is constant between its steps.
pub(super) fn zero(call: &Backward<'_>) -> Result<Gradients, Fault> {
    backward(call, |_, _| 0.0, |_, _| 0.0)
}

/// The part of a maximum's gradient that x gets: of equal ones each has half.
pub(super) fn larger_share(x: f32, y: f32) -> f32 {
    if x == y {
        0.5
    } else {
        f32::from(u8::from(x > y))
    }
}

/// The gradients of powers; as in torch, an exponent of 0 and a base of 0 have none where the formula has no value.
pub(super) fn pow(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let by_x = |x: f32, y: f32| match y {
        0.0 => 0.0,
        2.0 => 2.0 * x,
        _ => y * x.powf(y - 1.0),
    };
    let by_y = |x: f32, y: f32| match x == 0.0 && y >= 0.0 {
        true => 0.0,
        false => x.powf(y) * x.ln(),
    };
    backward(call, by_x, by_y)
}
