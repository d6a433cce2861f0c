//! Elementwise functions of one tensor.

mod cast;

use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::pointwise::{map, map_numbers, parameter, pointwise, slope};
use crate::registry::{Def, differentiable, op};
use crate::tensor::Dtype;
use palettizer_kernels::functions;
use std::f32::consts::{FRAC_2_SQRT_PI, LN_2};

pub(super) const OPS: &[Def] = &[
    differentiable(
        "abs",
        |call| map_numbers(call, i32::wrapping_abs, pointwise!(|x| x.abs())),
        |call| slope(call, pointwise!(|g, x| g * sign(x))),
    ),
    differentiable(
        "acos",
        |call| map(call, pointwise!(|x| x.acos())),
        |call| slope(call, pointwise!(|g, x| -g / (1.0 - x * x).sqrt())),
    ),
    differentiable(
        "asin",
        |call| map(call, pointwise!(|x| x.asin())),
        |call| slope(call, pointwise!(|g, x| g / (1.0 - x * x).sqrt())),
    ),
    differentiable(
        "atan",
        |call| map(call, pointwise!(|x| x.atan())),
        |call| slope(call, pointwise!(|g, x| g / (1.0 + x * x))),
    ),
    differentiable(
        "atanh",
        |call| map(call, pointwise!(|x| x.atanh())),
        |call| slope(call, pointwise!(|g, x| g / (1.0 - x * x))),
    ),
    differentiable("ceil", |call| map(call, pointwise!(|x| x.ceil())), flat),
    differentiable("cast", cast::cast, cast::cast_backward),
    differentiable("clip", clip, clip_backward),
    differentiable(
        "cos",
        |call| map(call, pointwise!(|x| x.cos())),
        |call| slope(call, pointwise!(|g, x| -g * x.sin())),
    ),
    differentiable(
        "cosh",
        |call| map(call, pointwise!(|x| x.cosh())),
        |call| slope(call, pointwise!(|g, x| g * x.sinh())),
    ),
    differentiable(
        "erf",
        |call| map(call, pointwise!(|x| functions::erf(x))),
        |call| {
            let f = pointwise!(|g, x| g * FRAC_2_SQRT_PI * functions::exp(-x * x));
            slope(call, f)
        },
    ),
    differentiable(
        "exp",
        |call| map(call, pointwise!(|x| functions::exp(x))),
        |call| slope(call, pointwise!(|g, x| g * functions::exp(x))),
    ),
    differentiable(
        "exp2",
        |call| map_numbers(call, power_of_two, pointwise!(|x| functions::exp2(x))),
        |call| slope(call, pointwise!(|g, x| g * LN_2 * functions::exp2(x))),
    ),
    differentiable("floor", |call| map(call, pointwise!(|x| x.floor())), flat),
    differentiable("identity", identity, identity_backward),
    differentiable(
        "inverse",
        |call| {
            let epsilon = epsilon(call, 1e-4)?;
            map(call, pointwise!([epsilon], |x| 1.0 / (x + epsilon)))
        },
        |call| {
            let epsilon = epsilon(call, 1e-4)?;
            let f = pointwise!([epsilon], |g, x| -g / ((x + epsilon) * (x + epsilon)));
            with_epsilon(call, f)
        },
    ),
    differentiable(
        "log",
        |call| {
            let epsilon = epsilon(call, LOG_EPSILON)?;
            map(call, pointwise!([epsilon], |x| functions::log(x + epsilon)))
        },
        |call| {
            let epsilon = epsilon(call, LOG_EPSILON)?;
            with_epsilon(call, pointwise!([epsilon], |g, x| g / (x + epsilon)))
        },
    ),
    op("logical_not", logical_not),
    differentiable(
        "round",
        |call| map(call, pointwise!(|x| x.round_ties_even())),
        flat,
    ),
    differentiable(
        "rsqrt",
        |call| {
            let epsilon = epsilon(call, 1e-12)?;
            map(call, pointwise!([epsilon], |x| 1.0 / (x + epsilon).sqrt()))
        },
        |call| {
            let epsilon = epsilon(call, 1e-12)?;
            let f = pointwise!([epsilon], |g, x| -0.5 * g
                / ((x + epsilon) * (x + epsilon).sqrt()));
            with_epsilon(call, f)
        },
    ),
    differentiable(
        "sign",
        |call| map_numbers(call, i32::signum, pointwise!(|x| sign(x))),
        flat,
    ),
    differentiable(
        "sin",
        |call| map(call, pointwise!(|x| x.sin())),
        |call| slope(call, pointwise!(|g, x| g * x.cos())),
    ),
    differentiable(
        "sinh",
        |call| map(call, pointwise!(|x| x.sinh())),
        |call| slope(call, pointwise!(|g, x| g * x.cosh())),
    ),
    differentiable(
        "sqrt",
        |call| map(call, pointwise!(|x| x.sqrt())),
        |call| slope(call, pointwise!(|g, x| 0.5 * g / x.sqrt())),
    ),
    differentiable(
        "square",
        |call| map_numbers(call, |x| x.wrapping_mul(x), pointwise!(|x| x * x)),
        |call| slope(call, pointwise!(|g, x| 2.0 * g * x)),
    ),
    differentiable(
        "tan",
        |call| map(call, pointwise!(|x| x.tan())),
        |call| slope(call, pointwise!(|g, x| g / (x.cos() * x.cos()))),
    ),
    differentiable(
        "tanh",
        |call| map(call, pointwise!(|x| functions::tanh(x))),
        |call| slope(call, pointwise!(|g, x| g * tanh_slope(x))),
    ),
    differentiable("threshold", threshold, threshold_backward),
];

/// What is added before a logarithm, unless a program says otherwise: the least number of fp32.
const LOG_EPSILON: f32 = 1e-45;

/// -1, 0 or 1; NaN of NaN.
#[inline(always)]
fn sign(x: f32) -> f32 {
    let above = if x > 0.0 { 1.0 } else { x };
    if x < 0.0 { -1.0 } else { above }
}

/// The derivative of the hyperbolic tangent: 1 - tanh² would lose its digits far from 0.
#[inline(always)]
pub(super) fn tanh_slope(x: f32) -> f32 {
    let e = functions::exp(-2.0 * x.abs());
    4.0 * e / ((1.0 + e) * (1.0 + e))
}

/// 2ˣ as the integer that it is, or that is nearest to it.
fn power_of_two(x: i32) -> i32 {
    match x {
        ..=-1 => 0,
        0..=30 => 1 << x,
        _ => i32::MAX,
    }
}

/// The gradient of what is constant between its steps.
fn flat(call: &Backward<'_>) -> Result<Gradients, Fault> {
    slope(call, pointwise!(|_g, _x| 0.0))
}

/// The parameter `epsilon`, or its default in the type of `x`.
fn epsilon(args: &Args<'_>, default: f32) -> Result<f32, Fault> {
    let default = match args.tensor("x")?.dtype() {
        Dtype::F16 => half::f16::from_f32(default).to_f32(),
        _ => default,
    };
    args.float_or("epsilon", default)
}

/// The gradient of a function of x + epsilon with respect to both.
fn with_epsilon(
    call: &Backward<'_>,
    f: impl palettizer_kernels::Pointwise<2>,
) -> Result<Gradients, Fault> {
    let gradients = slope(call, &f)?;
    parameter(call, "epsilon", gradients, &f)
}

fn clip(call: &mut Call<'_>) -> Outcome {
    if call.tensor("x")?.ints().is_some() {
        let (alpha, beta) = (whole(call.int("alpha")?), whole(call.int("beta")?));
        return map_numbers(call, |x| x.max(alpha).min(beta), pointwise!(|x| x));
    }
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |x| {
        let x = if x < alpha { alpha } else { x };
        if x > beta { beta } else { x }
    });
    map(call, f)
}

fn clip_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |g, x| if x > alpha && x < beta {
        g
    } else {
        0.0
    });
    let gradients = slope(call, f)?;
    let f = pointwise!([alpha, beta], |g, x| if x < alpha && alpha <= beta {
        g
    } else {
        0.0
    });
    let gradients = parameter(call, "alpha", gradients, f)?;
    let f = pointwise!([alpha, beta], |g, x| if x > beta || alpha > beta {
        g
    } else {
        0.0
    });
    parameter(call, "beta", gradients, f)
}

fn threshold(call: &mut Call<'_>) -> Outcome {
    if call.tensor("x")?.ints().is_some() {
        let alpha = whole(call.int("alpha")?);
        return map_numbers(call, |x| x.max(alpha), pointwise!(|x| x));
    }
    let alpha = call.float("alpha")?;
    map(
        call,
        pointwise!([alpha], |x| if x < alpha { alpha } else { x }),
    )
}

fn threshold_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let alpha = call.float("alpha")?;
    let f = pointwise!([alpha], |g, x| if x > alpha { g } else { 0.0 });
    let gradients = slope(call, f)?;
    let f = pointwise!([alpha], |g, x| if x < alpha { g } else { 0.0 });
    parameter(call, "alpha", gradients, f)
}

/// An integer in the range of those that are computed with.
fn whole(value: i64) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

fn logical_not(call: &mut Call<'_>) -> Outcome {
    let x = call.tensor("x")?;
    let values = x.bools().ok_or_else(|| wrong("x", x, "bool"))?;
    let values: Vec<bool> = values.iter().map(|x| !x).collect();
    call.output(x.shape(), values)
}

/// Whatever it is given, lists and dictionaries as well.
fn identity(call: &mut Call<'_>) -> Outcome {
    Ok(vec![call.value("x")?.clone()])
}

fn identity_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    Ok(vec![("x", 0, call.upstream()?.to_vec())])
}
