//! Gated recurrent units; gates are in the order r (reset), o (new), z (update).
//!
//! The documentation's formula leaves open whether the reset gate comes before or after the product with R. By Core ML's tests it
//! comes before, and after it with `reset_after`; then `bias` is what the gate resets too, and `input_bias` is not.

use super::activation::Activation;
use super::layer::{Layer, add, column_sums, direction, shaped, vector};
use super::rnn::{outputs, upstream};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};

const GATES: usize = 3;

struct Gru<'a> {
    layer: Layer<'a>,
    recurrent: Activation,
    activation: Activation,
    initial: &'a [f32],
    bias: Option<&'a [f32]>,
    input_bias: Option<&'a [f32]>,
    after: bool,
    sequence: bool,
}

fn read<'a>(call: &'a Args<'_>) -> Result<Gru<'a>, Fault> {
    let reverse = direction(call, &["forward", "reverse"])? == "reverse";
    let layer = Layer::of(call, GATES, reverse, ["weight_ih", "weight_hh"])?;
    Ok(Gru {
        recurrent: Activation::of(call, "recurrent_activation", Activation::Sigmoid)?,
        activation: Activation::of(call, "activation", Activation::Tanh)?,
        initial: shaped(call, "initial_h", &[layer.batch, layer.hidden])?,
        bias: vector(call, "bias", layer.width())?,
        input_bias: vector(call, "input_bias", layer.width())?,
        after: call.bool_or("reset_after", false)?,
        sequence: call.bool_or("output_sequence", false)?,
        layer,
    })
}

/// What is known of all steps, by time.
struct Trace {
    gates: Vec<f32>,
    before: Vec<f32>,
    states: Vec<f32>,
    /// What the new state takes from the state before: after `reset_after` the product that is reset, else the reset state.
    reset: Vec<f32>,
}

/// The bias that all gates have; with `reset_after`, that of o is partly elsewhere.
fn bias_of(gru: &Gru<'_>) -> Option<Vec<f32>> {
    let hidden = gru.layer.hidden;
    let mut sums = vec![0.0; gru.layer.width()];
    if let Some(bias) = gru.bias {
        add(&mut sums, bias);
        if gru.after {
            sums[hidden..2 * hidden].fill(0.0);
        }
    }
    if let Some(bias) = gru.input_bias {
        add(&mut sums, bias);
    }
    (gru.bias.is_some() || gru.input_bias.is_some()).then_some(sums)
}

fn trace(gru: &Gru<'_>) -> Trace {
    let layer = &gru.layer;
    let (hidden, width, size) = (layer.hidden, layer.width(), layer.state());
    let mut gates = layer.of_inputs(bias_of(gru).as_deref());
    let [mut before, mut states, mut reset] = [(); 3].map(|()| vec![0.0; layer.steps * size]);
    let mut state = gru.initial.to_vec();
    let mut products = vec![0.0; layer.batch * width];
    for at in layer.order() {
        let part = at * size..(at + 1) * size;
        let step = &mut gates[at * layer.batch * width..(at + 1) * layer.batch * width];
        let kept = &mut reset[part.clone()];
        before[part.clone()].copy_from_slice(&state);
        layer.add_state(&state, 0..1, step);
        layer.add_state(&state, 2..3, step);
        if gru.after {
            products.fill(0.0);
            layer.add_state(&state, 1..2, &mut products);
            let rows = kept
                .chunks_mut(hidden.max(1))
                .zip(products.chunks(width.max(1)));
            for (kept, products) in rows {
                kept.copy_from_slice(&products[hidden..2 * hidden]);
                if let Some(bias) = gru.bias {
                    add(kept, &bias[hidden..2 * hidden]);
                }
            }
        }
        let rows = step
            .chunks_mut(width.max(1))
            .zip(kept.chunks_mut(hidden.max(1)));
        for ((step, kept), state) in rows.zip(state.chunks(hidden.max(1))) {
            for j in 0..hidden {
                step[j] = gru.recurrent.at(step[j]);
                step[2 * hidden + j] = gru.recurrent.at(step[2 * hidden + j]);
                match gru.after {
                    true => step[hidden + j] += step[j] * kept[j],
                    false => kept[j] = step[j] * state[j],
                }
            }
        }
        if !gru.after {
            layer.add_state(kept, 1..2, step);
        }
        for (step, state) in step
            .chunks_mut(width.max(1))
            .zip(state.chunks_mut(hidden.max(1)))
        {
            for (j, state) in state.iter_mut().enumerate() {
                let new = gru.activation.at(step[hidden + j]);
                step[hidden + j] = new;
                *state = (1.0 - step[2 * hidden + j]) * new + step[2 * hidden + j] * *state;
            }
        }
        states[part].copy_from_slice(&state);
    }
    Trace {
        gates,
        before,
        states,
        reset,
    }
}

pub(super) fn run(call: &mut Call<'_>) -> Outcome {
    let gru = read(call)?;
    gru.layer.fits(call, GATES + 4)?;
    let trace = trace(&gru);
    outputs(call, &gru.layer, gru.sequence, gru.initial, &trace.states)
}

pub(super) fn backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let gru = read(call)?;
    let layer = &gru.layer;
    let (hidden, width, size) = (layer.hidden, layer.width(), layer.state());
    let Trace {
        mut gates,
        before,
        reset,
        ..
    } = trace(&gru);
    let [each, mut state] = upstream(call, layer, gru.sequence);
    // the gradients of products with the state: those of the gates, but for o with `reset_after`
    let mut inner = if gru.after {
        vec![0.0; gates.len()]
    } else {
        Vec::new()
    };
    for at in layer.order().rev() {
        let part = at * size..(at + 1) * size;
        let whole = at * layer.batch * width..(at + 1) * layer.batch * width;
        add(&mut state, &each[part.clone()]);
        let (step, last, kept) = (
            &mut gates[whole.clone()],
            &before[part.clone()],
            &reset[part],
        );
        let mut resets = vec![0.0; size];
        for row in 0..layer.batch {
            for j in 0..hidden {
                let (at, [r, o, z]) = (
                    row * hidden + j,
                    [0, 1, 2].map(|gate| row * width + gate * hidden + j),
                );
                let (g, new, update) = (state[at], step[o], step[z]);
                state[at] = g * update;
                step[z] = g * (last[at] - new) * gru.recurrent.slope(update);
                step[o] = g * (1.0 - update) * gru.activation.slope(new);
                if gru.after {
                    let gate = step[r];
                    step[r] = step[o] * kept[at] * gru.recurrent.slope(gate);
                    inner[whole.start + o] = step[o] * gate;
                }
            }
        }
        if gru.after {
            layer.add_state_gradient(&inner[whole], 1..2, &mut state);
        } else {
            layer.add_state_gradient(step, 1..2, &mut resets);
            for row in 0..layer.batch {
                for j in 0..hidden {
                    let (at, r) = (row * hidden + j, row * width + j);
                    let gate = step[r];
                    state[at] += resets[at] * gate;
                    step[r] = resets[at] * last[at] * gru.recurrent.slope(gate);
                }
            }
        }
        layer.add_state_gradient(step, 0..1, &mut state);
        layer.add_state_gradient(step, 2..3, &mut state);
    }
    let mut gradients = vec![("initial_h", 0, state)];
    if call.wants("x") {
        let mut x = vec![0.0; layer.x.len()];
        layer.add_input_gradient(&gates, &mut x);
        gradients.push(("x", 0, x));
    }
    if call.wants("weight_ih") {
        gradients.push(("weight_ih", 0, layer.input_weights_gradient(&gates)));
    }
    if call.wants("weight_hh") {
        let mut weights = vec![0.0; layer.from_state.len()];
        layer.state_weights_gradient(&gates, 0..1, &before, &mut weights);
        layer.state_weights_gradient(&gates, 2..3, &before, &mut weights);
        let (from, states) = if gru.after {
            (&inner, &before)
        } else {
            (&gates, &reset)
        };
        layer.state_weights_gradient(from, 1..2, states, &mut weights);
        gradients.push(("weight_hh", 0, weights));
    }
    let sums = column_sums(&gates, width);
    if gru.bias.is_some() {
        let mut sums = sums.clone();
        if gru.after {
            let inner = column_sums(&inner, width);
            sums[hidden..2 * hidden].copy_from_slice(&inner[hidden..2 * hidden]);
        }
        gradients.push(("bias", 0, sums));
    }
    if gru.input_bias.is_some() {
        gradients.push(("input_bias", 0, sums));
    }
    Ok(gradients)
}
