//! Groups of neighbouring elements brought to mean 0 and variance 1, then scaled and shifted.

use rayon::prelude::*;

/// The gradients of a normalization.
pub(super) struct Slopes {
    pub x: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// Elements from which on several threads share the work.
const LARGE: usize = 1 << 16;

/// The mean, and one over the deviation.
fn moments(values: &[f32], epsilon: f32) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let square = |&x: &f32| {
        let centred = f64::from(x) - mean;
        centred * centred
    };
    let variance = values.iter().map(square).sum::<f64>() / n;
    (mean, 1.0 / (variance + f64::from(epsilon)).sqrt())
}

/// Normalizes each group of `size` elements; `affine` gives gamma and beta by the group and the place in it.
pub(super) fn normalize(
    values: &mut [f32],
    size: usize,
    epsilon: f32,
    affine: impl Fn(usize, usize) -> (f32, f32) + Sync,
) {
    let one = |(group, values): (usize, &mut [f32])| {
        let (mean, rate) = moments(values, epsilon);
        for (at, x) in values.iter_mut().enumerate() {
            let (gamma, beta) = affine(group, at);
            *x = ((f64::from(*x) - mean) * rate) as f32 * gamma + beta;
        }
    };
    let size = size.max(1);
    match values.len() >= LARGE {
        true => values.par_chunks_exact_mut(size).enumerate().for_each(one),
        false => values.chunks_exact_mut(size).enumerate().for_each(one),
    }
}

/// The gradients; `affine` gives gamma, and which of the `count` gammas it is.
pub(super) fn normalize_backward(
    x: &[f32],
    upstream: &[f32],
    size: usize,
    epsilon: f32,
    count: usize,
    affine: impl Fn(usize, usize) -> (f32, usize),
) -> Slopes {
    let mut slopes = vec![0.0; x.len()];
    let (mut gammas, mut betas) = (vec![0.0f64; count], vec![0.0f64; count]);
    let size = size.max(1);
    let groups = x
        .chunks_exact(size)
        .zip(upstream.chunks_exact(size))
        .zip(slopes.chunks_exact_mut(size));
    for (group, ((x, upstream), slopes)) in groups.enumerate() {
        let (mean, rate) = moments(x, epsilon);
        let (mut sum, mut moment) = (0.0, 0.0);
        for (at, (&x, &slope)) in x.iter().zip(upstream).enumerate() {
            let (gamma, which) = affine(group, at);
            let (normal, slope) = ((f64::from(x) - mean) * rate, f64::from(slope));
            gammas[which] += slope * normal;
            betas[which] += slope;
            sum += slope * f64::from(gamma);
            moment += slope * f64::from(gamma) * normal;
        }
        let n = size as f64;
        for (at, ((&x, &slope), out)) in x.iter().zip(upstream).zip(slopes).enumerate() {
            let (gamma, _) = affine(group, at);
            let normal = (f64::from(x) - mean) * rate;
            *out = (rate * (f64::from(slope) * f64::from(gamma) - sum / n - normal * moment / n))
                as f32;
        }
    }
    let narrow = |sums: Vec<f64>| sums.iter().map(|&sum| sum as f32).collect();
    Slopes {
        x: slopes,
        gamma: narrow(gammas),
        beta: narrow(betas),
    }
}
