//! Elementwise functions of two tensors, broadcast as numpy does. A float and an integer are computed with as floats.

mod arithmetic;
mod gradients;
mod select;

use crate::broadcast::{apply, apply_in_place, shape_of};
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::registry::{Def, differentiable, op};
use crate::tensor::{Elements, Tensor};
use arithmetic::{
    floor_div, floor_div_ints, mod_ints, power, power_ints, real_div_ints, remainder,
};
use gradients::{backward, constant, larger_share, zero};
use std::borrow::Cow;

pub(super) const OPS: &[Def] = &[
    differentiable(
        "add",
        |call| numbers(call, |x, y| x + y, i32::wrapping_add),
        |call| constant(call, 1.0, 1.0),
    )
    .by_shapes(),
    op("equal", |call| compare(call, |x, y| x == y, |x, y| x == y)),
    differentiable(
        "floor_div",
        |call| numbers(call, floor_div, floor_div_ints),
        zero,
    ),
    op("greater", |call| compare(call, |x, y| x > y, |x, y| x > y)),
    op("greater_equal", |call| {
        compare(call, |x, y| x >= y, |x, y| x >= y)
    }),
    op("less", |call| compare(call, |x, y| x < y, |x, y| x < y)),
    op("less_equal", |call| {
        compare(call, |x, y| x <= y, |x, y| x <= y)
    }),
    op("logical_and", |call| logical(call, |x, y| x & y)),
    op("logical_or", |call| logical(call, |x, y| x | y)),
    op("logical_xor", |call| logical(call, |x, y| x ^ y)),
    // MIL's documentation has `x > y ? x : y`, which gives y where either is NaN; numpy gives NaN
    differentiable(
        "maximum",
        |call| numbers(call, |x, y| if x > y { x } else { y }, i32::max),
        |call| backward(call, larger_share, |x, y| larger_share(y, x)),
    ),
    differentiable(
        "minimum",
        |call| numbers(call, |x, y| if x > y { y } else { x }, i32::min),
        |call| backward(call, |x, y| larger_share(y, x), larger_share),
    ),
    differentiable(
        "mod",
        |call| numbers(call, remainder, mod_ints),
        |call| backward(call, |_, _| 1.0, |x, y| -floor_div(x, y)),
    ),
    differentiable(
        "mul",
        |call| numbers(call, |x, y| x * y, i32::wrapping_mul),
        gradients::product,
    )
    .by_factors("x", "y"),
    op("not_equal", |call| {
        compare(call, |x, y| x != y, |x, y| x != y)
    }),
    differentiable("pow", pow, gradients::pow),
    differentiable(
        "real_div",
        |call| numbers(call, |x, y| x / y, real_div_ints),
        |call| backward(call, |_, y| 1.0 / y, |x, y| -x / (y * y)),
    ),
    differentiable("select", select::select, select::select_backward),
    differentiable(
        "sub",
        |call| numbers(call, |x, y| x - y, i32::wrapping_sub),
        |call| constant(call, 1.0, -1.0),
    )
    .by_shapes(),
];

/// The numbers of a tensor as floats.
pub(super) fn as_floats<'a>(param: &str, tensor: &'a Tensor) -> Result<Cow<'a, [f32]>, Fault> {
    match tensor.elements() {
        Elements::Floats(values) => Ok(Cow::Borrowed(values)),
        Elements::Ints(values) => Ok(values.iter().map(|&value| value as f32).collect()),
        _ => Err(wrong(param, tensor, "numbers")),
    }
}

/// The integers of a tensor.
fn as_ints<'a>(param: &str, tensor: &'a Tensor) -> Result<&'a [i32], Fault> {
    tensor.ints().ok_or_else(|| wrong(param, tensor, "numbers"))
}

/// Both tensors, and the shape that they are broadcast to.
fn operands<'a>(args: &'a Args<'_>) -> Result<(&'a Tensor, &'a Tensor, Vec<usize>), Fault> {
    let (x, y) = (args.tensor("x")?, args.tensor("y")?);
    let shape = shape_of(&[x.shape(), y.shape()])?;
    Ok((x, y, shape))
}

/// A function of floats, or one of integers: in place where an operand is as large as the result and nothing else needs it.
fn numbers(
    call: &mut Call<'_>,
    floats: impl Fn(f32, f32) -> f32 + Sync,
    ints: impl Fn(i32, i32) -> i32 + Sync,
) -> Outcome {
    let (x, y, shape) = operands(call)?;
    if x.floats().is_none() && y.floats().is_none() {
        let (x, y) = ((as_ints("x", x)?, x.shape()), (as_ints("y", y)?, y.shape()));
        let mut out = call.zeros(&shape)?;
        apply(x, y, &shape, &mut out, ints)?;
        return call.output(&shape, out);
    }
    let whole = |tensor: &Tensor| tensor.floats().is_some() && tensor.shape() == shape;
    let (x_whole, y_whole) = (whole(x), whole(y));
    if x_whole && let Some((mut values, _)) = call.sole_floats("x")? {
        let y = call.tensor("y")?;
        let y = (&*as_floats("y", y)?, y.shape());
        apply_in_place(&mut values, &shape, y, floats)?;
        return call.output(&shape, values);
    }
    if y_whole && let Some((mut values, _)) = call.sole_floats("y")? {
        let x = call.tensor("x")?;
        let x = (&*as_floats("x", x)?, x.shape());
        apply_in_place(&mut values, &shape, x, |y, x| floats(x, y))?;
        return call.output(&shape, values);
    }
    let (x, y, _) = operands(call)?;
    let (x, x_shape) = (as_floats("x", x)?, x.shape());
    let (y, y_shape) = (as_floats("y", y)?, y.shape());
    let mut out = call.zeros(&shape)?;
    apply((&x, x_shape), (&y, y_shape), &shape, &mut out, floats)?;
    call.output(&shape, out)
}

fn compare(
    call: &mut Call<'_>,
    floats: impl Fn(f32, f32) -> bool + Sync,
    ints: impl Fn(i32, i32) -> bool + Sync,
) -> Outcome {
    let (x, y, shape) = operands(call)?;
    let mut out = call.zeros(&shape)?;
    match (x.elements(), y.elements()) {
        (Elements::Ints(a), Elements::Ints(b)) => {
            apply((a, x.shape()), (b, y.shape()), &shape, &mut out, ints)?;
        }
        (Elements::Bools(a), Elements::Bools(b)) => {
            let f = |x, y| ints(i32::from(x), i32::from(y));
            apply((a, x.shape()), (b, y.shape()), &shape, &mut out, f)?;
        }
        _ => {
            let (a, b) = (as_floats("x", x)?, as_floats("y", y)?);
            apply((&a, x.shape()), (&b, y.shape()), &shape, &mut out, floats)?;
        }
    }
    call.output(&shape, out)
}

fn logical(call: &mut Call<'_>, f: impl Fn(bool, bool) -> bool + Sync) -> Outcome {
    let (x, y, shape) = operands(call)?;
    let a = x.bools().ok_or_else(|| wrong("x", x, "bool"))?;
    let b = y.bools().ok_or_else(|| wrong("y", y, "bool"))?;
    let mut out = call.zeros(&shape)?;
    apply((a, x.shape()), (b, y.shape()), &shape, &mut out, f)?;
    call.output(&shape, out)
}

/// Powers; those that programs have most are products.
fn pow(call: &mut Call<'_>) -> Outcome {
    let y = call.tensor("y")?;
    let exponent = match y.floats() {
        Some([exponent]) => *exponent,
        _ => f32::NAN,
    };
    if exponent == 2.0 {
        numbers(call, |x, _| x * x, power_ints)
    } else if exponent == 3.0 {
        numbers(call, |x, _| x * x * x, power_ints)
    } else if exponent == -1.0 {
        numbers(call, |x, _| 1.0 / x, power_ints)
    } else {
        numbers(call, power, power_ints)
    }
}
