//! Tensors side by side, and apart.

use super::size;
use crate::axis::product;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, each_kind, in_parts};
use crate::grad::{Backward, Gradients};
use crate::tensor::element_count;
use crate::value::Value;

/// How tensors lie side by side in memory: in rounds, each with so many elements of every tensor in turn.
struct Rounds {
    rounds: usize,
    sizes: Vec<usize>,
}

impl Rounds {
    /// Those of tensors that are together of this shape, with so many blocks before what is theirs; `sizes` of one round.
    fn of(all: &[usize], before: &[usize], sizes: impl Iterator<Item = usize>) -> Self {
        if element_count(all) == Some(0) {
            let sizes = sizes.map(|_| 0).collect();
            return Rounds { rounds: 0, sizes };
        }
        Rounds {
            rounds: product(before),
            sizes: sizes.collect(),
        }
    }

    fn round(&self) -> usize {
        self.sizes.iter().sum()
    }

    fn joined<T: Element>(&self, values: &[&[T]]) -> Vec<T> {
        let round = self.round();
        let mut out = vec![T::default(); self.rounds * round];
        in_parts(&mut out, round, |(number, out)| {
            let mut rest = out;
            for (values, &size) in values.iter().zip(&self.sizes) {
                let (out, more) = rest.split_at_mut(size);
                out.copy_from_slice(&values[number * size..][..size]);
                rest = more;
            }
        });
        out
    }

    fn parted<T: Element>(&self, values: &[T]) -> Vec<Vec<T>> {
        let round = self.round();
        let mut begin = 0;
        let parts = self.sizes.iter().map(|&size| {
            let mut out = vec![T::default(); self.rounds * size];
            in_parts(&mut out, size, |(number, out)| {
                out.copy_from_slice(&values[number * round + begin..][..size]);
            });
            begin += size;
            out
        });
        parts.collect()
    }
}

/// How the values of a concatenation lie in it, and its shape.
fn concatenated(args: &Args<'_>) -> Result<(Rounds, Vec<usize>), Fault> {
    let shapes: Vec<&[usize]> = args
        .tensors("values")?
        .iter()
        .map(|tensor| tensor.shape())
        .collect();
    let mut shape = shapes[0].to_vec();
    if shape.is_empty() {
        same_shapes(&shapes, None)?;
        let all = vec![shapes.len()];
        return Ok((Rounds::of(&all, &[], shapes.iter().map(|_| 1)), all));
    }
    args.int("axis")?;
    let axis = args.axis_or("axis", 0, shape.len())?;
    let interleave = args.bool_or("interleave", false)?;
    same_shapes(&shapes, (!interleave).then_some(axis))?;
    let dims = shapes.iter().map(|shape| shape[axis]);
    let sum = dims.clone().try_fold(0usize, usize::checked_add);
    shape[axis] = sum.ok_or("the dimensions of values overflow")?;
    if element_count(&shape).is_none() {
        return Err(format!("a tensor of shape {shape:?} is larger than any memory").into());
    }
    let after = product(&shape[axis + 1..]);
    let rounds = if interleave {
        Rounds::of(&shape, &shapes[0][..=axis], dims.map(|_| after))
    } else {
        Rounds::of(
            &shape,
            &shape[..axis],
            dims.map(|dim| dim.saturating_mul(after)),
        )
    };
    Ok((rounds, shape))
}

/// Passes shapes that differ in no axis but this one.
fn same_shapes(shapes: &[&[usize]], but: Option<usize>) -> Result<(), Fault> {
    for shape in shapes {
        let pairs = shape.iter().zip(shapes[0]).enumerate();
        let differ = pairs.filter(|&(axis, (one, other))| Some(axis) != but && one != other);
        if shape.len() != shapes[0].len() || differ.count() > 0 {
            let expected = match but {
                Some(axis) => format!("shapes that differ in no axis but {axis}"),
                None => "equal shapes".to_owned(),
            };
            return Err(format!(
                "values have the shapes {:?} and {shape:?}; expected {expected}",
                shapes[0]
            )
            .into());
        }
    }
    Ok(())
}

pub(super) fn concat(call: &mut Call<'_>) -> Outcome {
    let (rounds, shape) = concatenated(call)?;
    put_together(call, &rounds, &shape)
}

fn put_together(call: &Call<'_>, rounds: &Rounds, shape: &[usize]) -> Outcome {
    call.count(shape)?;
    let first = call.tensor("values")?;
    each_kind!(first.dtype(), "values", T => {
        call.output(shape, rounds.joined(&call.all_elements::<T>("values")?))
    })
}

pub(super) fn concat_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (rounds, _) = concatenated(call)?;
    taken_apart(call, &rounds)
}

fn taken_apart(call: &Backward<'_>, rounds: &Rounds) -> Result<Gradients, Fault> {
    let parts = rounds.parted(call.upstream()?).into_iter().enumerate();
    Ok(parts.map(|(at, part)| ("values", at, part)).collect())
}

/// How the values of a stack lie in it, and its shape.
fn stacked(args: &Args<'_>) -> Result<(Rounds, Vec<usize>), Fault> {
    let shapes: Vec<&[usize]> = args
        .tensors("values")?
        .iter()
        .map(|tensor| tensor.shape())
        .collect();
    same_shapes(&shapes, None)?;
    let mut shape = shapes[0].to_vec();
    args.int("axis")?;
    let axis = args.axis_or("axis", 0, shape.len() + 1)?;
    shape.insert(axis, shapes.len());
    if element_count(&shape).is_none() {
        return Err(format!("a tensor of shape {shape:?} is larger than any memory").into());
    }
    let after = product(&shape[axis + 1..]);
    let rounds = Rounds::of(&shape, &shape[..axis], shapes.iter().map(|_| after));
    Ok((rounds, shape))
}

pub(super) fn stack(call: &mut Call<'_>) -> Outcome {
    let (rounds, shape) = stacked(call)?;
    put_together(call, &rounds, &shape)
}

pub(super) fn stack_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (rounds, _) = stacked(call)?;
    taken_apart(call, &rounds)
}

/// How the parts of a split lie in `x`, the axis that is split, and the sizes on it.
fn divided(args: &Args<'_>) -> Result<(Rounds, usize, Vec<usize>), Fault> {
    let shape = args.tensor("x")?.shape();
    args.int("axis")?;
    let axis = args.axis_or("axis", 0, shape.len())?;
    let count = args.optional_int("num_splits")?;
    let count = count.map(|count| size("num_splits", count)).transpose()?;
    let sizes = match (args.optional_ints("split_sizes")?, count) {
        (Some(sizes), _) => {
            let sizes = sizes.into_iter().map(|one| size("split_sizes", one));
            sizes.collect::<Result<Vec<usize>, _>>()?
        }
        (None, Some(count)) if count != args.op.outputs.len() => {
            let outputs = args.op.outputs.len();
            return Err(
                format!("num_splits is {count}; the operation has {outputs} outputs").into(),
            );
        }
        (None, Some(count)) if count > 0 && shape[axis].is_multiple_of(count) => {
            vec![shape[axis] / count; count]
        }
        (None, Some(count)) => {
            return Err(format!(
                "num_splits is {count}, which does not divide {}, axis {axis} of x",
                shape[axis]
            )
            .into());
        }
        (None, None) => return Err("neither num_splits nor split_sizes is given".into()),
    };
    if sizes.iter().sum::<usize>() != shape[axis] || count.is_some_and(|count| count != sizes.len())
    {
        let what = format!(
            "split_sizes is {sizes:?}, num_splits {count:?}, and axis {axis} of x has {}",
            shape[axis]
        );
        return Err(what.into());
    }
    let after = product(&shape[axis + 1..]);
    let parts = sizes.iter().map(|size| size.saturating_mul(after));
    Ok((Rounds::of(shape, &shape[..axis], parts), axis, sizes))
}

pub(super) fn split(call: &mut Call<'_>) -> Outcome {
    let (rounds, axis, sizes) = divided(call)?;
    let x = call.tensor("x")?;
    call.count(x.shape())?;
    let mut shape = x.shape().to_vec();
    each_kind!(x.dtype(), "x", T => {
        let parts = rounds.parted::<T>(call.elements("x")?);
        let mut outputs: Vec<Value> = Vec::with_capacity(parts.len());
        for (part, &size) in parts.into_iter().zip(&sizes) {
            shape[axis] = size;
            outputs.push(call.nth_output(outputs.len(), &shape, part)?);
        }
        Ok(outputs)
    })
}

pub(super) fn split_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (rounds, ..) = divided(call)?;
    let largest = rounds.sizes.iter().max().copied().unwrap_or(0);
    // what nothing flows into
    let zeros = vec![0.0; rounds.rounds * largest];
    let parts = (0..rounds.sizes.len()).map(|at| call.upstream_of(at).unwrap_or(&zeros));
    let parts: Vec<&[f32]> = parts.collect();
    Ok(vec![("x", 0, rounds.joined(&parts))])
}
