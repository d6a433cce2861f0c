//! Products: linear, matmul, einsum, attention.
//!
//! All of them end in products of two matrices, for each of the batch dimensions, broadcast as numpy does.

mod attention;
mod batched;
mod einsum;

use crate::axis::product as count;
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use crate::tensor::Elements;
use batched::{Factor, integers, multiply, multiply_backward};
use palettizer_kernels::{Matrix, product};

pub(super) const OPS: &[Def] = &[
    differentiable("linear", linear, linear_backward).by_factors("x", "weight"),
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
    let weight = Matrix::new(call.floats("weight")?, outputs, inputs);
    product(x, weight.transposed(), &mut out, outputs, bias.is_some());
    call.output(&shape, out)
}

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
