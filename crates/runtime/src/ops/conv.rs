//! Convolutions.

mod columns;
mod dense;
mod direct;
mod geometry;
mod sides;
mod strip;

use super::window::{self, Windows};
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use crate::tensor::{Elements, Tensor};
use geometry::Geometry;

pub(super) const OPS: &[Def] = &[
    differentiable("conv", conv, conv_backward).by_factors("x", "weight"),
    differentiable("conv_quantized", conv_quantized, conv_quantized_backward),
    differentiable("conv_transpose", conv_transpose, conv_transpose_backward)
        .by_factors("x", "weight"),
];

/// A convolution's sizes, and the shape of its output.
struct Sizes {
    geometry: Geometry,
    shape: Vec<usize>,
}

/// The sizes of `x` and `weight`, of 1 to 3 spatial axes both.
fn shapes<'a>(call: &'a Args<'_>) -> Result<(&'a [usize], &'a [usize], usize), Fault> {
    let (x, weight) = (call.tensor("x")?, call.tensor("weight")?);
    if !(3..=5).contains(&x.rank()) {
        return Err(wrong("x", x, "rank 3 to 5"));
    }
    if weight.rank() != x.rank() {
        return Err(wrong("weight", weight, &format!("rank {}", x.rank())));
    }
    let groups = call.optional_int("groups")?.unwrap_or(1);
    let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0);
    let groups = groups.ok_or("groups must be at least 1")?;
    Ok((x.shape(), weight.shape(), groups))
}

/// A convolution: weights are `[out, in / groups, kernel]`.
fn sizes(call: &Args<'_>) -> Result<Sizes, Fault> {
    let (x, weight, groups) = shapes(call)?;
    let (channels, outputs) = (x[1], weight[0]);
    if channels % groups != 0 || channels / groups != weight[1] || outputs % groups != 0 {
        let what = format!("{channels} channels do not fit weights of {weight:?}");
        return Err(format!("{what} and {groups} groups").into());
    }
    let windows = Windows::of(call, x.len() - 2)?;
    let axes = windows.over(&x[2..], &weight[2..], false)?;
    let mut shape = vec![x[0], outputs];
    shape.extend(axes.iter().map(|axis| axis.output));
    let narrow = outputs / groups;
    Ok(Sizes {
        geometry: Geometry::new(x[0], groups, weight[1], narrow, window::three(&axes)?),
        shape,
    })
}

/// A transposed convolution: weights are `[in, out / groups, kernel]`.
fn sizes_transposed(call: &Args<'_>) -> Result<Sizes, Fault> {
    let (x, weight, groups) = shapes(call)?;
    let channels = x[1];
    if channels % groups != 0 || channels != weight[0] {
        let what = format!("{channels} channels do not fit weights of {weight:?}");
        return Err(format!("{what} and {groups} groups").into());
    }
    let outputs = weight[1].checked_mul(groups);
    let outputs = outputs.ok_or_else(|| format!("{groups} groups are too many"))?;
    let wanted = match call.has("output_shape") {
        true => Some(window::numbers(call, "output_shape", x.len(), 0)?),
        false => None,
    };
    if let Some(wanted) = &wanted
        && wanted[..2] != [x[0], outputs]
    {
        let expected = [x[0], outputs];
        return Err(format!("output_shape is {wanted:?}; expected {expected:?} first").into());
    }
    let windows = Windows::of(call, x.len() - 2)?;
    let spatial = wanted.as_deref().map(|wanted| &wanted[2..]);
    let axes = windows.under(&x[2..], &weight[2..], spatial)?;
    let mut shape = vec![x[0], outputs];
    shape.extend(axes.iter().map(|axis| axis.input));
    let narrow = channels / groups;
    Ok(Sizes {
        geometry: Geometry::new(x[0], groups, weight[1], narrow, window::three(&axes)?),
        shape,
    })
}

/// The bias, one number for each channel of the output.
fn checked_bias<'a>(bias: Option<&'a [f32]>, shape: &[usize]) -> Result<Option<&'a [f32]>, Fault> {
    if let Some(bias) = bias
        && bias.len() != shape[1]
    {
        let (found, expected) = (bias.len(), shape[1]);
        return Err(format!("bias has {found} elements; expected {expected}").into());
    }
    Ok(bias)
}

fn conv(call: &mut Call<'_>) -> Outcome {
    let Sizes { geometry, shape } = sizes(call)?;
    let bias = checked_bias(call.optional_floats("bias")?, &shape)?;
    let count = call.count(&shape)?;
    let (x, weight) = (call.floats("x")?, call.floats("weight")?);
    let narrow = sides::gather(&geometry, x, weight, bias, count);
    call.output(&shape, narrow)
}

fn conv_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let Sizes { geometry, .. } = sizes(call)?;
    // it has none if no gradient is made of them
    let weights = call.tensor("weight")?.floats().unwrap_or_default();
    convolved(call, &geometry, weights)
}

/// The gradients of a convolution with these weights.
fn convolved(
    call: &Backward<'_>,
    geometry: &Geometry,
    weights: &[f32],
) -> Result<Gradients, Fault> {
    let upstream = call.upstream()?;
    let mut gradients = Gradients::new();
    if call.wants("x") {
        let count = call.tensor("x")?.len();
        let gradient = sides::scatter(geometry, upstream, weights, None, count);
        gradients.push(("x", 0, gradient));
    }
    if call.wants("weight") {
        let count = call.tensor("weight")?.len();
        let gradient = sides::correlate(geometry, call.floats("x")?, upstream, count);
        gradients.push(("weight", 0, gradient));
    }
    if call.wants("bias") {
        let channels = geometry.groups * geometry.narrow;
        let sums = sides::channel_sums(upstream, channels, geometry.narrow_plane());
        gradients.push(("bias", 0, sums));
    }
    Ok(gradients)
}

fn conv_transpose(call: &mut Call<'_>) -> Outcome {
    let Sizes { geometry, shape } = sizes_transposed(call)?;
    let bias = checked_bias(call.optional_floats("bias")?, &shape)?;
    let count = call.count(&shape)?;
    let (x, weight) = (call.floats("x")?, call.floats("weight")?);
    let wide = sides::scatter(&geometry, x, weight, bias, count);
    call.output(&shape, wide)
}

fn conv_transpose_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let Sizes { geometry, .. } = sizes_transposed(call)?;
    let upstream = call.upstream()?;
    let mut gradients = Gradients::new();
    if call.wants("x") {
        let (count, weights) = (call.tensor("x")?.len(), call.floats("weight")?);
        let gradient = sides::gather(&geometry, upstream, weights, None, count);
        gradients.push(("x", 0, gradient));
    }
    if call.wants("weight") {
        let (count, x) = (call.tensor("weight")?.len(), call.floats("x")?);
        let gradient = sides::correlate(&geometry, upstream, x, count);
        gradients.push(("weight", 0, gradient));
    }
    if call.wants("bias") {
        let channels = geometry.groups * geometry.wide;
        let sums = sides::channel_sums(upstream, channels, geometry.wide_plane());
        gradients.push(("bias", 0, sums));
    }
    Ok(gradients)
}

/// Numbers of either kind, as floats.
fn as_floats(param: &str, tensor: &Tensor) -> Result<Vec<f32>, Fault> {
    match tensor.elements() {
        Elements::Floats(values) => Ok(values.to_vec()),
        Elements::Ints(values) => Ok(values.iter().map(|&value| value as f32).collect()),
        _ => Err(wrong(param, tensor, "numbers")),
    }
}

/// A number for each channel of the output: one for all, or one for each.
fn per_channel(call: &Args<'_>, param: &str, channels: usize) -> Result<Vec<f32>, Fault> {
    let found = call.floats(param)?;
    match found {
        [value] => Ok(vec![*value; channels]),
        _ if found.len() == channels => Ok(found.to_vec()),
        _ => {
            let found = found.len();
            Err(format!("{param} has {found} elements; expected 1 or {channels}").into())
        }
    }
}

/// The weights of a quantized convolution: `weight * quant_scale + quant_bias`, for each channel of the output.
fn dequantized(call: &Args<'_>, channels: usize) -> Result<Vec<f32>, Fault> {
    match call.text("quantization_type")?.unwrap_or("linear") {
        "linear" => {}
        "lut" => {
            let what = "quantization_type is \"lut\", and there is no parameter for its table";
            return Err(format!("{what}; expected \"linear\"").into());
        }
        other => {
            return Err(format!("quantization_type is \"{other}\"; expected \"linear\"").into());
        }
    }
    let bits = call.optional_int("nbits")?.unwrap_or(8);
    if !(1..=8).contains(&bits) {
        return Err(format!("nbits is {bits}; expected 1 to 8").into());
    }
    let scale = per_channel(call, "quant_scale", channels)?;
    let bias = per_channel(call, "quant_bias", channels)?;
    let mut weights = as_floats("weight", call.tensor("weight")?)?;
    let each = (weights.len() / channels.max(1)).max(1);
    for ((weights, scale), bias) in weights.chunks_mut(each).zip(scale).zip(bias) {
        weights
            .iter_mut()
            .for_each(|weight| *weight = *weight * scale + bias);
    }
    Ok(weights)
}

fn conv_quantized(call: &mut Call<'_>) -> Outcome {
    let Sizes { geometry, shape } = sizes(call)?;
    call.count(call.tensor("weight")?.shape())?;
    let weights = dequantized(call, shape[1])?;
    // MIL gives the bias the type of the weights; it is not quantized
    let bias = call.optional("bias")?;
    let bias = bias.map(|bias| as_floats("bias", bias)).transpose()?;
    let bias = checked_bias(bias.as_deref(), &shape)?;
    let count = call.count(&shape)?;
    let narrow = sides::gather(&geometry, call.floats("x")?, &weights, bias, count);
    call.output(&shape, narrow)
}

fn conv_quantized_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let Sizes { geometry, shape } = sizes(call)?;
    let weights = dequantized(call, shape[1])?;
    let mut gradients = convolved(call, &geometry, &weights)?;
    let wanted = ["quant_scale", "quant_bias"].map(|param| call.wants(param));
    if !wanted.contains(&true) {
        return Ok(gradients);
    }
    let slopes = sides::correlate(
        &geometry,
        call.floats("x")?,
        call.upstream()?,
        weights.len(),
    );
    let each = (slopes.len() / shape[1].max(1)).max(1);
    let quantized = as_floats("weight", call.tensor("weight")?)?;
    let scaled: Vec<f32> = slopes.iter().zip(&quantized).map(|(g, w)| g * w).collect();
    for (param, terms) in [("quant_scale", scaled), ("quant_bias", slopes)] {
        if call.wants(param) {
            let one = call.floats(param)?.len() == 1;
            let (channels, each) = if one {
                (1, terms.len())
            } else {
                (shape[1], each)
            };
            gradients.push((param, 0, sides::channel_sums(&terms, channels, each)));
        }
    }
    Ok(gradients)
}
