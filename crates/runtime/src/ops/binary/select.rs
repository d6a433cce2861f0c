//! One of two tensors, element by element.

use super::as_floats;
use crate::broadcast::{Loops, apply_in_place, copy, shape_of, strides, sum_to};
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::tensor::Elements;

pub(super) fn select(call: &mut Call<'_>) -> Outcome {
    let cond = call.tensor("cond")?;
    let chosen = cond.bools().ok_or_else(|| wrong("cond", cond, "bool"))?;
    if !call.has("a") && !call.has("b") {
        return places(call, chosen, cond.shape());
    }
    let (a, b) = (call.tensor("a")?, call.tensor("b")?);
    let shape = shape_of(&[cond.shape(), a.shape(), b.shape()])?;
    let shapes = [cond.shape(), a.shape(), b.shape()];
    match (a.elements(), b.elements()) {
        (Elements::Ints(a), Elements::Ints(b)) => {
            let out = chosen_from(call, chosen, a, b, shapes, &shape)?;
            call.output(&shape, out)
        }
        (Elements::Bools(a), Elements::Bools(b)) => {
            let out = chosen_from(call, chosen, a, b, shapes, &shape)?;
            call.output(&shape, out)
        }
        _ => {
            let (a, b) = (as_floats("a", a)?, as_floats("b", b)?);
            let out = chosen_from(call, chosen, &a, &b, shapes, &shape)?;
            call.output(&shape, out)
        }
    }
}

fn chosen_from<T: Copy + Default + Send + Sync>(
    call: &Call<'_>,
    cond: &[bool],
    a: &[T],
    b: &[T],
    [cond_shape, a_shape, b_shape]: [&[usize]; 3],
    shape: &[usize],
) -> Result<Vec<T>, Fault> {
    let mut out = call.zeros(shape)?;
    copy(b, &strides(b_shape, shape)?, shape, &mut out);
    let loops = Loops::new(shape, [cond_shape, a_shape])?;
    let steps = loops.steps;
    loops.for_each(&mut out, |out, [i, j]| {
        let n = out.len();
        match steps {
            [1, 1] => {
                let both = cond[i..i + n].iter().zip(&a[j..j + n]);
                let each = out.iter_mut().zip(both);
                each.for_each(|(out, (&cond, &a))| *out = if cond { a } else { *out });
            }
            [1, _] => {
                let (cond, a) = (&cond[i..i + n], a[j]);
                let each = out.iter_mut().zip(cond);
                each.for_each(|(out, &cond)| *out = if cond { a } else { *out });
            }
            [_, 1] if cond[i] => out.copy_from_slice(&a[j..j + n]),
            [_, 0] if cond[i] => out.fill(a[j]),
            _ => {}
        }
    });
    Ok(out)
}

/// The places of what is true, a row of indices for each: what `select` gives without values to select from.
fn places(call: &Call<'_>, cond: &[bool], shape: &[usize]) -> Outcome {
    let found: Vec<usize> = (0..cond.len()).filter(|&at| cond[at]).collect();
    let out_shape = [found.len(), shape.len()];
    let mut out: Vec<i32> = call.zeros(&out_shape)?;
    for (mut place, row) in found.into_iter().zip(out.chunks_mut(shape.len().max(1))) {
        for (index, &dim) in row.iter_mut().zip(shape).rev() {
            *index = (place % dim) as i32;
            place /= dim;
        }
    }
    call.output(&out_shape, out)
}

pub(super) fn select_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let mut gradients = Vec::new();
    for (param, which) in [("a", true), ("b", false)] {
        if call.wants(param) {
            gradients.push((param, 0, masked(call, param, which)?));
        }
    }
    Ok(gradients)
}

fn masked(call: &Backward<'_>, param: &str, which: bool) -> Result<Vec<f32>, Fault> {
    let args: &Args<'_> = call;
    let (cond, own) = (args.tensor("cond")?, args.tensor(param)?);
    let chosen = cond.bools().ok_or_else(|| wrong("cond", cond, "bool"))?;
    let shape = call.output(0)?.shape();
    let mut gradient = call.upstream()?.to_vec();
    let cond = (chosen, cond.shape());
    apply_in_place(&mut gradient, shape, cond, |g, cond| {
        if cond == which { g } else { 0.0 }
    })?;
    Ok(sum_to(gradient, shape, own.shape()))
}
