//! Normalization.
//!
//! All but batch_norm, whose statistics are given, gather them over groups of elements: `groups.rs` has the arithmetic of those,
//! forward and backward, in f64 sums.

mod groups;
mod local;

use crate::axis::product as count;
use crate::broadcast::{contiguous, copy};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use groups::{Slopes, normalize, normalize_backward};

pub(super) const OPS: &[Def] = &[
    differentiable("batch_norm", batch_norm, batch_norm_backward),
    differentiable("instance_norm", instance_norm, instance_norm_backward),
    differentiable("layer_norm", layer_norm, layer_norm_backward),
    differentiable("l2_norm", local::l2_norm, local::l2_norm_backward),
    differentiable(
        "local_response_norm",
        local::response,
        local::response_backward,
    ),
];

/// The sizes of batch, channels and what lies behind them.
fn planes(shape: &[usize]) -> Result<[usize; 3], Fault> {
    match shape {
        [batch, channels, inner @ ..] => Ok([*batch, *channels, count(inner)]),
        _ => Err(format!("x has the shape {shape:?}; expected batch, channels and more").into()),
    }
}

/// A number for each channel, or a default for all.
fn per_channel(
    args: &Args<'_>,
    param: &str,
    channels: usize,
    default: f32,
) -> Result<Vec<f32>, Fault> {
    match args.optional_floats(param)? {
        None => Ok(vec![default; channels]),
        Some(values) if values.len() == channels => Ok(values.to_vec()),
        Some(values) => Err(format!(
            "{param} has {} elements, x {channels} channels",
            values.len()
        )
        .into()),
    }
}

/// What a batch norm does to a channel: (x − mean) · gamma / √(variance + epsilon) + beta.
struct Channel {
    mean: f32,
    deviation: f64,
    gamma: f32,
    beta: f32,
}

fn channels(args: &Args<'_>, channels: usize) -> Result<Vec<Channel>, Fault> {
    let epsilon = f64::from(args.float_or("epsilon", 1e-5)?);
    let mean = per_channel(args, "mean", channels, 0.0)?;
    let variance = per_channel(args, "variance", channels, 1.0)?;
    let gamma = per_channel(args, "gamma", channels, 1.0)?;
    let beta = per_channel(args, "beta", channels, 0.0)?;
    let one = |at: usize| Channel {
        mean: mean[at],
        deviation: (f64::from(variance[at]) + epsilon).sqrt(),
        gamma: gamma[at],
        beta: beta[at],
    };
    Ok((0..channels).map(one).collect())
}

fn batch_norm(call: &mut Call<'_>) -> Outcome {
    let [_, count, inner] = planes(call.tensor("x")?.shape())?;
    let channels = channels(call, count)?;
    let (mut values, shape) = call.take_floats("x")?;
    for (at, plane) in values.chunks_exact_mut(inner.max(1)).enumerate() {
        let Channel {
            mean,
            deviation,
            gamma,
            beta,
        } = channels[at % count];
        let scale = (f64::from(gamma) / deviation) as f32;
        plane
            .iter_mut()
            .for_each(|x| *x = (*x - mean) * scale + beta);
    }
    call.output(&shape, values)
}

fn batch_norm_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let [_, count, inner] = planes(call.tensor("x")?.shape())?;
    let channels = channels(call, count)?;
    let (x, upstream) = (call.floats("x")?, call.upstream()?);
    let mut slopes = upstream.to_vec();
    // of each channel: the sum of slopes, and of slopes times what is left of x without its mean
    let mut sums = vec![(0.0f64, 0.0f64); count];
    for (at, (plane, x)) in slopes
        .chunks_exact_mut(inner.max(1))
        .zip(x.chunks_exact(inner.max(1)))
        .enumerate()
    {
        let Channel {
            mean,
            deviation,
            gamma,
            ..
        } = channels[at % count];
        let (sum, moment) = &mut sums[at % count];
        for (slope, &x) in plane.iter().zip(x) {
            *sum += f64::from(*slope);
            *moment += f64::from(*slope) * (f64::from(x) - f64::from(mean));
        }
        let scale = (f64::from(gamma) / deviation) as f32;
        plane.iter_mut().for_each(|slope| *slope *= scale);
    }
    let each = |of: &dyn Fn(&Channel, (f64, f64)) -> f64| -> Vec<f32> {
        channels
            .iter()
            .zip(&sums)
            .map(|(channel, &sums)| of(channel, sums) as f32)
            .collect()
    };
    let gamma = |channel: &Channel| f64::from(channel.gamma);
    let mut found: Gradients = vec![
        ("x", 0, slopes),
        (
            "mean",
            0,
            each(&|channel, (sum, _)| -gamma(channel) / channel.deviation * sum),
        ),
        (
            "variance",
            0,
            each(&|channel, (_, moment)| {
                -0.5 * gamma(channel) / channel.deviation.powi(3) * moment
            }),
        ),
    ];
    for (param, gradient) in [
        (
            "gamma",
            each(&|channel, (_, moment)| moment / channel.deviation),
        ),
        ("beta", each(&|_, (sum, _)| sum)),
    ] {
        if call.has(param) {
            found.push((param, 0, gradient));
        }
    }
    Ok(found)
}

fn instance_norm(call: &mut Call<'_>) -> Outcome {
    let [_, channels, inner] = planes(call.tensor("x")?.shape())?;
    let gamma = per_channel(call, "gamma", channels, 1.0)?;
    let beta = per_channel(call, "beta", channels, 0.0)?;
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let (mut values, shape) = call.take_floats("x")?;
    normalize(&mut values, inner, epsilon, |group, _| {
        (gamma[group % channels], beta[group % channels])
    });
    call.output(&shape, values)
}

fn instance_norm_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let [_, channels, inner] = planes(call.tensor("x")?.shape())?;
    let gamma = per_channel(call, "gamma", channels, 1.0)?;
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let found = normalize_backward(
        call.floats("x")?,
        call.upstream()?,
        inner,
        epsilon,
        channels,
        |group, _| (gamma[group % channels], group % channels),
    );
    Ok(given(call, found))
}

/// The gradients of what was given.
fn given(call: &Backward<'_>, found: Slopes) -> Gradients {
    let mut gradients = vec![("x", 0, found.x)];
    for (param, gradient) in [("gamma", found.gamma), ("beta", found.beta)] {
        if call.has(param) {
            gradients.push((param, 0, gradient));
        }
    }
    gradients
}

/// A layer norm: the order of dimensions in which those that are normalized over come last, and how many elements those have.
struct Layer {
    order: Vec<usize>,
    inner: usize,
}

impl Layer {
    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let shape = args.tensor("x")?.shape();
        let axes = args.axes("axes", shape.len())?;
        let mut axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
        axes.sort_unstable();
        let kept = (0..shape.len()).filter(|axis| !axes.contains(axis));
        let order = kept.chain(axes.iter().copied()).collect();
        let inner = axes.iter().map(|&axis| shape[axis]).product();
        for param in ["gamma", "beta"] {
            if let Some(values) = args
                .optional_floats(param)?
                .filter(|values| values.len() != inner)
            {
                return Err(
                    format!("{param} has {} elements, the axes {inner}", values.len()).into(),
                );
            }
        }
        Ok(Layer { order, inner })
    }

    fn in_place(&self) -> bool {
        self.order.is_sorted()
    }

    /// Elements in the order of the layer.
    fn gathered(&self, values: &[f32], shape: &[usize]) -> Vec<f32> {
        let own = contiguous(shape);
        let strides: Vec<usize> = self.order.iter().map(|&axis| own[axis]).collect();
        let dims: Vec<usize> = self.order.iter().map(|&axis| shape[axis]).collect();
        let mut out = vec![0.0; values.len()];
        copy(values, &strides, &dims, &mut out);
        out
    }

    /// The way back.
    fn scattered(&self, values: &[f32], shape: &[usize]) -> Vec<f32> {
        let dims: Vec<usize> = self.order.iter().map(|&axis| shape[axis]).collect();
        let own = contiguous(&dims);
        let place = |axis: usize| {
            self.order
                .iter()
                .position(|&other| other == axis)
                .map_or(0, |at| own[at])
        };
        let strides: Vec<usize> = (0..shape.len()).map(place).collect();
        let mut out = vec![0.0; values.len()];
        copy(values, &strides, shape, &mut out);
        out
    }
}

fn layer_norm(call: &mut Call<'_>) -> Outcome {
    let layer = Layer::of(call)?;
    let ones = vec![1.0; layer.inner];
    let zeros = vec![0.0; layer.inner];
    let gamma = call.optional_floats("gamma")?.map_or(ones, <[f32]>::to_vec);
    let beta = call.optional_floats("beta")?.map_or(zeros, <[f32]>::to_vec);
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let (mut values, shape) = call.take_floats("x")?;
    if !layer.in_place() {
        values = layer.gathered(&values, &shape);
    }
    normalize(&mut values, layer.inner, epsilon, |_, at| {
        (gamma[at], beta[at])
    });
    if !layer.in_place() {
        values = layer.scattered(&values, &shape);
    }
    call.output(&shape, values)
}

fn layer_norm_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let layer = Layer::of(call)?;
    let shape = call.tensor("x")?.shape();
    let gamma = call
        .optional_floats("gamma")?
        .map_or(vec![1.0; layer.inner], <[f32]>::to_vec);
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let (x, upstream) = (
        layer.gathered(call.floats("x")?, shape),
        layer.gathered(call.upstream()?, shape),
    );
    let mut found =
        normalize_backward(&x, &upstream, layer.inner, epsilon, layer.inner, |_, at| {
            (gamma[at], at)
        });
    found.x = layer.scattered(&found.x, shape);
    Ok(given(call, found))
}
