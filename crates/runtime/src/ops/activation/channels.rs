//! Activation functions with parameters for each channel.
//!
//! Core ML compiles `prelu` of rank 3 and 5 only if all channels have the same alpha; here each may have its own at any rank.

use crate::broadcast::{apply, apply_in_place, sum_to};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use palettizer_kernels::functions;

/// The shape of a parameter with an element for each channel, as it is broadcast to x.
fn for_channels(args: &Args<'_>, param: &str) -> Result<Vec<usize>, Fault> {
    let (x, found) = (args.tensor("x")?, args.tensor(param)?);
    if x.rank() < 2 {
        return Err(format!(
            "x has the shape {:?}; expected a batch of channels",
            x.shape()
        )
        .into());
    }
    let channels = x.shape()[1];
    if found.shape() != [channels] && found.len() != 1 {
        let (found, x) = (found.shape(), x.shape());
        return Err(
            format!("{param} has the shape {found:?}; x {x:?} has {channels} channels").into(),
        );
    }
    let mut shape = vec![1; x.rank()];
    shape[1] = found.len();
    Ok(shape)
}

/// A function of x and of the parameter of its channel.
fn by_channel(
    call: &Args<'_>,
    out: &mut [f32],
    param: &str,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<(), Fault> {
    let x = call.tensor("x")?.shape();
    let shape = for_channels(call, param)?;
    apply(
        (call.floats("x")?, x),
        (call.floats(param)?, &shape),
        x,
        out,
        f,
    )
}

/// The same in place, of what is there.
fn with_channel(
    call: &Args<'_>,
    values: &mut [f32],
    param: &str,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<(), Fault> {
    let shape = for_channels(call, param)?;
    apply_in_place(
        values,
        call.tensor("x")?.shape(),
        (call.floats(param)?, &shape),
        f,
    )
}

/// The same, of what is there and of x.
fn with_x(
    call: &Args<'_>,
    values: &mut [f32],
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<(), Fault> {
    let x = call.tensor("x")?.shape();
    apply_in_place(values, x, (call.floats("x")?, x), f)
}

/// The gradient of a parameter, from that of each element.
fn summed(
    call: &Backward<'_>,
    param: &'static str,
    gradient: Vec<f32>,
) -> Result<(&'static str, usize, Vec<f32>), Fault> {
    let shape = for_channels(call, param)?;
    Ok((
        param,
        0,
        sum_to(gradient, call.tensor("x")?.shape(), &shape),
    ))
}

pub(super) fn prelu(call: &mut Call<'_>) -> Outcome {
    let shape = call.tensor("x")?.shape();
    let mut out = call.zeros(shape)?;
    by_channel(
        call,
        &mut out,
        "alpha",
        |x, alpha| if x < 0.0 { alpha * x } else { x },
    )?;
    call.output(shape, out)
}

pub(super) fn prelu_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let mut gradients = Vec::new();
    if call.wants("x") {
        let mut gradient = vec![0.0; call.tensor("x")?.len()];
        by_channel(call, &mut gradient, "alpha", |x, alpha| {
            if x > 0.0 { 1.0 } else { alpha }
        })?;
        let shape = call.tensor("x")?.shape();
        apply_in_place(
            &mut gradient,
            shape,
            (call.upstream()?, shape),
            |slope, g| slope * g,
        )?;
        gradients.push(("x", 0, gradient));
    }
    if call.wants("alpha") {
        let mut gradient = call.upstream()?.to_vec();
        with_x(
            call,
            &mut gradient,
            |g, x| if x < 0.0 { g * x } else { 0.0 },
        )?;
        gradients.push(summed(call, "alpha", gradient)?);
    }
    Ok(gradients)
}

// alpha · log(1 + e^(beta · x)), without the overflow that coremltools' own value has
pub(super) fn softplus(call: &mut Call<'_>) -> Outcome {
    let shape = call.tensor("x")?.shape();
    let mut out = call.zeros(shape)?;
    by_channel(call, &mut out, "beta", |x, beta| {
        functions::softplus(beta * x)
    })?;
    with_channel(call, &mut out, "alpha", |y, alpha| alpha * y)?;
    call.output(shape, out)
}

pub(super) fn softplus_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let mut gradients = Vec::new();
    let shape = call.tensor("x")?.shape();
    let upstream = (call.upstream()?, shape);
    if call.wants("x") || call.wants("beta") {
        // of beta · x
        let mut gradient = vec![0.0; call.tensor("x")?.len()];
        by_channel(call, &mut gradient, "beta", |x, beta| {
            functions::sigmoid(beta * x)
        })?;
        with_channel(call, &mut gradient, "alpha", |slope, alpha| slope * alpha)?;
        apply_in_place(&mut gradient, shape, upstream, |slope, g| slope * g)?;
        if call.wants("beta") {
            let mut gradient = gradient.clone();
            with_x(call, &mut gradient, |g, x| g * x)?;
            gradients.push(summed(call, "beta", gradient)?);
        }
        with_channel(call, &mut gradient, "beta", |g, beta| g * beta)?;
        gradients.push(("x", 0, gradient));
    }
    if call.wants("alpha") {
        let mut gradient = vec![0.0; call.tensor("x")?.len()];
        by_channel(call, &mut gradient, "beta", |x, beta| {
            functions::softplus(beta * x)
        })?;
        apply_in_place(&mut gradient, shape, upstream, |y, g| y * g)?;
        gradients.push(summed(call, "alpha", gradient)?);
    }
    Ok(gradients)
}
