//! Random numbers: the distributions of MIL, not the sequences of Core ML, which nobody publishes.
//!
//! A run gives the same numbers each time, also where a program asks for no seed (−1): they come from the seed and the name of the
//! operation, so that two operations differ. In a loop an operation gives the same ones again.

use crate::axis::product as count;
use crate::call::{Args, Call, Fault, Outcome};
use crate::registry::{Def, op};
use palettizer_kernels::Random;

pub(super) const OPS: &[Def] = &[
    op("random_bernoulli", bernoulli),
    op("random_categorical", categorical),
    op("random_normal", normal),
    op("random_uniform", uniform),
];

/// The numbers of an operation.
fn source(args: &Args<'_>) -> Result<Random, Fault> {
    let seed = args.optional_int("seed")?.unwrap_or(-1);
    // FNV-1a of the name
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let name = args.op.name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    Ok(Random::stream(
        seed.cast_unsigned(),
        if seed < 0 { name } else { 0 },
    ))
}

/// A tensor of the shape that was asked for, each element by itself.
fn filled(call: &mut Call<'_>, mut draw: impl FnMut(&mut Random) -> f64) -> Outcome {
    let dims = call.ints("shape")?;
    let shape = dims
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| format!("shape is {dims:?}; expected sizes"))?;
    let mut random = source(call)?;
    let mut values: Vec<f32> = call.zeros(&shape)?;
    values
        .iter_mut()
        .for_each(|value| *value = draw(&mut random) as f32);
    call.output(&shape, values)
}

fn bernoulli(call: &mut Call<'_>) -> Outcome {
    let p = f64::from(call.float_or("prob", 0.5)?);
    filled(call, |random| f64::from(u8::from(random.unit() < p)))
}

fn normal(call: &mut Call<'_>) -> Outcome {
    let (mean, deviation) = (call.float_or("mean", 0.0)?, call.float_or("stddev", 1.0)?);
    filled(call, |random| {
        f64::from(mean) + f64::from(deviation) * random.normal()
    })
}

fn uniform(call: &mut Call<'_>) -> Outcome {
    let (low, high) = (call.float_or("low", 0.0)?, call.float_or("high", 1.0)?);
    // what rounds up to the bound is not below it
    let below = if high > low { high.next_down() } else { high };
    filled(call, |random| {
        let value = f64::from(low) + (f64::from(high) - f64::from(low)) * random.unit();
        value.min(f64::from(below))
    })
}

/// Draws from the distributions along the last axis, with replacement.
fn categorical(call: &mut Call<'_>) -> Outcome {
    let size = call.optional_int("size")?.unwrap_or(1);
    let size = usize::try_from(size).map_err(|_| format!("size is {size}; expected 0 or more"))?;
    let logits = match call.text("mode")?.unwrap_or("logits") {
        "logits" => true,
        "probs" => false,
        other => return Err(format!("mode is \"{other}\"; expected logits or probs").into()),
    };
    let shape = call.tensor("x")?.shape().to_vec();
    let Some((&classes, outer)) = shape.split_last().filter(|(classes, _)| **classes > 0) else {
        return Err(format!(
            "x has the shape {shape:?}; expected one class or more along the last axis"
        )
        .into());
    };
    let mut random = source(call)?;
    let wide: Vec<usize> = outer.iter().copied().chain([size]).collect();
    let mut out: Vec<f32> = call.zeros(&wide)?;
    let x = call.floats("x")?;
    for row in 0..count(outer) {
        let row_of = &x[row * classes..][..classes];
        let most = row_of.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        let sums: Vec<f64> = row_of
            .iter()
            .map(|&x| {
                sum += if logits {
                    f64::from(x - most).exp()
                } else {
                    f64::from(x).max(0.0)
                };
                sum
            })
            .collect();
        for out in &mut out[row * size..][..size] {
            let drawn = random.unit() * sum;
            *out = sums.partition_point(|&sum| sum <= drawn).min(classes - 1) as f32;
        }
    }
    call.output(&wide, out)
}
