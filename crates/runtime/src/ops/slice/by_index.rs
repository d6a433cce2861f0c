//! Slices, as numpy has them, and their update.

use super::size;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::each_kind;
use crate::grad::{Backward, Gradients};
use crate::ops::shape::{shown, shown_as};
use crate::view::View;

/// The first position and the number of positions of `begin:end:step` on an axis, as Python has them: those below 0 count from the
/// end, what is beyond the axis is cut off, and what is left out is where the step leads from or to.
pub(crate) fn range(
    dim: usize,
    begin: Option<i64>,
    end: Option<i64>,
    step: i64,
) -> Result<(usize, usize), Fault> {
    let dim = dim as i64;
    let on_axis =
        |at: i64, least: i64, most: i64| (if at < 0 { at + dim } else { at }).clamp(least, most);
    let (begin, len) = match step {
        0 => return Err("stride has a 0".into()),
        1.. => {
            let begin = begin.map_or(0, |at| on_axis(at, 0, dim));
            let end = end.map_or(dim, |at| on_axis(at, 0, dim));
            (begin, ((end - begin).max(0) + step - 1) / step)
        }
        _ => {
            let begin = begin.map_or(dim - 1, |at| on_axis(at, -1, dim - 1));
            let end = end.map_or(-1, |at| on_axis(at, -1, dim - 1));
            (begin, ((begin - end).max(0) - step - 1) / -step)
        }
    };
    Ok((begin.max(0) as usize, len as usize))
}

/// What the parameters of a slice show of a tensor of this shape, and its shape without the axes that they squeeze.
fn sliced(args: &Args<'_>, shape: &[usize]) -> Result<(View, Vec<usize>), Fault> {
    let rank = shape.len();
    let given = |param: &str| -> Result<Option<Vec<i64>>, Fault> {
        let values = args
            .optional_ints(param)?
            .filter(|values| !values.is_empty());
        match values {
            Some(values) if values.len() != rank => Err(format!(
                "{param} has {} elements; expected {rank}, one for each axis of x",
                values.len()
            )
            .into()),
            values => Ok(values),
        }
    };
    let (begins, ends, strides) = (given("begin")?, given("end")?, given("stride")?);
    let masks = ["begin_mask", "end_mask", "squeeze_mask"];
    let masks = [given(masks[0])?, given(masks[1])?, given(masks[2])?];
    let masked =
        |mask: usize, axis: usize| masks[mask].as_ref().is_some_and(|mask| mask[axis] != 0);
    let mut view = View::of(shape);
    let mut kept = Vec::with_capacity(rank);
    for axis in 0..rank {
        let at = |values: &Option<Vec<i64>>| values.as_ref().map(|values| values[axis]);
        let begin = at(&begins).filter(|_| !masked(0, axis));
        let dim = shape[axis];
        if masked(2, axis) {
            let begin = begin.unwrap_or(0);
            let (first, len) = range(dim, Some(begin), None, 1)?;
            if len == 0 || begin < -(dim as i64) {
                return Err(format!("begin has {begin} for axis {axis} of {dim} positions").into());
            }
            view = view.sliced(axis, first, 1, 1);
            continue;
        }
        let end = at(&ends).filter(|_| !masked(1, axis));
        let step = at(&strides).unwrap_or(1);
        let (first, len) = range(dim, begin, end, step)?;
        view = view.sliced(axis, first, step as isize, len);
        kept.push(len);
    }
    Ok((view, kept))
}

pub(super) fn by_index(call: &mut Call<'_>) -> Outcome {
    let (view, shape) = sliced(call, call.tensor("x")?.shape())?;
    shown_as(call, &view, &shape)
}

pub(super) fn by_index_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (view, _) = sliced(call, call.tensor("x")?.shape())?;
    placed(call, &view)
}

/// The gradient of `x` from that of a view of it in which nothing is shown twice.
fn placed(call: &Backward<'_>, view: &View) -> Result<Gradients, Fault> {
    let mut gradient = vec![0.0; call.tensor("x")?.len()];
    view.write(&mut gradient, call.upstream()?);
    Ok(vec![("x", 0, gradient)])
}

fn sized(args: &Args<'_>) -> Result<View, Fault> {
    let shape = args.tensor("x")?.shape();
    let (begins, sizes) = (args.ints("begin")?, args.ints("size")?);
    if begins.len() != shape.len() || sizes.len() != shape.len() {
        let (begins, sizes, rank) = (begins.len(), sizes.len(), shape.len());
        return Err(format!(
            "begin has {begins} elements and size {sizes}; expected {rank}, the rank of x"
        )
        .into());
    }
    let mut view = View::of(shape);
    for (axis, (&begin, &len)) in begins.iter().zip(&sizes).enumerate() {
        let dim = shape[axis] as i64;
        let first = if begin < 0 { begin + dim } else { begin };
        let len = if len == -1 { dim - first } else { len };
        if first < 0 || len < 0 || first + len > dim {
            return Err(format!(
                "begin {begin} and size {} leave axis {axis} of {dim} positions",
                sizes[axis]
            )
            .into());
        }
        view = view.sliced(axis, first as usize, 1, len as usize);
    }
    Ok(view)
}

pub(super) fn by_size(call: &mut Call<'_>) -> Outcome {
    shown(call, &sized(call)?)
}

pub(super) fn by_size_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    placed(call, &sized(call)?)
}

pub(super) fn update(call: &mut Call<'_>) -> Outcome {
    let (view, shape) = sliced(call, call.tensor("x")?.shape())?;
    let found = call.tensor("update")?.shape();
    if found != shape {
        return Err(format!("update has the shape {found:?}; the slice has {shape:?}").into());
    }
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let (mut elements, shape) = call.take::<T>("x")?;
        view.write(&mut elements, call.elements("update")?);
        call.output(&shape, elements)
    })
}

pub(super) fn update_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (view, _) = sliced(call, call.tensor("x")?.shape())?;
    let upstream = call.upstream()?;
    let mut gradients: Gradients = Vec::new();
    if call.wants("update") {
        gradients.push(("update", 0, view.read(upstream)));
    }
    if call.wants("x") {
        let mut gradient = upstream.to_vec();
        view.write(&mut gradient, &vec![0.0; view.len()]);
        gradients.push(("x", 0, gradient));
    }
    Ok(gradients)
}

/// The view of the last two axes with so much cut off before and after each.
pub(crate) fn cropped(shape: &[usize], crops: [[i64; 2]; 2]) -> Result<View, Fault> {
    let mut view = View::of(shape);
    let first = shape.len().checked_sub(2);
    let first = first.ok_or("x has less than two dimensions")?;
    for (axis, [before, after]) in (first..).zip(crops) {
        let (before, after) = (size("a crop", before)?, size("a crop", after)?);
        let len = shape[axis].checked_sub(before);
        let len = len.and_then(|len| len.checked_sub(after));
        let len = len.ok_or_else(|| {
            format!(
                "{before} and {after} are cut off axis {axis} of {} positions",
                shape[axis]
            )
        })?;
        view = view.sliced(axis, before, 1, len);
    }
    Ok(view)
}
