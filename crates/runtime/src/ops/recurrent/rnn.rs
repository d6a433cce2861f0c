//! Plain recurrent layers: `h = activation(W x + R h + b)`.

use super::activation::Activation;
use super::layer::{Layer, add, column_sums, direction, shaped, vector};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};

struct Rnn<'a> {
    layer: Layer<'a>,
    activation: Activation,
    initial: &'a [f32],
    bias: Option<&'a [f32]>,
    sequence: bool,
}

fn read<'a>(call: &'a Args<'_>) -> Result<Rnn<'a>, Fault> {
    let reverse = direction(call, &["forward", "reverse"])? == "reverse";
    let layer = Layer::of(call, 1, reverse, ["weight_ih", "weight_hh"])?;
    Ok(Rnn {
        activation: Activation::of(call, "activation", Activation::Tanh)?,
        initial: shaped(call, "initial_h", &[layer.batch, layer.hidden])?,
        bias: vector(call, "bias", layer.hidden)?,
        sequence: call.bool_or("output_sequence", false)?,
        layer,
    })
}

/// The states before and after each step, by time.
fn trace(rnn: &Rnn<'_>) -> [Vec<f32>; 2] {
    let size = rnn.layer.state();
    let mut after = rnn.layer.of_inputs(rnn.bias);
    let mut before = vec![0.0; after.len()];
    let mut state = rnn.initial.to_vec();
    for at in rnn.layer.order() {
        let part = at * size..(at + 1) * size;
        before[part.clone()].copy_from_slice(&state);
        let step = &mut after[part];
        rnn.layer.add_state(&state, 0..1, step);
        step.iter_mut().for_each(|x| *x = rnn.activation.at(*x));
        state.copy_from_slice(step);
    }
    [before, after]
}

/// What a layer gives of its states: all of them in the order of steps, or the last one; and the last one.
pub(super) fn outputs(
    call: &Call<'_>,
    layer: &Layer<'_>,
    sequence: bool,
    initial: &[f32],
    states: &[f32],
) -> Outcome {
    let size = layer.state();
    let steps: Vec<usize> = layer.order().collect();
    let state = |at: usize| &states[at * size..(at + 1) * size];
    let last = steps.last().map_or(initial, |&at| state(at)).to_vec();
    let shape = [layer.batch, layer.hidden];
    let (count, all) = match sequence {
        true => (
            layer.steps,
            steps.iter().flat_map(|&at| state(at)).copied().collect(),
        ),
        false => (1, last.clone()),
    };
    Ok(vec![
        call.nth_output(0, &[count, shape[0], shape[1]], all)?,
        call.nth_output(1, &shape, last)?,
    ])
}

/// The gradients of states from those of the outputs: for each step by time, and of what is the last state.
pub(super) fn upstream(call: &Backward<'_>, layer: &Layer<'_>, sequence: bool) -> [Vec<f32>; 2] {
    let size = layer.state();
    let mut last = vec![0.0; size];
    let mut each = vec![0.0; layer.steps * size];
    if let Some(given) = call.upstream_of(0) {
        match sequence {
            true => {
                for (at, given) in layer.order().zip(given.chunks(size.max(1))) {
                    add(&mut each[at * size..(at + 1) * size], given);
                }
            }
            false => add(&mut last, given),
        }
    }
    if let Some(given) = call.upstream_of(1) {
        add(&mut last, given);
    }
    [each, last]
}

pub(super) fn run(call: &mut Call<'_>) -> Outcome {
    let rnn = read(call)?;
    rnn.layer.fits(call, 3)?;
    let [_, states] = trace(&rnn);
    outputs(call, &rnn.layer, rnn.sequence, rnn.initial, &states)
}

pub(super) fn backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let rnn = read(call)?;
    let layer = &rnn.layer;
    let [before, mut slopes] = trace(&rnn);
    let [each, mut state] = upstream(call, layer, rnn.sequence);
    let size = layer.state();
    for at in layer.order().rev() {
        let part = at * size..(at + 1) * size;
        add(&mut state, &each[part.clone()]);
        let step = &mut slopes[part];
        let pairs = step.iter_mut().zip(&state);
        pairs.for_each(|(y, g)| *y = g * rnn.activation.slope(*y));
        state.fill(0.0);
        layer.add_state_gradient(step, 0..1, &mut state);
    }
    let mut gradients = vec![("initial_h", 0, state)];
    if call.wants("x") {
        let mut x = vec![0.0; layer.x.len()];
        layer.add_input_gradient(&slopes, &mut x);
        gradients.push(("x", 0, x));
    }
    if call.wants("weight_ih") {
        gradients.push(("weight_ih", 0, layer.input_weights_gradient(&slopes)));
    }
    if call.wants("weight_hh") {
        let mut weights = vec![0.0; layer.from_state.len()];
        layer.state_weights_gradient(&slopes, 0..1, &before, &mut weights);
        gradients.push(("weight_hh", 0, weights));
    }
    if rnn.bias.is_some() {
        gradients.push(("bias", 0, column_sums(&slopes, layer.width())));
    }
    Ok(gradients)
}
