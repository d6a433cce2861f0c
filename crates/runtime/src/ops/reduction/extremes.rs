//! Where along an axis the largest or the least element is: the first of equal ones, and the first NaN if there is one, as in numpy.

use crate::axis::Around;
use crate::call::{Call, Outcome};
use crate::element::in_parts;
use crate::tensor::{Dtype, Elements, Tensor};
use crate::value::Value;

pub(super) fn argmax(call: &mut Call<'_>) -> Outcome {
    let floats = |x: f32, best: f32| x > best || (x.is_nan() && !best.is_nan());
    places(call, floats, |x, best| x > best)
}

pub(super) fn argmin(call: &mut Call<'_>) -> Outcome {
    let floats = |x: f32, best: f32| x < best || (x.is_nan() && !best.is_nan());
    places(call, floats, |x, best| x < best)
}

fn places(
    call: &mut Call<'_>,
    floats: impl Fn(f32, f32) -> bool + Sync,
    ints: impl Fn(i32, i32) -> bool + Sync,
) -> Outcome {
    let x = call.tensor("x")?;
    let axis = call.axis_or("axis", -1, x.rank())?;
    let mut shape = x.shape().to_vec();
    match call.bool_or("keep_dims", false)? {
        true => shape[axis] = 1,
        false => drop(shape.remove(axis)),
    }
    let mut out: Vec<i32> = call.zeros(&shape)?;
    let around = Around::axis(x.shape(), axis);
    if around.dim == 0 && !out.is_empty() {
        let shape = x.shape();
        return Err(format!("x has the shape {shape:?}: no element to choose from").into());
    }
    match x.elements() {
        Elements::Ints(values) => along(values, around, &mut out, ints),
        _ => along(call.floats("x")?, around, &mut out, floats),
    }
    let dtype = match call.text("output_dtype")?.unwrap_or("int32") {
        "int32" => Dtype::I32,
        "uint16" => {
            out.iter_mut()
                .for_each(|place| *place = i32::from(*place as u16));
            Dtype::U16
        }
        other => {
            return Err(format!("output_dtype is \"{other}\"; expected int32 or uint16").into());
        }
    };
    let tensor = Tensor::new(dtype, &shape, out);
    Ok(vec![Value::Tensor(
        tensor.ok_or("its places are not as many as its shape says")?,
    )])
}

fn along<T: Copy + Default + Sync>(
    values: &[T],
    around: Around,
    out: &mut [i32],
    better: impl Fn(T, T) -> bool + Sync,
) {
    let Around { dim, after, .. } = around;
    in_parts(out, after, |(block, out)| {
        let values = &values[block * dim * after..][..dim * after];
        let mut best = values[..after].to_vec();
        for (at, row) in values.chunks_exact(after).enumerate() {
            for ((out, best), &x) in out.iter_mut().zip(&mut best).zip(row) {
                if better(x, *best) {
                    (*out, *best) = (at as i32, x);
                }
            }
        }
    });
}
