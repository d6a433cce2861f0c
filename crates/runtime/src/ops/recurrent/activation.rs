//! The activations of recurrent layers; their parameters are the standard ones.

use crate::call::{Args, Fault};

/// An activation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Activation {
    HardSigmoid,
    Linear,
    Relu,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// The activation that a parameter names.
    pub(super) fn of(call: &Args<'_>, param: &str, default: Activation) -> Result<Self, Fault> {
        let Some(name) = call.text(param)? else {
            return Ok(default);
        };
        Ok(match name.to_lowercase().as_str() {
            "hard_sigmoid" | "sigmoid_hard" => Activation::HardSigmoid,
            "linear" => Activation::Linear,
            "relu" => Activation::Relu,
            "sigmoid" => Activation::Sigmoid,
            // with its standard parameters, a scaled one is not scaled
            "tanh" | "scaled_tanh" => Activation::Tanh,
            _ => {
                let allowed = "hard_sigmoid, linear, relu, scaled_tanh, sigmoid or tanh";
                return Err(format!("{param} is \"{name}\"; expected {allowed}").into());
            }
        })
    }

    /// Its value.
    pub(super) fn at(self, x: f32) -> f32 {
        match self {
            Activation::HardSigmoid => (0.2 * x + 0.5).clamp(0.0, 1.0),
            Activation::Linear => x,
            // NaN stays
            Activation::Relu if x < 0.0 => 0.0,
            Activation::Relu => x,
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
        }
    }

    /// Its slope, where it has this value.
    pub(super) fn slope(self, y: f32) -> f32 {
        match self {
            Activation::HardSigmoid if y > 0.0 && y < 1.0 => 0.2,
            Activation::HardSigmoid => 0.0,
            Activation::Linear => 1.0,
            Activation::Relu => f32::from(y > 0.0),
            Activation::Sigmoid => y * (1.0 - y),
            Activation::Tanh => 1.0 - y * y,
        }
    }
}
