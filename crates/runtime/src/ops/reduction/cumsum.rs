//! Sums of all elements before each.
//!
//! An exclusive sum leaves out the element itself, as the documentation says; coremltools' own value of one has one element too many.

use crate::axis::Around;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::in_parts;
use crate::grad::{Backward, Gradients};
use crate::tensor::Elements;

pub(super) fn cumsum(call: &mut Call<'_>) -> Outcome {
    let x = call.tensor("x")?;
    let (around, exclusive, reverse) = parameters(call)?;
    match x.elements() {
        Elements::Ints(values) => {
            let mut out: Vec<i32> = call.zeros(x.shape())?;
            let add = |sum: i32, &x: &i32| sum.wrapping_add(x);
            along(
                values,
                &mut out,
                around,
                (exclusive, reverse),
                0,
                add,
                |sum| sum,
            );
            call.output(x.shape(), out)
        }
        _ => {
            let mut out = call.zeros(x.shape())?;
            sums(call.floats("x")?, &mut out, around, exclusive, reverse);
            call.output(x.shape(), out)
        }
    }
}

fn sums(values: &[f32], out: &mut [f32], around: Around, exclusive: bool, reverse: bool) {
    let add = |sum: f64, &x: &f32| sum + f64::from(x);
    along(values, out, around, (exclusive, reverse), 0.0, add, |sum| {
        sum as f32
    });
}

fn parameters(args: &Args<'_>) -> Result<(Around, bool, bool), Fault> {
    let shape = args.tensor("x")?.shape();
    let around = match shape {
        // a number alone is its own axis
        [] => Around::axis(&[1], args.axis_or("axis", 0, 1)?),
        _ => Around::axis(shape, args.axis_or("axis", 0, shape.len())?),
    };
    let (exclusive, reverse) = (
        args.bool_or("exclusive", false)?,
        args.bool_or("reverse", false)?,
    );
    Ok((around, exclusive, reverse))
}

/// Each element gets what all before it add to. Sums are of columns, so that rows are gone through in order.
fn along<T: Copy + Sync, S: Copy + Send + Sync, R: Send>(
    values: &[T],
    out: &mut [R],
    around: Around,
    (exclusive, reverse): (bool, bool),
    zero: S,
    add: impl Fn(S, &T) -> S + Sync,
    made: impl Fn(S) -> R + Sync,
) {
    let Around { dim, after, .. } = around;
    if out.is_empty() {
        return;
    }
    in_parts(out, dim * after, |(block, out)| {
        let values = &values[block * dim * after..][..dim * after];
        let mut sums = vec![zero; after];
        for at in 0..dim {
            let at = if reverse { dim - 1 - at } else { at };
            let row = at * after..(at + 1) * after;
            for ((sum, x), out) in sums.iter_mut().zip(&values[row.clone()]).zip(&mut out[row]) {
                let before = *sum;
                *sum = add(before, x);
                *out = made(if exclusive { before } else { *sum });
            }
        }
    });
}

/// The same from the other end.
pub(super) fn cumsum_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (around, exclusive, reverse) = parameters(call)?;
    let upstream = call.upstream()?;
    let mut gradient = vec![0.0; upstream.len()];
    sums(upstream, &mut gradient, around, exclusive, !reverse);
    Ok(vec![("x", 0, gradient)])
}
