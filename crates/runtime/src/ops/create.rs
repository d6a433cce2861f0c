//! Tensors from a few numbers: constants, ranges, one-hot vectors; and where a tensor is not zero.

use crate::axis::product;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, each_kind};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable, op};
use crate::tensor::Dtype;

pub(super) const OPS: &[Def] = &[
    differentiable("fill", fill, fill_backward).moving(),
    differentiable("fill_like", fill_like, fill_backward).moving(),
    differentiable("range_1d", range, range_backward),
    differentiable("one_hot", one_hot, one_hot_backward).moving(),
    op("non_zero", non_zero),
];

/// The type that a tensor is made of: that of the first of these parameters that is given, or the declared one.
fn dtype(args: &Args<'_>, params: &[&str], default: Dtype) -> Result<Dtype, Fault> {
    for param in params {
        if let Some(tensor) = args.optional(param)? {
            return Ok(tensor.dtype());
        }
    }
    let declared = args.declared(0).and_then(|declared| declared.dtype);
    Ok(declared.unwrap_or(default))
}

fn fill(call: &mut Call<'_>) -> Outcome {
    let found = call.ints("shape")?;
    let shape: Option<Vec<usize>> = found.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| format!("shape is {found:?}; expected none below 0"))?;
    filled(call, &shape)
}

fn fill_like(call: &mut Call<'_>) -> Outcome {
    let shape = call.tensor("ref_tensor")?.shape().to_vec();
    filled(call, &shape)
}

fn filled(call: &Call<'_>, shape: &[usize]) -> Outcome {
    let value = call.optional_number("value")?.unwrap_or(0.0);
    each_kind!(dtype(call, &["value"], Dtype::F32)?, "value", T => {
        call.output(shape, call.filled(shape, T::of_number(value))?)
    })
}

fn fill_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let sum: f64 = call
        .upstream()?
        .iter()
        .map(|&gradient| f64::from(gradient))
        .sum();
    Ok(vec![("value", 0, vec![sum as f32])])
}

/// From `start` in steps, up to but without `end`; floats are computed in 64 bits, and rounded at the end.
fn range(call: &mut Call<'_>) -> Outcome {
    let number = |param: &str| -> Result<f64, Fault> {
        let number = call.optional_number(param)?;
        number.ok_or_else(|| format!("parameter {param} is missing").into())
    };
    let (start, end, step) = (number("start")?, number("end")?, number("step")?);
    let length = ((end - start) / step).ceil();
    if !length.is_finite() {
        return Err(format!(
            "start is {start}, end {end} and step {step}: there is no range of them"
        )
        .into());
    }
    let length = length.max(0.0) as usize;
    call.count(&[length])?;
    let numbers = (0..length).map(|at| start + at as f64 * step);
    each_kind!(call.tensor("start")?.dtype(), "start", T => {
        call.output(&[length], numbers.map(T::of_number).collect::<Vec<T>>())
    })
}

fn range_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (mut start, mut step) = (0f64, 0f64);
    for (at, &gradient) in call.upstream()?.iter().enumerate() {
        start += f64::from(gradient);
        step += f64::from(gradient) * at as f64;
    }
    Ok(vec![
        ("start", 0, vec![start as f32]),
        ("step", 0, vec![step as f32]),
        ("end", 0, vec![0.0]),
    ])
}

/// Where the ones of a one-hot tensor are, and its shape. An index that is no position is nowhere, as in TensorFlow.
fn hot(args: &Args<'_>) -> Result<(Vec<usize>, Vec<usize>), Fault> {
    let indices = args.tensor("indices")?.shape();
    let size = args.int("one_hot_vector_size")?;
    let size = usize::try_from(size)
        .map_err(|_| format!("one_hot_vector_size is {size}; expected none below 0"))?;
    let axis = args.axis_or("axis", -1, indices.len() + 1)?;
    let after = product(&indices[axis..]);
    let mut shape = indices.to_vec();
    shape.insert(axis, size);
    let ints = args.elements::<i32>("indices")?;
    let places = ints.iter().enumerate().filter_map(|(number, &index)| {
        let index = usize::try_from(index).ok().filter(|&index| index < size)?;
        Some((number / after * size + index) * after + number % after)
    });
    Ok((places.collect(), shape))
}

fn one_hot(call: &mut Call<'_>) -> Outcome {
    let (on, off) = (
        call.optional_number("on_value")?,
        call.optional_number("off_value")?,
    );
    let dtype = dtype(call, &["on_value", "off_value"], Dtype::I32)?;
    let mut shape = call.tensor("indices")?.shape().to_vec();
    shape.push(usize::try_from(call.int("one_hot_vector_size")?).unwrap_or(0));
    call.count(&shape)?;
    let (places, shape) = hot(call)?;
    each_kind!(dtype, "on_value", T => {
        let mut out = call.filled(&shape, T::of_number(off.unwrap_or(0.0)))?;
        let on = T::of_number(on.unwrap_or(1.0));
        places.iter().for_each(|&place| out[place] = on);
        call.output(&shape, out)
    })
}

fn one_hot_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let upstream = call.upstream()?;
    let all: f64 = upstream.iter().map(|&gradient| f64::from(gradient)).sum();
    let (places, _) = hot(call)?;
    let on: f64 = places.iter().map(|&place| f64::from(upstream[place])).sum();
    Ok(vec![
        ("on_value", 0, vec![on as f32]),
        ("off_value", 0, vec![(all - on) as f32]),
    ])
}

fn non_zero(call: &mut Call<'_>) -> Outcome {
    each_kind!(call.tensor("x")?.dtype(), "x", T => indices_of(call, |&value: &T| value != T::default()))
}

/// The indices of the elements that something is true of, a row for each.
fn indices_of<T: Element>(call: &Call<'_>, is: impl Fn(&T) -> bool) -> Outcome {
    let (elements, shape) = (call.elements::<T>("x")?, call.tensor("x")?.shape());
    let count = elements.iter().filter(|&value| is(value)).count();
    let shape_found = [count, shape.len()];
    let mut found = Vec::with_capacity(call.count(&shape_found)?);
    for (number, _) in elements.iter().enumerate().filter(|&(_, value)| is(value)) {
        let begin = found.len();
        let mut rest = number;
        for &dim in shape.iter().rev() {
            found.push((rest % dim) as i32);
            rest /= dim;
        }
        found[begin..].reverse();
    }
    call.output(&shape_found, found)
}
