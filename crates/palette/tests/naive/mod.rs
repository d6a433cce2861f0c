//! Short and obviously right twins, and random weights.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod check;

use half::{bf16, f16};
use palettizer_palette::{
    Context, Dtype, Granularity, Lut, LutDtype, Mode, Nbits, Palette, PaletteSpec,
};
use proptest::prelude::*;

/// A weight of which nothing is known but the axis of its output channels.
pub fn on(output_axis: Option<usize>) -> Context<'static> {
    Context {
        output_axis,
        ..Context::default()
    }
}

/// One element of a dtype, widened.
pub fn read(dtype: Dtype, bytes: &[u8], at: usize) -> f64 {
    let b = &bytes[at * dtype.size()..][..dtype.size()];
    match dtype {
        Dtype::F16 => f16::from_le_bytes([b[0], b[1]]).to_f64(),
        Dtype::BF16 => bf16::from_le_bytes([b[0], b[1]]).to_f64(),
        Dtype::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        Dtype::I8 => f64::from(b[0] as i8),
        Dtype::U8 => f64::from(b[0]),
    }
}

/// Appends the nearest element of a dtype.
pub fn write(dtype: Dtype, value: f64, out: &mut Vec<u8>) {
    match dtype {
        Dtype::F16 => out.extend(f16::from_f64(value).to_le_bytes()),
        Dtype::BF16 => out.extend(bf16::from_f64(value).to_le_bytes()),
        Dtype::F32 => out.extend((value as f32).to_le_bytes()),
        Dtype::I8 => out.extend((value as i8).to_le_bytes()),
        Dtype::U8 => out.push(value as u8),
    }
}

pub fn encode(dtype: Dtype, values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|&v| write(dtype, v, &mut out));
    out
}

fn round(dtype: Dtype, value: f64) -> f64 {
    read(dtype, &encode(dtype, &[value]), 0)
}

pub fn bit(bytes: &[u8], at: usize) -> bool {
    bytes[at / 8] >> (at % 8) & 1 == 1
}

pub fn coordinates(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut out = vec![0; shape.len()];
    for (c, d) in out.iter_mut().zip(shape).rev() {
        *c = flat % d;
        flat /= d;
    }
    out
}

pub fn flat(coordinates: &[usize], shape: &[usize]) -> usize {
    coordinates.iter().zip(shape).fold(0, |n, (c, d)| n * d + c)
}

/// What one element of a palettized weight is, by the definitions of the ops, element by element.
pub fn element(palette: &Palette, at: usize) -> f64 {
    let dtype = palette.dtype;
    if palette.mask.as_ref().is_some_and(|mask| !bit(mask, at)) {
        return 0.0;
    }
    let place = coordinates(at, &palette.shape);
    let rank = place.len();
    let vector = palette.lut_shape[rank + 1];
    let mut place_of_index = place.clone();
    let mut lane = 0;
    if let Some(axis) = palette.vector_axis {
        lane = place[axis] % vector;
        place_of_index[axis] /= vector;
    }
    let mut number = flat(&place_of_index, &palette.index_shape);
    if let Some(mask) = &palette.mask {
        number = (0..number).filter(|&i| bit(mask, i)).count();
    }
    let bits = palette.nbits.bits() as usize;
    let index: usize = (0..bits)
        .map(|b| usize::from(bit(&palette.indices, number * bits + b)) << b)
        .sum();
    let groups = &palette.lut_shape[..rank];
    let group: Vec<usize> = (0..rank)
        .map(|a| place_of_index[a] / (palette.index_shape[a] / groups[a]))
        .collect();
    let group = flat(&group, groups);
    let entry = (group * palette.nbits.entries() + index) * vector + lane;
    let value = match &palette.lut {
        Lut::Float(bytes) => read(dtype, bytes, entry),
        Lut::Quantized {
            dtype: int,
            data,
            scale,
            offset,
            ..
        } => {
            let zero = offset.as_ref().map_or(0.0, |o| f64::from(o[group]));
            round(
                dtype,
                read(dtype, scale, group) * (read(*int, data, entry) - zero),
            )
        }
    };
    match &palette.scale {
        None => value,
        Some(scale) => {
            let axis = scale.shape.iter().position(|&d| d > 1);
            let channel = axis.map_or(0, |axis| place[axis]);
            round(dtype, read(dtype, &scale.bytes, channel) * value)
        }
    }
}

/// Numbers that look random, the same ones for the same seed.
pub fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A weight that looks like one: bell-shaped, with rows of different size; integers span their range.
pub fn weight(dtype: Dtype, count: usize, row: usize, seed: u64) -> Vec<u8> {
    let mut next = random(seed);
    let values: Vec<f64> = (0..count)
        .map(|at| {
            let bell = (0..6).map(|_| next()).sum::<f64>() - 3.0;
            match dtype {
                Dtype::I8 => (bell * 50.0).round().clamp(-128.0, 127.0),
                Dtype::U8 => (bell * 50.0 + 128.0).round().clamp(0.0, 255.0),
                _ => bell * (1 + at / row % 4) as f64,
            }
        })
        .collect();
    encode(dtype, &values)
}

prop_compose! {
    /// Any spec; not all fit every weight.
    pub fn spec()(
        mode in prop_oneof![
            prop::sample::select(Nbits::ALL.to_vec()).prop_map(Mode::Kmeans),
            prop::sample::select(Nbits::ALL.to_vec()).prop_map(Mode::Uniform),
            Just(Mode::Unique),
        ],
        group in prop::option::of((1_usize..4, -2_i64..2)),
        cluster_dim in prop_oneof![2 => Just(1_usize), 1 => 2_usize..4],
        scale in any::<bool>(),
        lut_dtype in prop::sample::select(vec![LutDtype::Float, LutDtype::Int8, LutDtype::Uint8]),
    ) -> PaletteSpec {
        let spec = PaletteSpec::new(mode)
            .with_cluster_dim(cluster_dim)
            .with_per_channel_scale(scale)
            .with_lut_dtype(lut_dtype);
        match group {
            None => spec,
            Some((group_size, axis)) => spec.with_granularity(Granularity::PerGroupedChannel {
                group_size,
                channel_axis: Some(axis),
            }),
        }
    }
}
