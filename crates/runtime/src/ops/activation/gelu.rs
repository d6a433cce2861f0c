//! The Gaussian error linear unit, exact or approximated.
//!
//! The approximation by tanh is written with a sigmoid, ½ (1 + tanh z) = sigmoid(2z), which keeps its digits where it is small.

use super::sigmoid_slope;
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::pointwise::{map, pointwise, slope};
use palettizer_kernels::functions::{normal_below, normal_density, sigmoid};

enum Mode {
    Exact,
    Tanh,
    Sigmoid,
}

fn mode(args: &Args<'_>) -> Result<Mode, Fault> {
    match args.text("mode")?.unwrap_or("EXACT") {
        "EXACT" => Ok(Mode::Exact),
        "TANH_APPROXIMATION" => Ok(Mode::Tanh),
        "SIGMOID_APPROXIMATION" => Ok(Mode::Sigmoid),
        other => Err(format!(
            "mode is \"{other}\"; expected EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION"
        )
        .into()),
    }
}

/// Of the approximation by a sigmoid.
const FACTOR: f32 = 1.702;
/// Of the approximation by tanh: 2 √(2/π), and that of the cube.
const OUTER: f32 = 1.595_769_2;
const CUBE: f32 = 0.044_715;

pub(super) fn gelu(call: &mut Call<'_>) -> Outcome {
    match mode(call)? {
        Mode::Exact => map(call, pointwise!(|x| x * normal_below(x))),
        Mode::Tanh => {
            let f = pointwise!(|x| x * sigmoid(OUTER * (x + CUBE * x * x * x)));
            map(call, f)
        }
        Mode::Sigmoid => map(call, pointwise!(|x| x * sigmoid(FACTOR * x))),
    }
}

pub(super) fn gelu_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    match mode(call)? {
        Mode::Exact => {
            let f = pointwise!(|g, x| g * (normal_below(x) + x * normal_density(x)));
            slope(call, f)
        }
        Mode::Tanh => {
            let f = pointwise!(|g, x| {
                let z = OUTER * (x + CUBE * x * x * x);
                let by_x = OUTER * (1.0 + 3.0 * CUBE * x * x);
                g * (sigmoid(z) + x * by_x * sigmoid_slope(z))
            });
            slope(call, f)
        }
        Mode::Sigmoid => {
            let f = pointwise!(|g, x| {
                g * (sigmoid(FACTOR * x) + FACTOR * x * sigmoid_slope(FACTOR * x))
            });
            slope(call, f)
        }
    }
}
