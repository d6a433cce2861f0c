//! Activation functions.

mod channels;
mod gelu;
mod softmax;

use super::unary::tanh_slope;
use crate::call::{Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::pointwise::{map, parameter, pointwise, slope, slope_by_output};
use crate::registry::{Def, differentiable};
use palettizer_kernels::functions;

pub(super) const OPS: &[Def] = &[
    differentiable("clamped_relu", clamped_relu, clamped_relu_backward),
    differentiable("elu", elu, elu_backward),
    differentiable("gelu", gelu::gelu, gelu::gelu_backward),
    differentiable("leaky_relu", leaky_relu, leaky_relu_backward),
    differentiable("linear_activation", linear, linear_backward),
    differentiable("prelu", channels::prelu, channels::prelu_backward),
    differentiable(
        "relu",
        |call| map(call, pointwise!(|x| if x < 0.0 { 0.0 } else { x })),
        |call| slope_by_output(call, pointwise!(|g, y| if y > 0.0 { g } else { 0.0 })),
    )
    .by_outputs(),
    differentiable(
        "relu6",
        |call| map(call, pointwise!(|x| between(x, 0.0, 6.0))),
        |call| {
            slope(
                call,
                pointwise!(|g, x| if x > 0.0 && x < 6.0 { g } else { 0.0 }),
            )
        },
    ),
    differentiable("scaled_tanh", scaled_tanh, scaled_tanh_backward),
    differentiable(
        "sigmoid",
        |call| map(call, pointwise!(|x| functions::sigmoid(x))),
        |call| slope(call, pointwise!(|g, x| g * sigmoid_slope(x))),
    ),
    differentiable("sigmoid_hard", sigmoid_hard, sigmoid_hard_backward),
    differentiable(
        "silu",
        |call| map(call, pointwise!(|x| x * functions::sigmoid(x))),
        |call| {
            let f = pointwise!(|g, x| g * (functions::sigmoid(x) + x * sigmoid_slope(x)));
            slope(call, f)
        },
    ),
    differentiable("softmax", softmax::softmax, softmax::softmax_backward).by_outputs(),
    differentiable(
        "softplus",
        |call| map(call, pointwise!(|x| functions::softplus(x))),
        |call| slope(call, pointwise!(|g, x| g * functions::sigmoid(x))),
    ),
    differentiable(
        "softplus_parametric",
        channels::softplus,
        channels::softplus_backward,
    ),
    differentiable(
        "softsign",
        |call| map(call, pointwise!(|x| x / (1.0 + x.abs()))),
        |call| {
            let f = pointwise!(|g, x| g / ((1.0 + x.abs()) * (1.0 + x.abs())));
            slope(call, f)
        },
    ),
    differentiable(
        "thresholded_relu",
        thresholded_relu,
        thresholded_relu_backward,
    ),
];

/// x, not below and not above these; NaN stays.
#[inline(always)]
fn between(x: f32, least: f32, most: f32) -> f32 {
    let x = if x < least { least } else { x };
    if x > most { most } else { x }
}

/// The derivative of the sigmoid.
#[inline(always)]
fn sigmoid_slope(x: f32) -> f32 {
    let e = functions::exp(-x.abs());
    e / ((1.0 + e) * (1.0 + e))
}

/// x where it is not negative, a multiple of it elsewhere.
#[inline(always)]
fn leaky(x: f32, alpha: f32) -> f32 {
    if x < 0.0 { alpha * x } else { x }
}

// The documentation's `min(beta, …)`; coremltools itself cuts both branches before it adds them, which differs for a negative beta.
fn clamped_relu(call: &mut Call<'_>) -> Outcome {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |x| {
        let y = leaky(x, alpha);
        if y > beta { beta } else { y }
    });
    map(call, f)
}

fn clamped_relu_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |g, x| {
        let slope = if x < 0.0 { alpha } else { 1.0 };
        if leaky(x, alpha) > beta {
            0.0
        } else {
            g * slope
        }
    });
    let gradients = slope(call, f)?;
    let f = pointwise!([alpha, beta], |g, x| {
        if x < 0.0 && leaky(x, alpha) <= beta {
            g * x
        } else {
            0.0
        }
    });
    let gradients = parameter(call, "alpha", gradients, f)?;
    let f = pointwise!([alpha, beta], |g, x| if leaky(x, alpha) > beta {
        g
    } else {
        0.0
    });
    parameter(call, "beta", gradients, f)
}

fn elu(call: &mut Call<'_>) -> Outcome {
    let alpha = call.float("alpha")?;
    let f = pointwise!([alpha], |x| {
        let below = alpha * functions::exp_m1(if x > 0.0 { 0.0 } else { x });
        if x > 0.0 { x } else { below }
    });
    map(call, f)
}

fn elu_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let alpha = call.float("alpha")?;
    let f = pointwise!([alpha], |g, x| g * if x > 0.0 {
        1.0
    } else {
        alpha * functions::exp(x)
    });
    let gradients = slope(call, f)?;
    let f = pointwise!(|g, x| g * functions::exp_m1(if x > 0.0 { 0.0 } else { x }));
    parameter(call, "alpha", gradients, f)
}

fn leaky_relu(call: &mut Call<'_>) -> Outcome {
    let alpha = call.float("alpha")?;
    map(call, pointwise!([alpha], |x| leaky(x, alpha)))
}

fn leaky_relu_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let alpha = call.float("alpha")?;
    let f = pointwise!([alpha], |g, x| if x > 0.0 { g } else { alpha * g });
    let gradients = slope(call, f)?;
    let f = pointwise!(|g, x| if x < 0.0 { g * x } else { 0.0 });
    parameter(call, "alpha", gradients, f)
}

fn linear(call: &mut Call<'_>) -> Outcome {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    map(call, pointwise!([alpha, beta], |x| alpha * x + beta))
}

fn linear_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let alpha = call.float("alpha")?;
    let gradients = slope(call, pointwise!([alpha], |g, _x| alpha * g))?;
    let gradients = parameter(call, "alpha", gradients, pointwise!(|g, x| g * x))?;
    parameter(call, "beta", gradients, pointwise!(|g, _x| g))
}

fn scaled_tanh(call: &mut Call<'_>) -> Outcome {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |x| alpha * functions::tanh(beta * x));
    map(call, f)
}

fn scaled_tanh_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |g, x| g
        * alpha
        * beta
        * tanh_slope(beta * x));
    let gradients = slope(call, f)?;
    let f = pointwise!([beta], |g, x| g * functions::tanh(beta * x));
    let gradients = parameter(call, "alpha", gradients, f)?;
    let f = pointwise!([alpha, beta], |g, x| g * alpha * x * tanh_slope(beta * x));
    parameter(call, "beta", gradients, f)
}

fn sigmoid_hard(call: &mut Call<'_>) -> Outcome {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |x| between(alpha * x + beta, 0.0, 1.0));
    map(call, f)
}

fn sigmoid_hard_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (alpha, beta) = (call.float("alpha")?, call.float("beta")?);
    let f = pointwise!([alpha, beta], |g, x| {
        let y = alpha * x + beta;
        if y > 0.0 && y < 1.0 { g } else { 0.0 }
    });
    let mut gradients = slope(call, &f)?;
    for (_, _, gradient) in &mut gradients {
        gradient.iter_mut().for_each(|value| *value *= alpha);
    }
    let by_alpha = pointwise!([alpha, beta], |g, x| {
        let y = alpha * x + beta;
        if y > 0.0 && y < 1.0 { g * x } else { 0.0 }
    });
    let gradients = parameter(call, "alpha", gradients, by_alpha)?;
    parameter(call, "beta", gradients, &f)
}

fn thresholded_relu(call: &mut Call<'_>) -> Outcome {
    let alpha = call.float("alpha")?;
    // not `x >= alpha`: NaN stays
    map(
        call,
        pointwise!([alpha], |x| if x < alpha { 0.0 } else { x }),
    )
}

fn thresholded_relu_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let alpha = call.float("alpha")?;
    slope(
        call,
        pointwise!([alpha], |g, x| if x < alpha { 0.0 } else { g }),
    )
}
