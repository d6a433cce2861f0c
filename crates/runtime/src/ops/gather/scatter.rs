//! Elements put where indices say, in the order of the indices: where one place is named twice, the later update meets the
//! outcome of the earlier one.

use super::places::{
    Places, along_axis as places_along_axis, expect_shape, nd as nd_places, on_axis,
};
use crate::call::{Args, Call, Fault, Outcome};
use crate::tensor::Elements;

/// What becomes of an element and its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Update,
}

/// The mode; coremltools' builder writes `add` where none is given, whatever the page of `scatter` says.
pub(super) fn mode(args: &Args<'_>) -> Result<Mode, Fault> {
    Ok(match args.text("mode")? {
        None | Some("add") => Mode::Add,
        Some("sub") => Mode::Sub,
        Some("mul") => Mode::Mul,
        Some("div") => Mode::Div,
        Some("max") => Mode::Max,
        Some("min") => Mode::Min,
        Some("update") => Mode::Update,
        Some(other) => {
            return Err(format!(
                "mode is \"{other}\"; expected add, sub, mul, div, max, min or update"
            )
            .into());
        }
    })
}

pub(super) fn scatter(call: &mut Call<'_>) -> Outcome {
    let places = on_axis(call, call.tensor("data")?.shape(), &|shape| {
        as_updates(call, shape)
    })?;
    put(call, &places)
}

pub(super) fn along_axis(call: &mut Call<'_>) -> Outcome {
    let data = call.tensor("data")?.shape();
    let places = places_along_axis(call, data, &|shape| as_updates(call, shape))?;
    put(call, &places)
}

pub(super) fn nd(call: &mut Call<'_>) -> Outcome {
    let data = call.tensor("data")?.shape();
    let places = nd_places(call, data, 0, &|shape| as_updates(call, shape))?;
    put(call, &places)
}

/// Passes the shape of the updates.
fn as_updates(args: &Args<'_>, shape: &[usize]) -> Result<(), Fault> {
    expect_shape("updates", args.tensor("updates")?.shape(), shape)
}

fn put(call: &mut Call<'_>, places: &Places) -> Outcome {
    let mode = mode(call)?;
    match call.tensor("data")?.elements() {
        Elements::Floats(_) => {
            let (mut data, shape) = call.take::<f32>("data")?;
            let updates = call.elements("updates")?;
            match mode {
                Mode::Add => each(&mut data, updates, places, |a, b| a + b),
                Mode::Sub => each(&mut data, updates, places, |a, b| a - b),
                Mode::Mul => each(&mut data, updates, places, |a, b| a * b),
                Mode::Div => each(&mut data, updates, places, |a, b| a / b),
                // a NaN wins
                Mode::Max => each(&mut data, updates, places, |a, b| {
                    if a > b || a.is_nan() { a } else { b }
                }),
                Mode::Min => each(&mut data, updates, places, |a, b| {
                    if a < b || a.is_nan() { a } else { b }
                }),
                Mode::Update => each(&mut data, updates, places, |_, b| b),
            }
            call.output(&shape, data)
        }
        Elements::Ints(_) => {
            let (mut data, shape) = call.take::<i32>("data")?;
            let updates = call.elements("updates")?;
            if mode == Mode::Div && updates.contains(&0) {
                return Err("updates has a 0 to divide by".into());
            }
            match mode {
                Mode::Add => each(&mut data, updates, places, i32::wrapping_add),
                Mode::Sub => each(&mut data, updates, places, i32::wrapping_sub),
                Mode::Mul => each(&mut data, updates, places, i32::wrapping_mul),
                Mode::Div => each(&mut data, updates, places, i32::wrapping_div),
                Mode::Max => each(&mut data, updates, places, Ord::max),
                Mode::Min => each(&mut data, updates, places, Ord::min),
                Mode::Update => each(&mut data, updates, places, |_, b| b),
            }
            call.output(&shape, data)
        }
        _ => Err(crate::call::wrong(
            "data",
            call.tensor("data")?,
            "floats or integers",
        )),
    }
}

fn each<T: Copy>(
    data: &mut [T],
    updates: &[T],
    Places { block, begins, .. }: &Places,
    outcome: impl Fn(T, T) -> T,
) {
    if *block == 0 {
        return;
    }
    for (updates, &begin) in updates.chunks_exact(*block).zip(begins) {
        let data = &mut data[begin..][..*block];
        data.iter_mut()
            .zip(updates)
            .for_each(|(data, &update)| *data = outcome(*data, update));
    }
}
