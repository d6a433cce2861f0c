//! One direction of a recurrent layer: its sizes, its weights, and the products that all layers share.
//!
//! "reverse" gives its outputs in the order of its steps, so the last element of the input comes first; the backward half of
//! "bidirectional" gives them in the order of the input. That is what Core ML does, as the peer's tests of it have it.

use crate::call::{Args, Call, Fault, wrong};
use palettizer_kernels::{Matrix, product};

/// A direction of a layer.
pub(super) struct Layer<'a> {
    pub steps: usize,
    pub batch: usize,
    pub inputs: usize,
    pub hidden: usize,
    /// Rows of the weights are so many times the hidden size.
    pub gates: usize,
    /// Whether it begins with the last step.
    pub reverse: bool,
    pub x: &'a [f32],
    /// `[gates * hidden, inputs]`
    pub from_input: &'a [f32],
    /// `[gates * hidden, hidden]`
    pub from_state: &'a [f32],
}

/// The direction that a layer works in.
pub(super) fn direction<'a>(call: &'a Args<'_>, allowed: &[&str]) -> Result<&'a str, Fault> {
    let direction = call.text("direction")?.unwrap_or("forward");
    if !allowed.contains(&direction) {
        let allowed = allowed.join(", ");
        return Err(format!("direction is \"{direction}\"; expected one of {allowed}").into());
    }
    Ok(direction)
}

/// The floats of a tensor of this shape.
pub(super) fn shaped<'a>(
    call: &'a Args<'_>,
    param: &str,
    shape: &[usize],
) -> Result<&'a [f32], Fault> {
    let tensor = call.tensor(param)?;
    if tensor.shape() != shape {
        return Err(wrong(param, tensor, &format!("the shape {shape:?}")));
    }
    call.floats(param)
}

/// The floats of a vector, if it was given.
pub(super) fn vector<'a>(
    call: &'a Args<'_>,
    param: &str,
    length: usize,
) -> Result<Option<&'a [f32]>, Fault> {
    let given = call.has(param);
    given.then(|| shaped(call, param, &[length])).transpose()
}

impl<'a> Layer<'a> {
    /// A direction whose weights have these names.
    pub(super) fn of(
        call: &'a Args<'_>,
        gates: usize,
        reverse: bool,
        weights: [&str; 2],
    ) -> Result<Self, Fault> {
        let x = call.tensor("x")?;
        let &[steps, batch, inputs] = x.shape() else {
            return Err(wrong("x", x, "rank 3"));
        };
        let state = call.tensor(weights[1])?;
        let &[rows, hidden] = state.shape() else {
            return Err(wrong(weights[1], state, "rank 2"));
        };
        if Some(rows) != hidden.checked_mul(gates) {
            let expected = format!("{gates} times as many rows as columns");
            return Err(wrong(weights[1], state, &expected));
        }
        Ok(Layer {
            steps,
            batch,
            inputs,
            hidden,
            gates,
            reverse,
            x: call.floats("x")?,
            from_input: shaped(call, weights[0], &[rows, inputs])?,
            from_state: call.floats(weights[1])?,
        })
    }

    /// Sees to it that all it keeps fits into memory.
    pub(super) fn fits(&self, call: &Call<'_>, kept: usize) -> Result<(), Fault> {
        let numbers = self.hidden.max(1).saturating_mul(kept);
        // loops over steps take time even where there is nothing to keep
        call.count(&[self.steps.max(1), self.batch.max(1), numbers])?;
        Ok(())
    }

    /// Numbers for each step and example that gates have.
    pub(super) fn width(&self) -> usize {
        self.gates * self.hidden
    }

    /// Numbers of a state.
    pub(super) fn state(&self) -> usize {
        self.batch * self.hidden
    }

    /// The steps, by time.
    pub(super) fn order(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let (steps, reverse) = (self.steps, self.reverse);
        (0..steps).map(move |at| if reverse { steps - 1 - at } else { at })
    }

    /// What all gates take from the input and the bias: `[steps, batch, gates * hidden]`.
    pub(super) fn of_inputs(&self, bias: Option<&[f32]>) -> Vec<f32> {
        let (rows, width) = (self.steps * self.batch, self.width());
        let mut gates = match bias {
            Some(bias) => bias.repeat(rows),
            None => vec![0.0; rows * width],
        };
        let x = Matrix::new(self.x, rows, self.inputs);
        let weights = Matrix::new(self.from_input, width, self.inputs);
        product(x, weights.transposed(), &mut gates, width, true);
        gates
    }

    /// Adds to some gates of a step what they take from a state.
    pub(super) fn add_state(&self, state: &[f32], gates: std::ops::Range<usize>, step: &mut [f32]) {
        let hidden = self.hidden;
        let state = Matrix::new(state, self.batch, hidden);
        let weights = &self.from_state[gates.start * hidden * hidden..];
        let weights = Matrix::new(weights, gates.len() * hidden, hidden);
        if self.batch > 0 && hidden > 0 {
            let step = &mut step[gates.start * hidden..];
            product(state, weights.transposed(), step, self.width(), true);
        }
    }

    /// Adds to the gradient of a state what comes from some gates of a step.
    pub(super) fn add_state_gradient(
        &self,
        step: &[f32],
        gates: std::ops::Range<usize>,
        state: &mut [f32],
    ) {
        let hidden = self.hidden;
        if self.batch == 0 || hidden == 0 {
            return;
        }
        let step = &step[gates.start * hidden..];
        let step = Matrix::strided(step, self.batch, gates.len() * hidden, self.width(), 1);
        let weights = &self.from_state[gates.start * hidden * hidden..];
        let weights = Matrix::new(weights, gates.len() * hidden, hidden);
        product(step, weights, state, hidden, true);
    }

    /// Adds the gradient of the input, from that of all gates.
    pub(super) fn add_input_gradient(&self, gates: &[f32], x: &mut [f32]) {
        let (rows, width) = (self.steps * self.batch, self.width());
        let weights = Matrix::new(self.from_input, width, self.inputs);
        product(
            Matrix::new(gates, rows, width),
            weights,
            x,
            self.inputs,
            true,
        );
    }

    /// The gradient of the weights of the input.
    pub(super) fn input_weights_gradient(&self, gates: &[f32]) -> Vec<f32> {
        let (rows, width) = (self.steps * self.batch, self.width());
        let mut gradient = vec![0.0; width * self.inputs];
        let x = Matrix::new(self.x, rows, self.inputs);
        let gates = Matrix::new(gates, rows, width).transposed();
        product(gates, x, &mut gradient, self.inputs, false);
        gradient
    }

    /// Writes the gradient of some gates' weights of the state; `states` are those before each step.
    pub(super) fn state_weights_gradient(
        &self,
        gates: &[f32],
        which: std::ops::Range<usize>,
        states: &[f32],
        gradient: &mut [f32],
    ) {
        let (rows, hidden) = (self.steps * self.batch, self.hidden);
        if rows == 0 || hidden == 0 {
            return;
        }
        let gates = &gates[which.start * hidden..];
        let gates = Matrix::strided(gates, rows, which.len() * hidden, self.width(), 1);
        let gradient = &mut gradient[which.start * hidden * hidden..];
        let states = Matrix::new(states, rows, hidden);
        product(gates.transposed(), states, gradient, hidden, false);
    }
}

/// The sums of columns: the gradient of a bias.
pub(super) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    for row in values.chunks(width.max(1)) {
        let pairs = sums.iter_mut().zip(row);
        pairs.for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// Adds numbers to others.
pub(super) fn add(sums: &mut [f32], more: &[f32]) {
    sums.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
}
