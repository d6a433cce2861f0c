//! Quantized activations: floats to 8-bit integers and back, by a scale and a zero point for all or for each position of an axis.

use crate::axis::Around;
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use crate::tensor::Dtype;

pub(super) const OPS: &[Def] = &[
    differentiable("quantize", quantize, quantize_backward),
    differentiable("dequantize", dequantize, dequantize_backward),
];

/// Scales and zero points, one for all or one for each position of an axis.
struct Affine {
    scale: Vec<f32>,
    zero_point: Vec<i64>,
    /// Elements that have the same ones, and how many positions the axis has.
    after: usize,
    positions: usize,
}

impl Affine {
    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let shape = args.tensor("input")?.shape();
        let scale = args.floats("scale")?.to_vec();
        let zero_point = args.optional_ints("zero_point")?.unwrap_or_else(|| vec![0]);
        let around = match args.optional_int("axis")? {
            Some(_) if !shape.is_empty() => {
                Around::axis(shape, args.axis_or("axis", 0, shape.len())?)
            }
            _ => Around {
                before: 1,
                dim: 1,
                after: args.tensor("input")?.len(),
            },
        };
        for (param, found) in [("scale", scale.len()), ("zero_point", zero_point.len())] {
            if found != 1 && found != around.dim {
                return Err(format!(
                    "{param} has {found} elements; expected 1, or {} for the axis",
                    around.dim
                )
                .into());
            }
        }
        Ok(Affine {
            scale,
            zero_point,
            after: around.after.max(1),
            positions: around.dim.max(1),
        })
    }

    /// The scale and the zero point of a block of `after` elements.
    fn at(&self, block: usize) -> (f32, i64) {
        let position = block % self.positions;
        (
            self.scale[position % self.scale.len()],
            self.zero_point[position % self.zero_point.len()],
        )
    }
}

/// The least and the greatest level.
fn range(args: &Args<'_>) -> Result<(i64, i64), Fault> {
    let name = args.text("output_dtype")?.unwrap_or("int8");
    let dtype = Dtype::of_name(name).filter(|dtype| matches!(dtype, Dtype::I8 | Dtype::U8));
    let dtype =
        dtype.ok_or_else(|| format!("output_dtype is \"{name}\"; expected int8 or uint8"))?;
    Ok(dtype.int_range())
}

/// `round(input / scale) + zero_point`, ties to even, of any size.
fn level(x: f32, (scale, zero_point): (f32, i64)) -> i64 {
    ((x / scale).round_ties_even() as i64).saturating_add(zero_point)
}

/// `clip(round(input / scale) + zero_point)`.
fn quantize(call: &mut Call<'_>) -> Outcome {
    let (least, most) = range(call)?;
    let affine = Affine::of(call)?;
    let input = call.floats("input")?;
    let shape = call.tensor("input")?.shape().to_vec();
    let mut out: Vec<i32> = call.zeros(&shape)?;
    let blocks = out
        .chunks_mut(affine.after)
        .zip(input.chunks(affine.after))
        .enumerate();
    for (block, (out, input)) in blocks {
        let affine = affine.at(block);
        out.iter_mut()
            .zip(input)
            .for_each(|(out, &x)| *out = level(x, affine).clamp(least, most) as i32);
    }
    call.output(&shape, out)
}

/// Straight through where nothing is clipped (as torch's `fake_quantize_per_tensor_affine`): `slope / scale`, which
/// `dequantize` made of the slope of what it gave.
fn quantize_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (least, most) = range(call)?;
    let affine = Affine::of(call)?;
    let mut gradient = call.upstream()?.to_vec();
    let blocks = gradient
        .chunks_mut(affine.after)
        .zip(call.floats("input")?.chunks(affine.after))
        .enumerate();
    for (block, (gradient, input)) in blocks {
        let affine = affine.at(block);
        for (slope, &x) in gradient.iter_mut().zip(input) {
            let kept = (least..=most).contains(&level(x, affine));
            *slope = if kept { *slope / affine.0 } else { 0.0 };
        }
    }
    Ok(vec![("input", 0, gradient)])
}

/// `scale · (input − zero_point)`.
fn dequantize(call: &mut Call<'_>) -> Outcome {
    let affine = Affine::of(call)?;
    let tensor = call.tensor("input")?;
    let input = tensor
        .ints()
        .ok_or_else(|| wrong("input", tensor, "int8 or uint8"))?;
    let shape = tensor.shape().to_vec();
    let mut out: Vec<f32> = call.zeros(&shape)?;
    let blocks = out
        .chunks_mut(affine.after)
        .zip(input.chunks(affine.after))
        .enumerate();
    for (block, (out, input)) in blocks {
        let (scale, zero_point) = affine.at(block);
        out.iter_mut()
            .zip(input)
            .for_each(|(out, &x)| *out = scale * (i64::from(x) - zero_point) as f32);
    }
    call.output(&shape, out)
}

/// The gradients of the scales, and of levels.
fn dequantize_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let affine = Affine::of(call)?;
    let tensor = call.tensor("input")?;
    let input = tensor
        .ints()
        .ok_or_else(|| wrong("input", tensor, "int8 or uint8"))?;
    let mut sums = vec![0.0f64; affine.scale.len()];
    let mut levels = call.upstream()?.to_vec();
    for (block, levels) in levels.chunks_mut(affine.after).enumerate() {
        let (scale, _) = affine.at(block);
        levels.iter_mut().for_each(|slope| *slope *= scale);
    }
    let blocks = call
        .upstream()?
        .chunks(affine.after)
        .zip(input.chunks(affine.after))
        .enumerate();
    for (block, (upstream, input)) in blocks {
        let (_, zero_point) = affine.at(block);
        let flow = upstream
            .iter()
            .zip(input)
            .map(|(&slope, &x)| f64::from(slope) * (i64::from(x) - zero_point) as f64);
        let at = block % affine.positions % sums.len();
        sums[at] += flow.sum::<f64>();
    }
    let sums = sums.iter().map(|&sum| sum as f32).collect();
    Ok(vec![("scale", 0, sums), ("input", 0, levels)])
}
