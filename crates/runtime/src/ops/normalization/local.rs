//! Norms without a mean: of the last three dimensions, and of neighbouring channels.

use super::planes;
use crate::axis::product as count;
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use std::ops::Range;

/// Elements of what an l2_norm divides by its norm: the last three dimensions.
fn block(shape: &[usize]) -> Result<usize, Fault> {
    match shape {
        [.., _, _, _] => Ok(count(&shape[shape.len() - 3..]).max(1)),
        _ => Err(format!("x has the shape {shape:?}; expected three dimensions or more").into()),
    }
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

pub(super) fn l2_norm(call: &mut Call<'_>) -> Outcome {
    let block = block(call.tensor("x")?.shape())?;
    let epsilon = f64::from(call.float_or("epsilon", 1e-6)?);
    let (mut values, shape) = call.take_floats("x")?;
    for values in values.chunks_exact_mut(block) {
        let rate = 1.0 / (squares(values) + epsilon).sqrt();
        values
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) * rate) as f32);
    }
    call.output(&shape, values)
}

pub(super) fn l2_norm_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let block = block(call.tensor("x")?.shape())?;
    let epsilon = f64::from(call.float_or("epsilon", 1e-6)?);
    let (x, mut slopes) = (call.floats("x")?, call.upstream()?.to_vec());
    for (x, slopes) in x.chunks_exact(block).zip(slopes.chunks_exact_mut(block)) {
        let rate = 1.0 / (squares(x) + epsilon).sqrt();
        let along: f64 = x
            .iter()
            .zip(slopes.iter())
            .map(|(&x, &slope)| f64::from(x) * f64::from(slope))
            .sum();
        let back = along * rate * rate;
        for (&x, slope) in x.iter().zip(slopes) {
            *slope = ((f64::from(*slope) - f64::from(x) * back) * rate) as f32;
        }
    }
    Ok(vec![("x", 0, slopes)])
}

/// x / (k + alpha / size · Σ x²)^beta, the sum over channels around each.
struct Response {
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
    planes: [usize; 3],
}

impl Response {
    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let size = usize::try_from(args.int("size")?)
            .ok()
            .filter(|&size| size > 0);
        Ok(Response {
            size: size.ok_or("size must be 1 or more")?,
            alpha: f64::from(args.float_or("alpha", 1e-4)?),
            beta: f64::from(args.float_or("beta", 0.75)?),
            k: f64::from(args.float_or("k", 1.0)?),
            planes: planes(args.tensor("x")?.shape())?,
        })
    }

    /// The channels around one, cut off at the ends.
    fn around(&self, channel: usize) -> Range<usize> {
        let before = self.size / 2;
        let end = channel.saturating_add(self.size - before);
        channel.saturating_sub(before)..end.min(self.planes[1])
    }

    /// What is raised to the power of beta, for each element.
    fn bases(&self, x: &[f32]) -> Vec<f64> {
        let [_, channels, inner] = self.planes;
        let mut found = vec![self.k; x.len()];
        let each = self.alpha / self.size as f64;
        let image = (channels * inner).max(1);
        for (found, x) in found.chunks_exact_mut(image).zip(x.chunks_exact(image)) {
            for channel in 0..channels {
                for other in self.around(channel) {
                    let (to, from) = (
                        &mut found[channel * inner..][..inner],
                        &x[other * inner..][..inner],
                    );
                    to.iter_mut()
                        .zip(from)
                        .for_each(|(sum, &x)| *sum += each * f64::from(x) * f64::from(x));
                }
            }
        }
        found
    }
}

pub(super) fn response(call: &mut Call<'_>) -> Outcome {
    let response = Response::of(call)?;
    let bases = response.bases(call.floats("x")?);
    let (mut values, shape) = call.take_floats("x")?;
    for (x, base) in values.iter_mut().zip(bases) {
        *x = (f64::from(*x) * base.powf(-response.beta)) as f32;
    }
    call.output(&shape, values)
}

pub(super) fn response_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let response = Response::of(call)?;
    let (x, upstream) = (call.floats("x")?, call.upstream()?);
    let bases = response.bases(x);
    let [_, channels, inner] = response.planes;
    let image = (channels * inner).max(1);
    let each = 2.0 * response.beta * response.alpha / response.size as f64;
    let mut slopes = vec![0.0f32; x.len()];
    for (at, slopes) in slopes.chunks_exact_mut(image).enumerate() {
        let first = at * image;
        for channel in 0..channels {
            for place in 0..inner {
                let own = first + channel * inner + place;
                let mut sum = f64::from(upstream[own]) * bases[own].powf(-response.beta);
                for other in
                    (0..channels).filter(|&other| response.around(other).contains(&channel))
                {
                    let other = first + other * inner + place;
                    let flow = f64::from(upstream[other])
                        * f64::from(x[other])
                        * bases[other].powf(-response.beta - 1.0);
                    sum -= each * f64::from(x[own]) * flow;
                }
                slopes[channel * inner + place] = sum as f32;
            }
        }
    }
    Ok(vec![("x", 0, slopes)])
}
