//! The elements of a tensor several times, or fewer of them: tiles, windows, bands.

use super::size;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, each_kind, in_parts};
use crate::grad::{Backward, Gradients};
use crate::ops::shape::{shown, shown_as};
use crate::view::View;

/// A view in which every axis is repeated, and its shape.
fn tiled(args: &Args<'_>) -> Result<(View, Vec<usize>), Fault> {
    let shape = args.tensor("x")?.shape();
    let reps = args.ints("reps")?;
    if reps.len() != shape.len() {
        return Err(format!(
            "reps is {reps:?}; expected {}, one for each axis of x",
            shape.len()
        )
        .into());
    }
    let mut view = View::of(shape);
    let mut tiled = Vec::with_capacity(shape.len());
    for (axis, (&dim, &reps)) in shape.iter().zip(&reps).enumerate() {
        let reps = size("reps", reps)?;
        view = view.repeated(2 * axis, reps);
        let dim = dim.checked_mul(reps);
        tiled.push(dim.ok_or("the dimensions of x, repeated, overflow")?);
    }
    Ok((view, tiled))
}

pub(super) fn tile(call: &mut Call<'_>) -> Outcome {
    let (view, shape) = tiled(call)?;
    shown_as(call, &view, &shape)
}

pub(super) fn tile_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (view, _) = tiled(call)?;
    summed(call, &view)
}

fn summed(call: &Backward<'_>, view: &View) -> Result<Gradients, Fault> {
    let gradient = view.sum(call.upstream()?, call.tensor("x")?.len());
    Ok(vec![("x", 0, gradient)])
}

/// A view of all windows along an axis.
fn windowed(args: &Args<'_>) -> Result<View, Fault> {
    let shape = args.tensor("x")?.shape();
    args.int("axis")?;
    let axis = args.axis_or("axis", 0, shape.len())?;
    let window = size("size", args.int("size")?)?;
    let stride = size("stride", args.optional_int("stride")?.unwrap_or(1))?;
    let room = shape[axis].checked_sub(window).filter(|_| stride > 0);
    let room = room.ok_or_else(|| {
        format!(
            "size is {window} and stride {stride}; axis {axis} of x has {} positions",
            shape[axis]
        )
    })?;
    Ok(View::of(shape).windowed(axis, room / stride + 1, stride, window))
}

pub(super) fn windows(call: &mut Call<'_>) -> Outcome {
    let view = windowed(call)?;
    shown(call, &view)
}

pub(super) fn windows_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let view = windowed(call)?;
    summed(call, &view)
}

/// Zeros outside of a band of the last two axes.
fn in_band<T: Element>(args: &Args<'_>, elements: &mut [T], shape: &[usize]) -> Result<(), Fault> {
    let [.., rows, columns] = *shape else {
        return Err(format!("x has the shape {shape:?}; expected two dimensions or more").into());
    };
    let limit = |param: &str| -> Result<Option<usize>, Fault> {
        let limit = args.optional_int(param)?.unwrap_or(-1);
        // below 0 nothing is cut off
        Ok(usize::try_from(limit).ok())
    };
    let (lower, upper) = (limit("lower")?, limit("upper")?);
    in_parts(elements, columns, |(number, row)| {
        let row_number = number % rows;
        let begin = lower.map_or(0, |lower| row_number.saturating_sub(lower));
        let end = upper.map_or(columns, |upper| {
            row_number.saturating_add(upper).saturating_add(1)
        });
        let (begin, end) = (begin.min(columns), end.min(columns));
        row[..begin].fill(T::default());
        row[end..].fill(T::default());
    });
    Ok(())
}

pub(super) fn band_part(call: &mut Call<'_>) -> Outcome {
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let (mut elements, shape) = call.take::<T>("x")?;
        in_band(call, &mut elements, &shape)?;
        call.output(&shape, elements)
    })
}

pub(super) fn band_part_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let mut gradient = call.upstream()?.to_vec();
    in_band(call, &mut gradient, call.tensor("x")?.shape())?;
    Ok(vec![("x", 0, gradient)])
}
