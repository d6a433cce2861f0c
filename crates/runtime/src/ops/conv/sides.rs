//! Convolutions by the fastest way: see [`geometry`](super::geometry) for the two sides.

use super::geometry::Geometry;
use super::{dense, direct};

/// A channel's value at each of its positions, in each image; zeros without values.
fn filled(channels: Option<&[f32]>, plane: usize, count: usize) -> Vec<f32> {
    let Some(channels) = channels else {
        return vec![0.0; count];
    };
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        for &value in channels {
            values.resize(values.len() + plane, value);
        }
    }
    values
}

/// The convolution of the wide side, and a bias for each channel: so many elements.
pub(super) fn gather(
    geometry: &Geometry,
    wide: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    count: usize,
) -> Vec<f32> {
    let mut narrow = filled(bias, geometry.narrow_plane(), count);
    if geometry.is_empty() {
        return narrow;
    }
    match direct::is_direct(geometry) {
        true => direct::gather(geometry, wide, weight, &mut narrow),
        false => dense::gather(geometry, wide, weight, bias.is_some(), &mut narrow),
    }
    narrow
}

/// The transposed convolution of the narrow side, and a bias for each channel: so many elements.
pub(super) fn scatter(
    geometry: &Geometry,
    narrow: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    count: usize,
) -> Vec<f32> {
    let mut wide = filled(bias, geometry.wide_plane(), count);
    if geometry.is_empty() {
        return wide;
    }
    match direct::is_direct(geometry) {
        true => direct::scatter(geometry, narrow, weight, &mut wide),
        false => dense::scatter(geometry, narrow, weight, &mut wide),
    }
    wide
}

/// The gradient of the weights, from that of one side and the values of the other.
pub(super) fn correlate(
    geometry: &Geometry,
    wide: &[f32],
    narrow: &[f32],
    count: usize,
) -> Vec<f32> {
    let mut weight = vec![0.0; count];
    if geometry.is_empty() {
        return weight;
    }
    match direct::is_direct(geometry) {
        true => direct::correlate(geometry, wide, narrow, &mut weight),
        false => dense::correlate(geometry, wide, narrow, &mut weight),
    }
    weight
}

/// The sum over each channel: the gradient of a bias.
pub(super) fn channel_sums(values: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; channels];
    if channels > 0 && plane > 0 {
        for image in values.chunks(channels * plane) {
            for (sum, values) in sums.iter_mut().zip(image.chunks(plane)) {
                *sum += total(values);
            }
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// A sum that keeps the digits of fp32.
fn total(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f64; LANES];
    for chunk in chunks {
        let both = lanes.iter_mut().zip(chunk);
        both.for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(x)).sum();
    lanes.into_iter().sum::<f64>() + rest
}
