//! The same elements in another shape, which costs nothing, or in another order, which a view reads.

use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, each_kind};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable, op};
use crate::tensor::element_count;
use crate::value::Value;
use crate::view::View;
use palettizer_pipeline::config::Target;

pub(super) const OPS: &[Def] = &[
    differentiable("reshape", reshape, same_elements).moving(),
    differentiable("reshape_like", reshape_like, same_elements).moving(),
    differentiable("expand_dims", expand_dims, same_elements).moving(),
    differentiable("squeeze", squeeze, same_elements).moving(),
    differentiable("flatten2d", flatten2d, same_elements).moving(),
    differentiable("transpose", transpose, transpose_backward).moving(),
    differentiable("reverse", reverse, reverse_backward).moving(),
    differentiable(
        "reverse_sequence",
        reverse_sequence,
        reverse_sequence_backward,
    )
    .moving(),
    op("shape", shape),
];

/// The gradient of what has the elements of `x` in their order.
fn same_elements(call: &Backward<'_>) -> Result<Gradients, Fault> {
    Ok(vec![("x", 0, call.upstream()?.to_vec())])
}

/// `x` in another shape.
fn reshaped(call: &Call<'_>, shape: &[usize]) -> Outcome {
    let x = call.tensor("x")?;
    let made = x.clone().reshaped(shape);
    let made = made.ok_or_else(|| {
        format!(
            "x has the shape {:?}, whose elements are not as many as those of {shape:?}",
            x.shape()
        )
    })?;
    Ok(vec![Value::Tensor(made)])
}

/// What a view shows of `x`.
pub(super) fn shown(call: &Call<'_>, view: &View) -> Outcome {
    let shape = view.shape();
    shown_as(call, view, &shape)
}

/// The same, in another shape.
pub(super) fn shown_as(call: &Call<'_>, view: &View, shape: &[usize]) -> Outcome {
    call.count(shape)?;
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        call.output(shape, view.read::<T>(call.elements("x")?))
    })
}

fn reshape(call: &mut Call<'_>) -> Outcome {
    let from = call.tensor("x")?.shape().to_vec();
    let wanted = call.ints("shape")?;
    let zeros = zero_dims(&from, wanted.len(), call.target)?;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (at, &dim) in wanted.iter().enumerate() {
        shape.push(match dim {
            0 => zeros.get(at).copied().flatten().ok_or_else(|| {
                format!(
                    "shape {wanted:?} has a 0, but {} dimensions; x has {}",
                    wanted.len(),
                    from.len()
                )
            })?,
            -1 if open.replace(at).is_none() => 1,
            _ => usize::try_from(dim).map_err(|_| {
                format!("shape is {wanted:?}; expected sizes, 0, and -1 at most once")
            })?,
        });
    }
    if let Some(open) = open {
        let (all, rest) = (element_count(&from), element_count(&shape));
        shape[open] = match (all, rest) {
            (Some(all), Some(rest)) if rest > 0 && all % rest == 0 => all / rest,
            _ => {
                return Err(
                    format!("x has the shape {from:?}, which does not become {wanted:?}").into(),
                );
            }
        };
    }
    reshaped(call, &shape)
}

/// What a 0 in each place of a new shape stands for.
fn zero_dims(from: &[usize], len: usize, target: Target) -> Result<Vec<Option<usize>>, Fault> {
    if target < Target::IOS17 {
        let same = from.len() == len;
        return Ok((0..len)
            .map(|at| from.get(at).copied().filter(|_| same))
            .collect());
    }
    // since iOS 17 the dimensions are counted from the last, and one that x does not have is 1
    let aligned = (0..len).map(|at| {
        let at = (from.len() + at).checked_sub(len);
        Some(at.map_or(1, |at| from[at]))
    });
    Ok(aligned.collect())
}

fn reshape_like(call: &mut Call<'_>) -> Outcome {
    let begins = scalars(call, "begins")?;
    let ends = scalars(call, "ends")?;
    let masks = scalars(call, "end_masks")?;
    let tensors = call.tensors("ref_tensors")?;
    if [begins.len(), ends.len(), masks.len()] != [tensors.len(); 3] {
        let found = (tensors.len(), begins.len(), ends.len(), masks.len());
        return Err(format!(
            "ref_tensors, begins, ends and end_masks are {found:?}; expected as many of each"
        )
        .into());
    }
    let mut shape = Vec::new();
    for (at, tensor) in tensors.iter().enumerate() {
        let end = (masks[at] == 0).then_some(ends[at]);
        let (begin, len) = super::slice::range(tensor.rank(), Some(begins[at]), end, 1)?;
        shape.extend(tensor.shape().iter().skip(begin).take(len));
    }
    reshaped(call, &shape)
}

/// The integers of a parameter that takes several scalars.
fn scalars(args: &Args<'_>, param: &str) -> Result<Vec<i64>, Fault> {
    let tensors = args.tensors(param)?;
    let mut found = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        match (tensor.ints(), tensor.bools()) {
            (Some(ints), _) => found.extend(ints.iter().map(|&int| i64::from(int))),
            (_, Some(bools)) => found.extend(bools.iter().map(|&bool| i64::from(bool))),
            _ => return Err(crate::call::wrong(param, tensor, "int32 or bool")),
        }
    }
    Ok(found)
}

fn expand_dims(call: &mut Call<'_>) -> Outcome {
    let mut shape = call.tensor("x")?.shape().to_vec();
    let count = call.ints("axes")?.len();
    let axes = call.axes("axes", shape.len() + count)?;
    let mut axes = axes.unwrap_or_default();
    axes.sort_unstable();
    axes.into_iter().for_each(|axis| shape.insert(axis, 1));
    reshaped(call, &shape)
}

/// Removes dimensions of 1; others stay, named or not, as in torch.
fn squeeze(call: &mut Call<'_>) -> Outcome {
    let shape = call.tensor("x")?.shape();
    let axes = call.axes("axes", shape.len())?;
    let named = |axis: usize| axes.as_ref().is_none_or(|axes| axes.contains(&axis));
    let kept = shape.iter().enumerate();
    let kept = kept.filter(|&(axis, &dim)| dim != 1 || !named(axis));
    let shape: Vec<usize> = kept.map(|(_, &dim)| dim).collect();
    reshaped(call, &shape)
}

fn flatten2d(call: &mut Call<'_>) -> Outcome {
    let x = call.tensor("x")?.shape();
    // the axis may be the rank: everything is before it
    let axis = call.optional_int("axis")?.unwrap_or(1);
    let (at, len) = super::slice::range(x.len(), Some(axis), None, 1)?;
    let product = |dims: &[usize]| element_count(dims).ok_or("its dimensions overflow");
    let shape = [
        product(&x[..x.len() - len])?,
        product(&x[at.min(x.len())..])?,
    ];
    reshaped(call, &shape)
}

fn shape(call: &mut Call<'_>) -> Outcome {
    let dims = call.tensor("x")?.shape();
    let dims: Result<Vec<i32>, _> = dims.iter().map(|&dim| i32::try_from(dim)).collect();
    let dims = dims.map_err(|_| "x has a dimension that is no int32")?;
    call.output(&[dims.len()], dims)
}

fn transpose(call: &mut Call<'_>) -> Outcome {
    let x = call.tensor("x")?;
    let order = permutation(call, x.rank())?;
    shown(call, &View::of(x.shape()).permuted(&order))
}

fn permutation(args: &Args<'_>, rank: usize) -> Result<Vec<usize>, Fault> {
    let order = args
        .axes("perm", rank)?
        .ok_or("parameter perm is missing")?;
    if order.len() != rank {
        return Err(format!("perm is {order:?}; expected the {rank} axes of x").into());
    }
    Ok(order)
}

fn transpose_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let order = permutation(call, call.tensor("x")?.rank())?;
    let mut back = vec![0; order.len()];
    order
        .iter()
        .enumerate()
        .for_each(|(to, &from)| back[from] = to);
    let view = View::of(call.output(0)?.shape()).permuted(&back);
    Ok(vec![("x", 0, view.read(call.upstream()?))])
}

/// The view of `x` with the axes reversed, which is its own inverse.
fn reversed(args: &Args<'_>) -> Result<View, Fault> {
    let shape = args.tensor("x")?.shape();
    let axes = args.axes("axes", shape.len())?;
    let axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
    let mut view = View::of(shape);
    for axis in axes {
        view = view.sliced(axis, shape[axis].saturating_sub(1), -1, shape[axis]);
    }
    Ok(view)
}

fn reverse(call: &mut Call<'_>) -> Outcome {
    shown(call, &reversed(call)?)
}

fn reverse_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    Ok(vec![("x", 0, reversed(call)?.read(call.upstream()?))])
}

fn reverse_sequence(call: &mut Call<'_>) -> Outcome {
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let (elements, shape) = call.take::<T>("x")?;
        let elements = with_sequences_reversed(call, elements, &shape)?;
        call.output(&shape, elements)
    })
}

fn reverse_sequence_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let shape = call.tensor("x")?.shape();
    let gradient = with_sequences_reversed(call, call.upstream()?.to_vec(), shape)?;
    Ok(vec![("x", 0, gradient)])
}

fn with_sequences_reversed<T: Element>(
    args: &Args<'_>,
    mut elements: Vec<T>,
    shape: &[usize],
) -> Result<Vec<T>, Fault> {
    let sequence = args.axis_or("seq_axis", 0, shape.len())?;
    let batch = args.axis_or("batch_axis", 0, shape.len())?;
    let lengths = args.ints("lengths")?;
    if sequence == batch {
        return Err(format!("seq_axis and batch_axis are both {batch}; expected two axes").into());
    }
    if lengths.len() != shape[batch] {
        return Err(format!(
            "lengths has {} elements; expected {}, those of axis {batch}",
            lengths.len(),
            shape[batch]
        )
        .into());
    }
    for (at, &length) in lengths.iter().enumerate() {
        let fits = usize::try_from(length).ok();
        let fits = fits.filter(|&length| length <= shape[sequence]);
        let length = fits.ok_or_else(|| {
            format!(
                "lengths has {length}; the axis {sequence} has {} positions",
                shape[sequence]
            )
        })?;
        let one = View::of(shape).sliced(batch, at, 1, 1);
        let last = length.saturating_sub(1);
        let reversed = one.clone().sliced(sequence, last, -1, length);
        let reversed = reversed.read(&elements);
        one.sliced(sequence, 0, 1, length)
            .write(&mut elements, &reversed);
    }
    Ok(elements)
}
