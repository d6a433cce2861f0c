//! Sorting along an axis. Of equal elements the first comes first, in either direction, and NaN comes last in either: that is what
//! coremltools computes, with numpy's sort of the negated elements. -0 is equal to 0.
//!
//! An element and its position are sorted as one integer: the element's bits so that their order is its, then the position.

use crate::axis::Around;
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element, in_parts};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable, op};
use crate::tensor::Elements;

pub(super) const OPS: &[Def] = &[
    op("argsort", argsort),
    differentiable("topk", topk, topk_backward)
        .moving()
        .by_arguments(),
];

/// The first of the elements in order that are asked for.
struct First {
    around: Around,
    count: usize,
    ascending: bool,
    shape: Vec<usize>,
}

/// A float's place in order.
fn float_key(value: f32, ascending: bool) -> u32 {
    if value.is_nan() {
        return u32::MAX;
    }
    // -0 becomes 0
    let bits = (value + 0.0).to_bits();
    let key = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    if ascending { key } else { !key }
}

/// An integer's place in order.
fn int_key(value: i32, ascending: bool) -> u32 {
    let key = value as u32 ^ 1 << 31;
    if ascending { key } else { !key }
}

impl First {
    fn of(args: &Args<'_>, count: Option<i64>) -> Result<Self, Fault> {
        let mut shape = args.tensor("x")?.shape().to_vec();
        let axis = args.axis_or("axis", -1, shape.len())?;
        let around = Around::axis(&shape, axis);
        let count = match count {
            None | Some(-1) => around.dim,
            Some(count) => {
                let fits = usize::try_from(count)
                    .ok()
                    .filter(|&count| count <= around.dim);
                fits.ok_or_else(|| {
                    format!(
                        "k is {count}; axis {axis} of x has {} positions",
                        around.dim
                    )
                })?
            }
        };
        if u32::try_from(around.dim).is_err() {
            return Err(format!(
                "axis {axis} of x has {} positions, which is too many to sort",
                around.dim
            )
            .into());
        }
        shape[axis] = count;
        Ok(First {
            around,
            count,
            ascending: args.bool_or("ascending", false)?,
            shape,
        })
    }

    /// Their positions on the axis.
    fn indices(&self, call: &Args<'_>) -> Result<Vec<i32>, Fault> {
        let ascending = self.ascending;
        let x = call.tensor("x")?;
        match x.elements() {
            Elements::Floats(values) => {
                Ok(self.sorted(values, |value| float_key(value, ascending)))
            }
            Elements::Ints(values) => Ok(self.sorted(values, |value| int_key(value, ascending))),
            _ => Err(crate::call::wrong("x", x, "floats or integers")),
        }
    }

    fn sorted<T: Element>(&self, values: &[T], key: impl Fn(T) -> u32 + Sync + Send) -> Vec<i32> {
        let Around { before, dim, after } = self.around;
        let count = self.count;
        let mut out = vec![0; crate::tensor::element_count(&[before, count, after]).unwrap_or(0)];
        if out.is_empty() {
            return out;
        }
        in_parts(&mut out, count * after, |(block, out)| {
            let values = &values[block * dim * after..][..dim * after];
            let mut lane: Vec<u64> = Vec::with_capacity(dim);
            for column in 0..after {
                let keys = values[column..].iter().step_by(after).zip(0u64..);
                lane.clear();
                lane.extend(keys.map(|(&value, at)| u64::from(key(value)) << 32 | at));
                if count < dim {
                    lane.select_nth_unstable(count);
                }
                lane[..count].sort_unstable();
                let out = out[column..].iter_mut().step_by(after);
                out.zip(&lane)
                    .for_each(|(out, &found)| *out = found as u32 as i32);
            }
        });
        out
    }

    /// What is at these positions.
    fn values<T: Element>(&self, values: &[T], indices: &[i32]) -> Vec<T> {
        let mut out = Vec::with_capacity(indices.len());
        self.places(indices, |place| out.push(values[place]));
        out
    }

    /// Gives the place in the whole tensor of each of the positions.
    fn places(&self, indices: &[i32], mut each: impl FnMut(usize)) {
        let Around { dim, after, .. } = self.around;
        for (block, indices) in indices.chunks((self.count * after).max(1)).enumerate() {
            for (number, &at) in indices.iter().enumerate() {
                each((block * dim + at as usize) * after + number % after);
            }
        }
    }
}

fn argsort(call: &mut Call<'_>) -> Outcome {
    let first = First::of(call, None)?;
    call.count(&first.shape)?;
    call.output(&first.shape, first.indices(call)?)
}

fn topk(call: &mut Call<'_>) -> Outcome {
    let first = First::of(call, Some(call.optional_int("k")?.unwrap_or(1)))?;
    call.count(&first.shape)?;
    // without `sort` any order will do, and this is one
    let indices = first.indices(call)?;
    let x = call.tensor("x")?;
    let values = match x.elements() {
        Elements::Floats(values) => Elements::from(first.values(values, &indices)),
        Elements::Ints(values) => Elements::from(first.values(values, &indices)),
        _ => return Err(crate::call::wrong("x", x, "floats or integers")),
    };
    let mut outputs = vec![call.nth_output(0, &first.shape, values)?];
    if call.bool_or("return_indices", true)? {
        match call.text("output_indices_dtype")? {
            None | Some("int32") => {}
            Some("uint16") if first.around.dim <= 1 << 16 => {}
            Some("uint16") => {
                return Err(format!(
                    "x has {} positions, whose indices are no uint16",
                    first.around.dim
                )
                .into());
            }
            Some(other) => {
                return Err(format!(
                    "output_indices_dtype is \"{other}\"; expected int32 or uint16"
                )
                .into());
            }
        }
        outputs.push(call.nth_output(1, &first.shape, indices)?);
    }
    Ok(outputs)
}

fn topk_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let first = First::of(call, Some(call.optional_int("k")?.unwrap_or(1)))?;
    let mut gradient = vec![0.0; call.tensor("x")?.len()];
    let mut upstream = call.upstream()?.iter();
    first.places(&first.indices(call)?, |place| {
        gradient[place] += upstream.next().copied().unwrap_or(0.0);
    });
    Ok(vec![("x", 0, gradient)])
}
