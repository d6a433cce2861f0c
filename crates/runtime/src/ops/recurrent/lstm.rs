//! Long short-term memory; gates are in the order i (input), f (forget), o (output), z (cell).
//!
//! `clip` bounds the memory state, as in Core ML's tests, though its documentation speaks of the cell gate. Peepholes of i and f
//! see the memory before the step, that of o the memory after it.

use super::activation::Activation;
use super::layer::{Layer, add, column_sums, direction, shaped, vector};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};

const GATES: usize = 4;

/// The names of a direction's parameters.
struct Names {
    weights: [&'static str; 2],
    bias: &'static str,
    peephole: &'static str,
}

const FORWARD: Names = Names {
    weights: ["weight_ih", "weight_hh"],
    bias: "bias",
    peephole: "peephole",
};
const BACK: Names = Names {
    weights: ["weight_ih_back", "weight_hh_back"],
    bias: "bias_back",
    peephole: "peephole_back",
};

/// One direction.
struct Lstm<'a> {
    names: &'static Names,
    layer: Layer<'a>,
    /// Gates, cell, output.
    activations: [Activation; 3],
    initial_h: Vec<f32>,
    initial_c: Vec<f32>,
    bias: Option<&'a [f32]>,
    peephole: Option<&'a [f32]>,
    clip: f32,
}

/// All directions, and whether all steps are given.
struct Both<'a> {
    directions: Vec<Lstm<'a>>,
    sequence: bool,
}

/// The columns of one direction.
fn columns(values: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    let rows = values.chunks(width.max(1));
    rows.flat_map(|row| &row[first..first + count])
        .copied()
        .collect()
}

/// Puts the columns of one direction in their place.
fn put_columns(values: &mut [f32], width: usize, first: usize, part: &[f32], count: usize) {
    let rows = values
        .chunks_mut(width.max(1))
        .zip(part.chunks(count.max(1)));
    rows.for_each(|(row, part)| row[first..first + count].copy_from_slice(part));
}

fn read<'a>(call: &'a Args<'_>) -> Result<Both<'a>, Fault> {
    let direction = direction(call, &["forward", "reverse", "bidirectional"])?;
    let which: &[(bool, &'static Names)] = match direction {
        "forward" => &[(false, &FORWARD)],
        "reverse" => &[(true, &FORWARD)],
        _ => &[(false, &FORWARD), (true, &BACK)],
    };
    let activations = [
        Activation::of(call, "recurrent_activation", Activation::Sigmoid)?,
        Activation::of(call, "cell_activation", Activation::Tanh)?,
        Activation::of(call, "activation", Activation::Tanh)?,
    ];
    let clip = call.float_or("clip", f32::INFINITY)?;
    if clip.is_nan() || clip < 0.0 {
        return Err(format!("clip is {clip}; expected a number from 0 on").into());
    }
    let mut directions: Vec<Lstm<'a>> = Vec::new();
    for (at, &(reverse, names)) in which.iter().enumerate() {
        let layer = Layer::of(call, GATES, reverse, names.weights)?;
        let hidden = layer.hidden;
        if let Some(first) = directions
            .first()
            .filter(|first| first.layer.hidden != hidden)
        {
            let first = first.layer.hidden;
            return Err(format!("directions have {first} and {hidden} hidden numbers").into());
        }
        let width = hidden.saturating_mul(which.len());
        let initial = |param| {
            let state = shaped(call, param, &[layer.batch, width])?;
            Ok::<_, Fault>(columns(state, width, at * hidden, hidden))
        };
        directions.push(Lstm {
            names,
            activations,
            initial_h: initial("initial_h")?,
            initial_c: initial("initial_c")?,
            bias: vector(call, names.bias, GATES * hidden)?,
            peephole: vector(call, names.peephole, 3 * hidden)?,
            clip,
            layer,
        });
    }
    Ok(Both {
        directions,
        sequence: call.bool_or("output_sequence", false)?,
    })
}

/// What is known of all steps, by time; and the last states.
struct Trace {
    gates: Vec<f32>,
    h_before: Vec<f32>,
    c_before: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    last: [Vec<f32>; 2],
}

fn trace(lstm: &Lstm<'_>) -> Trace {
    let layer = &lstm.layer;
    let (hidden, width, size) = (layer.hidden, layer.width(), layer.state());
    let [gate, cell, output] = lstm.activations;
    let mut gates = layer.of_inputs(lstm.bias);
    let [mut h_before, mut c_before, mut h, mut c] =
        [(); 4].map(|()| vec![0.0; layer.steps * size]);
    let (mut state, mut memory) = (lstm.initial_h.clone(), lstm.initial_c.clone());
    let none = vec![0.0; 3 * hidden];
    let peephole = lstm.peephole.unwrap_or(&none);
    let (to_i, rest) = peephole.split_at(hidden);
    let (to_f, to_o) = rest.split_at(hidden);
    for at in layer.order() {
        let part = at * size..(at + 1) * size;
        h_before[part.clone()].copy_from_slice(&state);
        c_before[part.clone()].copy_from_slice(&memory);
        let step = &mut gates[at * layer.batch * width..(at + 1) * layer.batch * width];
        layer.add_state(&state, 0..GATES, step);
        let rows = step
            .chunks_mut(width.max(1))
            .zip(state.chunks_mut(hidden.max(1)));
        for ((step, state), memory) in rows.zip(memory.chunks_mut(hidden.max(1))) {
            let (i, rest) = step.split_at_mut(hidden);
            let (f, rest) = rest.split_at_mut(hidden);
            let (o, z) = rest.split_at_mut(hidden);
            for j in 0..hidden {
                let c = memory[j];
                i[j] = gate.at(i[j] + to_i[j] * c);
                f[j] = gate.at(f[j] + to_f[j] * c);
                z[j] = cell.at(z[j]);
                let c = (f[j] * c + i[j] * z[j]).clamp(-lstm.clip, lstm.clip);
                o[j] = gate.at(o[j] + to_o[j] * c);
                memory[j] = c;
                state[j] = o[j] * output.at(c);
            }
        }
        h[part.clone()].copy_from_slice(&state);
        c[part].copy_from_slice(&memory);
    }
    Trace {
        gates,
        h_before,
        c_before,
        h,
        c,
        last: [state, memory],
    }
}

/// The steps in the order that outputs have: of its own for one direction, of the input for two.
fn output_order(lstm: &Lstm<'_>, directions: usize) -> Vec<usize> {
    match directions {
        1 => lstm.layer.order().collect(),
        _ => (0..lstm.layer.steps).collect(),
    }
}

pub(super) fn run(call: &mut Call<'_>) -> Outcome {
    let Both {
        directions,
        sequence,
    } = read(call)?;
    let layer = &directions[0].layer;
    layer.fits(call, (GATES + 6) * directions.len())?;
    let (hidden, size) = (layer.hidden, layer.state());
    let width = hidden * directions.len();
    let steps = if sequence { layer.steps } else { 1 };
    let mut all = vec![0.0; steps * layer.batch * width];
    let [mut h, mut c] = [(); 2].map(|()| vec![0.0; layer.batch * width]);
    for (at, lstm) in directions.iter().enumerate() {
        let trace = trace(lstm);
        let [last_h, last_c] = &trace.last;
        put_columns(&mut h, width, at * hidden, last_h, hidden);
        put_columns(&mut c, width, at * hidden, last_c, hidden);
        if !sequence {
            put_columns(&mut all, width, at * hidden, last_h, hidden);
            continue;
        }
        let steps = output_order(lstm, directions.len());
        let into = all.chunks_mut((layer.batch * width).max(1));
        for (all, step) in into.zip(steps) {
            let state = &trace.h[step * size..(step + 1) * size];
            put_columns(all, width, at * hidden, state, hidden);
        }
    }
    Ok(vec![
        call.nth_output(0, &[steps, layer.batch, width], all)?,
        call.nth_output(1, &[layer.batch, width], h)?,
        call.nth_output(2, &[layer.batch, width], c)?,
    ])
}

/// The gradients of one direction: of gates by time, of the first states, of the peephole.
struct Slopes {
    gates: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    peephole: Vec<f32>,
}

/// Goes back through the steps, from the gradients of each state by time and of the last states.
fn slopes(
    lstm: &Lstm<'_>,
    trace: Trace,
    each: &[f32],
    mut h: Vec<f32>,
    mut c: Vec<f32>,
) -> (Slopes, Vec<f32>) {
    let layer = &lstm.layer;
    let (hidden, width, size) = (layer.hidden, layer.width(), layer.state());
    let [gate, cell, output] = lstm.activations;
    let Trace {
        mut gates,
        h_before,
        c_before,
        c: memory,
        ..
    } = trace;
    let none = vec![0.0; 3 * hidden];
    let peephole = lstm.peephole.unwrap_or(&none);
    let mut sums = vec![0.0f64; 3 * hidden];
    for at in layer.order().rev() {
        let part = at * size..(at + 1) * size;
        add(&mut h, &each[part.clone()]);
        let (last, memory) = (&c_before[part.clone()], &memory[part]);
        let step = &mut gates[at * layer.batch * width..(at + 1) * layer.batch * width];
        for row in 0..layer.batch {
            for j in 0..hidden {
                let at = row * hidden + j;
                let [i, f, o, z] = [0, 1, 2, 3].map(|gate| row * width + gate * hidden + j);
                let [vi, vf, vo, vz] = [i, f, o, z].map(|at| step[at]);
                let (before, now) = (last[at], memory[at]);
                let value = output.at(now);
                let to_o = h[at] * value * gate.slope(vo);
                let mut to_c =
                    c[at] + h[at] * vo * output.slope(value) + to_o * peephole[2 * hidden + j];
                if (vf * before + vi * vz).abs() > lstm.clip {
                    to_c = 0.0;
                }
                let to_i = to_c * vz * gate.slope(vi);
                let to_f = to_c * before * gate.slope(vf);
                step[i] = to_i;
                step[f] = to_f;
                step[o] = to_o;
                step[z] = to_c * vi * cell.slope(vz);
                c[at] = to_c * vf + to_i * peephole[j] + to_f * peephole[hidden + j];
                sums[j] += f64::from(to_i * before);
                sums[hidden + j] += f64::from(to_f * before);
                sums[2 * hidden + j] += f64::from(to_o * now);
            }
        }
        h.fill(0.0);
        layer.add_state_gradient(step, 0..GATES, &mut h);
    }
    let peephole = sums.into_iter().map(|sum| sum as f32).collect();
    let slopes = Slopes {
        gates,
        h,
        c,
        peephole,
    };
    (slopes, h_before)
}

pub(super) fn backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let Both {
        directions,
        sequence,
    } = read(call)?;
    let layer = &directions[0].layer;
    let (hidden, size) = (layer.hidden, layer.state());
    let width = hidden * directions.len();
    let mut x = vec![0.0; layer.x.len()];
    let [mut h, mut c] = [(); 2].map(|()| vec![0.0; layer.batch * width]);
    let mut gradients = Gradients::new();
    for (at, lstm) in directions.iter().enumerate() {
        let own = |given: &[f32]| columns(given, width, at * hidden, hidden);
        let of = |output: usize| {
            call.upstream_of(output)
                .map_or_else(|| vec![0.0; size], own)
        };
        let (mut last, mut each) = (of(1), vec![0.0; layer.steps * size]);
        if let Some(given) = call.upstream_of(0) {
            let given = own(given);
            if sequence {
                let steps = output_order(lstm, directions.len()).into_iter();
                for (step, given) in steps.zip(given.chunks(size.max(1))) {
                    each[step * size..(step + 1) * size].copy_from_slice(given);
                }
            } else {
                add(&mut last, &given);
            }
        }
        let (slopes, before) = slopes(lstm, trace(lstm), &each, last, of(2));
        put_columns(&mut h, width, at * hidden, &slopes.h, hidden);
        put_columns(&mut c, width, at * hidden, &slopes.c, hidden);
        lstm.layer.add_input_gradient(&slopes.gates, &mut x);
        let names = lstm.names;
        if call.wants(names.weights[0]) {
            let weights = lstm.layer.input_weights_gradient(&slopes.gates);
            gradients.push((names.weights[0], 0, weights));
        }
        if call.wants(names.weights[1]) {
            let mut weights = vec![0.0; lstm.layer.from_state.len()];
            let gates = &slopes.gates;
            lstm.layer
                .state_weights_gradient(gates, 0..GATES, &before, &mut weights);
            gradients.push((names.weights[1], 0, weights));
        }
        if lstm.bias.is_some() {
            let sums = column_sums(&slopes.gates, lstm.layer.width());
            gradients.push((names.bias, 0, sums));
        }
        if lstm.peephole.is_some() {
            gradients.push((names.peephole, 0, slopes.peephole));
        }
    }
    gradients.extend([("x", 0, x), ("initial_h", 0, h), ("initial_c", 0, c)]);
    Ok(gradients)
}
