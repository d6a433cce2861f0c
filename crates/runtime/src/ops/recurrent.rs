//! Recurrent layers: a state that each step of a sequence changes.
//!
//! What a step takes from its input is one product for all steps; only what it takes from the state before goes step by step.
//! Traces are kept by time, so that the gradients of weights are single products as well.

mod activation;
mod gru;
mod layer;
mod lstm;
mod rnn;

use crate::registry::{Def, differentiable};

pub(super) const OPS: &[Def] = &[
    differentiable("gru", gru::run, gru::backward),
    differentiable("lstm", lstm::run, lstm::backward),
    differentiable("rnn", rnn::run, rnn::backward),
];
