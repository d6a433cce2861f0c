//! `constexpr_blockwise_shift_scale`: scale · (data − offset), block by block.

use super::blocks::{Runs, runs};
use super::{DenseError, Float, Source, check_length, count, room};

/// scale · (data − offset) with one scale, and one offset, for each block.
///
/// `data` has `shape`; `scale`, and `offset` if there is one, have `scale_shape`, of the same rank, each of whose
/// axes divides that of `shape`. Data and offset are first rounded to the type of the scale, then the difference is,
/// then the product: what NumPy does. An `f32` offset of a narrower scale is subtracted in `f32`.
///
/// # Errors
/// A [`DenseError`] when shapes or lengths do not fit.
///
/// ```
/// use palettizer_palette::decode::shift_scale;
///
/// let out = shift_scale(&[1_i8, 2, 3, 4], &[2, 2], &[0.5_f32, 2.0], &[2, 1], Some(&[0_i8, 1]))?;
/// assert_eq!(out, [0.5, 1.0, 4.0, 6.0]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn shift_scale<D: Source, S: Float, O: Source>(
    data: &[D],
    shape: &[usize],
    scale: &[S],
    scale_shape: &[usize],
    offset: Option<&[O]>,
) -> Result<Vec<S>, DenseError> {
    if shape.is_empty() {
        return Err(DenseError::Rank {
            what: "data",
            expected: 1,
            found: 0,
        });
    }
    check_length("data", count(shape)?, data.len())?;
    let runs = scaled_runs(shape, scale, scale_shape, offset)?;
    let mut out = room(data.len())?;
    for run in runs {
        let scale = scale[run.block].to_f32();
        let data = &data[run.start..][..run.len];
        match offset {
            None => out.extend(data.iter().map(|d| product::<S>(scale, round::<D, S>(*d)))),
            Some(offset) => {
                let offset = offset[run.block];
                out.extend(
                    data.iter()
                        .map(|d| product::<S>(scale, difference::<D, S, O>(*d, offset))),
                );
            }
        }
    }
    Ok(out)
}

/// The runs of a tensor with one scale, and one offset, each; the numbers of these are checked.
pub(super) fn scaled_runs<S, O>(
    shape: &[usize],
    scale: &[S],
    scale_shape: &[usize],
    offset: Option<&[O]>,
) -> Result<Runs, DenseError> {
    let runs = runs("scale", shape, scale_shape)?;
    let blocks = count(scale_shape)?;
    check_length("scale", blocks, scale.len())?;
    if let Some(offset) = offset {
        check_length("offset", blocks, offset.len())?;
    }
    Ok(runs)
}

/// A stored number in the type of the scale.
fn round<D: Source, S: Float>(value: D) -> f32 {
    S::from_f32_rounded(value.to_f32()).to_f32()
}

/// data − offset, in the type of the scale or in that of the offset if it is wider.
fn difference<D: Source, S: Float, O: Source>(data: D, offset: O) -> f32 {
    let data = round::<D, S>(data);
    if O::WIDE {
        data - offset.to_f32()
    } else {
        S::from_f32_rounded(data - round::<O, S>(offset)).to_f32()
    }
}

fn product<S: Float>(scale: f32, value: f32) -> S {
    S::from_f32_rounded(scale * value)
}
