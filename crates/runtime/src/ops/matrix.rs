//! Products: linear, matmul, einsum, attention.
//!
//! All of them end in products of two matrices, for each of the batch dimensions, broadcast as numpy does.

mod attention;
mod batched;
mod einsum;

use crate::axis::product as count;
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::constant::Unread;
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use crate::tensor::Elements;
use batched::{Factor, integers, multiply, multiply_backward};
use palettizer_kernels::{Matrix, product, product_alone};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use std::mem;
use std::ops::Range;

pub(super) const OPS: &[Def] = &[
    differentiable("linear", linear, linear_backward)
        .by_factors("x", "weight")
        .reading_rows("weight"),
    differentiable("matmul", matmul, matmul_backward).by_factors("x", "y"),
    differentiable("einsum", einsum::einsum, einsum::backward),
    differentiable(
        "scaled_dot_product_attention",
        attention::attention,
        attention::backward,
    ),
];

/// Rows, inputs and outputs of a linear layer.
fn sizes(x: &[usize], weight: &[usize]) -> Result<(usize, usize, usize), Fault> {
    match (x, weight) {
        ([outer @ .., inputs], [outputs, columns]) if inputs == columns => {
            Ok((count(outer), *inputs, *outputs))
        }
        _ => Err(format!(
            "x has the shape {x:?}, weight {weight:?}; expected [.., inputs] and [outputs, inputs]"
        )
        .into()),
    }
}

/// `x · weightᵀ + bias`, along the last axis.
fn linear(call: &mut Call<'_>) -> Outcome {
    let (x, weight) = (call.tensor("x")?, call.tensor("weight")?);
    let (rows, inputs, outputs) = sizes(x.shape(), weight.shape())?;
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(outputs);
    let mut out: Vec<f32> = call.zeros(&shape)?;
    let bias = call.optional_floats("bias")?;
    if let Some(bias) = bias {
        if bias.len() != outputs {
            return Err(format!("bias has {} elements, weight {outputs} rows", bias.len()).into());
        }
        out.chunks_exact_mut(outputs.max(1))
            .for_each(|row| row.copy_from_slice(bias));
    }
    let x = Matrix::new(call.floats("x")?, rows, inputs);
    let accumulate = bias.is_some();
    let Some(unread) = &call.unread else {
        let weight = Matrix::new(call.floats("weight")?, outputs, inputs);
        product(x, weight.transposed(), &mut out, outputs, accumulate);
        return call.output(&shape, out);
    };
    if !by_blocks(x, unread, &mut out, (outputs, inputs), accumulate)? {
        let weight = unread.whole()?;
        let floats = weight
            .floats()
            .ok_or_else(|| wrong("weight", &weight, "fp16 or fp32"))?;
        let factor = Matrix::new(floats, outputs, inputs);
        product(x, factor.transposed(), &mut out, outputs, accumulate);
        unread.give_back(weight);
    }
    call.output(&shape, out)
}

/// Elements of a weight that are made at a time: they stay in the cache of a core until they are used.
const BLOCK: usize = 1 << 17;

/// Blocks of a weight at most: each looks at all of its tables.
const BLOCKS: usize = 64;

/// `x · weightᵀ`, where the rows of a weight are made a block at a time, each by whoever multiplies by it: what is made never has to
/// go through memory. `false`, and nothing done, if rows cannot be read apart from the others.
fn by_blocks(
    x: Matrix<'_>,
    weight: &Unread<'_>,
    out: &mut [f32],
    (outputs, inputs): (usize, usize),
    accumulate: bool,
) -> Result<bool, Fault> {
    if out.is_empty() {
        return Ok(false);
    }
    // smaller products are summed in another order, which a result should not show
    let least = (SMALL_PRODUCT / (out.len() / outputs).max(1) + 1).max(SMALL_SIDE + 1);
    let rows = (BLOCK / inputs.max(1)).max(outputs.div_ceil(BLOCKS));
    let rows = rows.max(least).next_multiple_of(LANES);
    let count = outputs / rows;
    if count < 2 {
        return Ok(false);
    }
    let range = |at: usize| {
        at * rows..if at + 1 == count {
            outputs
        } else {
            (at + 1) * rows
        }
    };
    let before = &*out;
    let tile = |room: &mut Vec<f32>, range: Range<usize>| -> Result<Option<Vec<f32>>, Fault> {
        let Some(block) = weight.block(range.clone(), mem::take(room))? else {
            return Ok(None);
        };
        let floats = block
            .floats()
            .ok_or_else(|| wrong("weight", &block, "fp16 or fp32"))?;
        let factor = Matrix::new(floats, range.len(), inputs);
        let rows = before.chunks_exact(outputs).map(|row| &row[range.clone()]);
        let mut tile = rows.collect::<Vec<_>>().concat();
        product_alone(x, factor.transposed(), &mut tile, range.len(), accumulate);
        *room = block.into_floats().unwrap_or_default();
        Ok(Some(tile))
    };
    let tiles: Result<Vec<_>, Fault> = (0..count)
        .into_par_iter()
        .map_init(Vec::new, |room, at| tile(room, range(at)))
        .collect();
    let Some(tiles) = tiles?.into_iter().collect::<Option<Vec<_>>>() else {
        return Ok(false);
    };
    for (at, tile) in tiles.iter().enumerate() {
        let range = range(at);
        for (to, from) in out
            .chunks_exact_mut(outputs)
            .zip(tile.chunks_exact(range.len()))
        {
            to[range.clone()].copy_from_slice(from);
        }
    }
    Ok(true)
}

/// Rows of a block are a multiple of what the product takes at a time.
const LANES: usize = 16;

/// Products of no more elements, or with no longer sides, are summed in an order of their own (`gemm` 0.19).
const SMALL_PRODUCT: usize = 256;
const SMALL_SIDE: usize = 64;

fn linear_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (x, weight) = (call.tensor("x")?, call.tensor("weight")?);
    let (rows, inputs, outputs) = sizes(x.shape(), weight.shape())?;
    let upstream = call.upstream()?;
    let slopes = Matrix::new(upstream, rows, outputs);
    let mut found = Gradients::new();
    if call.wants("x") {
        let mut gradient = vec![0.0; x.len()];
        let weight = Matrix::new(call.floats("weight")?, outputs, inputs);
        product(slopes, weight, &mut gradient, inputs, false);
        found.push(("x", 0, gradient));
    }
    if call.wants("weight") {
        let mut gradient = vec![0.0; weight.len()];
        let x = Matrix::new(call.floats("x")?, rows, inputs);
        product(slopes.transposed(), x, &mut gradient, inputs, false);
        found.push(("weight", 0, gradient));
    }
    if call.wants("bias") {
        let mut sums = vec![0.0f64; outputs];
        for row in upstream.chunks_exact(outputs.max(1)) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, &slope)| *sum += f64::from(slope));
        }
        found.push(("bias", 0, sums.iter().map(|&sum| sum as f32).collect()));
    }
    Ok(found)
}

/// The two factors of a matmul.
fn factors(args: &Args<'_>) -> Result<(Factor, Factor), Fault> {
    let (x, y) = (args.tensor("x")?.shape(), args.tensor("y")?.shape());
    Ok((
        Factor::first(x, args.bool_or("transpose_x", false)?),
        Factor::second(y, args.bool_or("transpose_y", false)?),
    ))
}

fn matmul(call: &mut Call<'_>) -> Outcome {
    let (a, b) = factors(call)?;
    let (x, y) = (call.tensor("x")?, call.tensor("y")?);
    let shape = a.shape_with(&b)?;
    match (x.elements(), y.elements()) {
        (Elements::Floats(x), Elements::Floats(y)) => {
            let mut out: Vec<f32> = call.zeros(&shape)?;
            multiply((x, &a), (y, &b), &mut out)?;
            call.output(&a.squeezed(&b, shape), out)
        }
        (Elements::Ints(x), Elements::Ints(y)) => {
            let mut out: Vec<i32> = call.zeros(&shape)?;
            integers((x, &a), (y, &b), &mut out)?;
            call.output(&a.squeezed(&b, shape), out)
        }
        _ => Err(wrong("y", y, "numbers of the kind of x")),
    }
}

fn matmul_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (a, b) = factors(call)?;
    // one that no gradient is made of has none
    let floats = |param| Ok::<_, Fault>(call.tensor(param)?.floats().unwrap_or_default());
    let (x, y) = (floats("x")?, floats("y")?);
    let wanted = (call.wants("x"), call.wants("y"));
    let (dx, dy) = multiply_backward((x, &a), (y, &b), call.upstream()?, wanted)?;
    let dx = dx.map(|dx| ("x", 0, dx));
    Ok(dx.into_iter().chain(dy.map(|dy| ("y", 0, dy))).collect())
}
