//! Elements taken from where indices say.

use super::places::{Places, along_axis as places_along_axis, nd as nd_places};
use super::positions;
use crate::axis::{Around, given_back, product, taken};
use crate::call::{Args, Call, Fault, Outcome, elements_of};
use crate::element::{Element, each_kind, in_parts};
use crate::grad::{Backward, Gradients};
use crate::tensor::element_count;

/// What a gather takes: from around which axis, with a table for each batch, and the shape that is made.
struct Taken {
    around: Around,
    table: Vec<usize>,
    batches: usize,
    shape: Vec<usize>,
}

fn gathered(args: &Args<'_>) -> Result<Taken, Fault> {
    let (x, indices) = (args.tensor("x")?.shape(), args.tensor("indices")?.shape());
    let axis = args.axis_or("axis", 0, x.len())?;
    let batch_dims = batch_dims(args)?;
    if batch_dims > axis || batch_dims > indices.len() || x[..batch_dims] != indices[..batch_dims] {
        return Err(format!("batch_dims is {batch_dims}; x has the shape {x:?}, indices {indices:?}, and axis is {axis}").into());
    }
    let shape = [&x[..axis], &indices[batch_dims..], &x[axis + 1..]].concat();
    let empty = element_count(&shape) == Some(0);
    Ok(Taken {
        around: Around::axis(x, axis),
        table: positions(args, &[x[axis]])?,
        batches: if empty { 1 } else { product(&x[..batch_dims]) },
        shape,
    })
}

fn batch_dims(args: &Args<'_>) -> Result<usize, Fault> {
    let found = args.optional_int("batch_dims")?.unwrap_or(0);
    usize::try_from(found)
        .map_err(|_| format!("batch_dims is {found}; expected none below 0").into())
}

pub(super) fn gather(call: &mut Call<'_>) -> Outcome {
    let Taken {
        around,
        table,
        batches,
        shape,
    } = gathered(call)?;
    call.count(&shape)?;
    let given = call.tensor("x")?;
    let whole;
    let x = match &call.unread {
        None => given,
        Some(unread) => {
            let axis = call.axis_or("axis", 0, given.rank())?;
            if axis == 0
                && let Some(rows) = unread.rows(&table)?
            {
                return call.output(&shape, rows.into_elements());
            }
            whole = unread.whole()?;
            &whole
        }
    };
    each_kind!(x.dtype(), "x", T => {
        let elements: &[T] = elements_of("x", x)?;
        call.output(&shape, taken(elements, around, &table, batches))
    })
}

pub(super) fn gather_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let Taken {
        around,
        table,
        batches,
        ..
    } = gathered(call)?;
    Ok(vec![(
        "x",
        0,
        given_back(call.upstream()?, around, &table, batches),
    )])
}

/// The blocks of a tensor, one after the other.
pub(super) fn read<T: Element>(from: &[T], Places { block, begins, .. }: &Places) -> Vec<T> {
    let mut out = vec![T::default(); begins.len() * block];
    if *block == 1 {
        let each = 1 << 14;
        in_parts(&mut out, each, |(part, out)| {
            let begins = &begins[part * each..];
            out.iter_mut()
                .zip(begins)
                .for_each(|(out, &begin)| *out = from[begin]);
        });
    } else {
        in_parts(&mut out, *block, |(number, out)| {
            out.copy_from_slice(&from[begins[number]..][..*block]);
        });
    }
    out
}

/// Adds blocks to where they belong.
fn add(into: &mut [f32], values: &[f32], Places { block, begins, .. }: &Places) {
    if *block == 0 {
        return;
    }
    for (values, &begin) in values.chunks_exact(*block).zip(begins) {
        let into = &mut into[begin..][..*block];
        into.iter_mut()
            .zip(values)
            .for_each(|(sum, more)| *sum += more);
    }
}

fn taken_from(call: &Call<'_>, places: &Places) -> Outcome {
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let elements: &[T] = call.elements("x")?;
        call.output(&places.shape, read(elements, places))
    })
}

fn added(call: &Backward<'_>, places: &Places) -> Result<Gradients, Fault> {
    let mut gradient = vec![0.0; call.tensor("x")?.len()];
    add(&mut gradient, call.upstream()?, places);
    Ok(vec![("x", 0, gradient)])
}

pub(super) fn along_axis(call: &mut Call<'_>) -> Outcome {
    let shape = call.tensor("x")?.shape();
    let places = places_along_axis(call, shape, &|made| call.count(made).map(drop))?;
    taken_from(call, &places)
}

pub(super) fn along_axis_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let places = places_along_axis(call, call.tensor("x")?.shape(), &|_| Ok(()))?;
    added(call, &places)
}

pub(super) fn nd(call: &mut Call<'_>) -> Outcome {
    let (shape, batches) = (call.tensor("x")?.shape(), batch_dims(call)?);
    let places = nd_places(call, shape, batches, &|made| call.count(made).map(drop))?;
    taken_from(call, &places)
}

pub(super) fn nd_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (shape, batches) = (call.tensor("x")?.shape(), batch_dims(call)?);
    added(call, &nd_places(call, shape, batches, &|_| Ok(()))?)
}
