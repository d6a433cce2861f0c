//! `constexpr_affine_dequantize`: the iOS16 form of a quantized weight.

use super::blocks::runs;
use super::{DenseError, Float, Source, count, room};
use crate::tensor::from_front;

/// Scale and zero point of a quantized weight: each one number, or one for each element of the axis.
///
/// ```
/// use palettizer_palette::decode::Affine;
///
/// let params = Affine { scale: &[0.5_f32], zero_point: &[1_u8, 2], axis: -1 };
/// assert_eq!(params.zero_point.len(), 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a, S, Z> {
    /// One scale, or one for each element of the axis.
    pub scale: &'a [S],
    /// One zero point, or one for each element of the axis.
    pub zero_point: &'a [Z],
    /// The axis, from the end when negative.
    pub axis: i64,
}

/// scale · (data − zero point), in `f32`, rounded once to the type of the scale.
///
/// `data` is row-major of `shape`.
///
/// # Errors
/// A [`DenseError`] when the axis or a length does not fit.
///
/// ```
/// use palettizer_palette::decode::{Affine, affine_dequantize};
///
/// let params = Affine { scale: &[0.5_f32], zero_point: &[1_u8, 2], axis: 1 };
/// assert_eq!(affine_dequantize(&[3_u8, 4, 5, 6], &[2, 2], &params)?, [1.0, 1.0, 2.0, 2.0]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn affine_dequantize<D: Source, S: Float, Z: Source>(
    data: &[D],
    shape: &[usize],
    params: &Affine<'_, S, Z>,
) -> Result<Vec<S>, DenseError> {
    let (axis, rank) = (params.axis, shape.len());
    let axis = from_front(axis, rank).ok_or(DenseError::Axis { axis, rank })?;
    super::check_length("data", count(shape)?, data.len())?;
    let dim = shape[axis];
    for (what, found) in [
        ("scale", params.scale.len()),
        ("zero_point", params.zero_point.len()),
    ] {
        if found != 1 && found != dim {
            return Err(DenseError::Length {
                what,
                expected: dim,
                found,
            });
        }
    }
    let mut blocks = vec![1; rank];
    blocks[axis] = dim.max(1);
    let mut out = room(data.len())?;
    if data.is_empty() {
        return Ok(out);
    }
    for run in runs("scale", shape, &blocks)? {
        let pick = |len: usize| if len == 1 { 0 } else { run.block };
        let scale = params.scale[pick(params.scale.len())].to_f32();
        let zero = params.zero_point[pick(params.zero_point.len())].to_f32();
        let data = &data[run.start..][..run.len];
        out.extend(
            data.iter()
                .map(|d| S::from_f32_rounded((d.to_f32() - zero) * scale)),
        );
    }
    Ok(out)
}
