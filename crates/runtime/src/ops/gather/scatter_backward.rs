//! The gradients of scatter: the updates are gone through backwards, with what each of them met.

use super::places::{Places, along_axis as places_along_axis, nd as nd_places, on_axis};
use super::scatter::{Mode, mode};
use super::take::read;
use crate::call::Fault;
use crate::grad::{Backward, Gradients};

pub(super) fn scatter(call: &Backward<'_>) -> Result<Gradients, Fault> {
    flow(
        call,
        &on_axis(call, call.tensor("data")?.shape(), &|_| Ok(()))?,
    )
}

pub(super) fn along_axis(call: &Backward<'_>) -> Result<Gradients, Fault> {
    flow(
        call,
        &places_along_axis(call, call.tensor("data")?.shape(), &|_| Ok(()))?,
    )
}

pub(super) fn nd(call: &Backward<'_>) -> Result<Gradients, Fault> {
    flow(
        call,
        &nd_places(call, call.tensor("data")?.shape(), 0, &|_| Ok(()))?,
    )
}

fn flow(call: &Backward<'_>, places: &Places) -> Result<Gradients, Fault> {
    let upstream = call.upstream()?;
    let (data, updates) = match mode(call)? {
        Mode::Add => (upstream.to_vec(), read(upstream, places)),
        Mode::Sub => {
            let updates = read(upstream, places);
            (
                upstream.to_vec(),
                updates.iter().map(|gradient| -gradient).collect(),
            )
        }
        Mode::Max | Mode::Min => extremes(call, places)?,
        Mode::Update => in_reverse(call, places, |gradient, _, _| (0.0, gradient))?,
        Mode::Mul => in_reverse(call, places, |gradient, met, update| {
            (gradient * update, gradient * met)
        })?,
        Mode::Div => in_reverse(call, places, |gradient, met, update| {
            (gradient / update, -gradient * met / (update * update))
        })?,
    };
    Ok(vec![("data", 0, data), ("updates", 0, updates)])
}

/// Each update turns the gradient of what came of it into those of what it met and of itself.
fn in_reverse(
    call: &Backward<'_>,
    Places { block, begins, .. }: &Places,
    step: impl Fn(f32, f32, f32) -> (f32, f32),
) -> Result<(Vec<f32>, Vec<f32>), Fault> {
    let (mut now, updates) = (call.floats("data")?.to_vec(), call.floats("updates")?);
    let mode = mode(call)?;
    let place = |number: usize| begins[number / block] + number % block;
    // what each update met
    let mut met = vec![0.0; updates.len()];
    for (number, (met, &update)) in met.iter_mut().zip(updates).enumerate() {
        let now = &mut now[place(number)];
        *met = *now;
        *now = match mode {
            Mode::Mul => *now * update,
            Mode::Div => *now / update,
            _ => update,
        };
    }
    let mut data = call.upstream()?.to_vec();
    let mut gradients = met;
    for (number, gradient) in gradients.iter_mut().enumerate().rev() {
        let flow = &mut data[place(number)];
        (*flow, *gradient) = step(*flow, *gradient, updates[number]);
    }
    Ok((data, gradients))
}

/// The gradient of the largest or smallest goes to what it is equal to, in equal parts if that is several, as in torch.
fn extremes(
    call: &Backward<'_>,
    Places { block, begins, .. }: &Places,
) -> Result<(Vec<f32>, Vec<f32>), Fault> {
    let (data, updates) = (call.floats("data")?, call.floats("updates")?);
    let (out, upstream) = (call.output_floats(0)?, call.upstream()?);
    let place = |number: usize| begins[number / block] + number % block;
    let equal = |one: f32, other: f32| f32::from(u8::from(one == other));
    let mut shares: Vec<f32> = data
        .iter()
        .zip(out)
        .map(|(&data, &out)| equal(data, out))
        .collect();
    for (number, &update) in updates.iter().enumerate() {
        shares[place(number)] += equal(update, out[place(number)]);
    }
    // nothing is equal to NaN, and no gradient flows
    let mut flow = upstream.to_vec();
    flow.iter_mut()
        .zip(&shares)
        .for_each(|(flow, shares)| *flow /= shares.max(1.0));
    let of_updates = updates.iter().enumerate().map(|(number, &update)| {
        let place = place(number);
        flow[place] * equal(update, out[place])
    });
    let of_updates = of_updates.collect();
    flow.iter_mut()
        .zip(data.iter().zip(out))
        .for_each(|(flow, (&data, &out))| *flow *= equal(data, out));
    Ok((flow, of_updates))
}
