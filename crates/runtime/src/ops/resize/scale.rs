//! Axes of an image made longer or shorter, one after the other.

use super::grid::{Sampling, sampling, scaled};
use crate::axis::{Around, given_back, taken};
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{each_kind, in_parts};
use crate::grad::{Backward, Gradients};
use crate::ops::shape::shown;
use crate::ops::slice::cropped;
use crate::tensor::element_count;
use crate::view::View;

/// An axis, how long it becomes, and what each of its new positions is made of.
struct Step<T> {
    axis: usize,
    table: Vec<T>,
}

/// Two positions, and the share of the second.
#[derive(Clone, Copy)]
struct Pair {
    first: usize,
    second: usize,
    share: f32,
}

/// The last two axes of `x`, which must have more.
fn plane(args: &Args<'_>) -> Result<[usize; 2], Fault> {
    let shape = args.tensor("x")?.shape();
    match *shape {
        [.., _, h, w] => Ok([h, w]),
        _ => Err(format!("x has the shape {shape:?}; expected three dimensions or more").into()),
    }
}

/// The last two axes scaled: by the declared shape if that is what the factors lead to, for they were rounded.
fn scaled_plane(args: &Args<'_>) -> Result<[usize; 2], Fault> {
    let old = plane(args)?;
    let mut new = [0; 2];
    let declared = args
        .declared(0)
        .and_then(|declared| declared.shape.as_deref());
    for (at, param) in ["scale_factor_height", "scale_factor_width"]
        .into_iter()
        .enumerate()
    {
        let factor = args.float_or(param, 1.0)?;
        let exact = f64::from(factor) * old[at] as f64;
        if !(factor > 0.0 && exact < (1u64 << 32) as f64) {
            return Err(format!("{param} is {factor}; expected a factor above 0").into());
        }
        let known = declared.and_then(|shape| *shape.get(shape.len().checked_sub(2 - at)?)?);
        let known = known.filter(|&dim| (dim as f64 - exact).abs() < 1.0);
        new[at] = known.unwrap_or((factor * old[at] as f32).floor() as usize);
    }
    Ok(new)
}

/// The last two axes, of the lengths that the program says.
fn target_plane(args: &Args<'_>, default: Option<i64>) -> Result<[usize; 2], Fault> {
    let mut new = [0; 2];
    for (new, param) in new
        .iter_mut()
        .zip(["target_size_height", "target_size_width"])
    {
        let size = args.optional_int(param)?.or(default);
        let size = size.ok_or_else(|| format!("parameter {param} is missing"))?;
        *new = usize::try_from(size)
            .map_err(|_| format!("{param} is {size}; expected none below 0"))?;
    }
    Ok(new)
}

/// The shape of `x` with other last axes.
fn with_last(args: &Args<'_>, last: &[usize]) -> Result<Vec<usize>, Fault> {
    let shape = args.tensor("x")?.shape();
    let kept = shape
        .len()
        .checked_sub(last.len())
        .ok_or("x has fewer dimensions than are resized")?;
    Ok([&shape[..kept], last].concat())
}

/// Tables for the last axes, of which so many are resized; those that become shorter come first. An axis that stays as long as it
/// is stays as it is, unless `all`. There is nothing to do if there is nothing to be made.
fn steps<T>(
    args: &Args<'_>,
    new: &[usize],
    resized: usize,
    all: bool,
    table: impl Fn(usize, usize) -> Vec<T>,
) -> Result<Vec<Step<T>>, Fault> {
    let old = args.tensor("x")?.shape();
    if element_count(new) == Some(0) {
        return Ok(Vec::new());
    }
    let mut axes: Vec<usize> = (new.len().saturating_sub(resized)..new.len()).collect();
    axes.retain(|&axis| all || old[axis] != new[axis]);
    if let Some(axis) = axes.iter().find(|&&axis| old[axis] == 0) {
        return Err(format!("axis {axis} of x has no positions to be made more").into());
    }
    axes.sort_by(|&one, &other| {
        let growth = |axis: usize| new[axis] as f64 / old[axis] as f64;
        growth(one).total_cmp(&growth(other))
    });
    let steps = axes.into_iter().map(|axis| Step {
        axis,
        table: table(old[axis], new[axis]),
    });
    Ok(steps.collect())
}

/// The shapes before each step.
fn shapes<T>(x: &[usize], steps: &[Step<T>]) -> Vec<Vec<usize>> {
    let mut now = x.to_vec();
    let shapes = steps.iter().map(|step| {
        let before = now.clone();
        now[step.axis] = step.table.len();
        before
    });
    shapes.collect()
}

type Axes = Vec<Step<usize>>;

fn nearest(call: &mut Call<'_>, shape: &[usize], steps: &Axes) -> Outcome {
    let count = call.count(shape)?;
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let (mut elements, x) = call.take::<T>("x")?;
        for (step, before) in steps.iter().zip(shapes(&x, steps)) {
            elements = taken(&elements, Around::axis(&before, step.axis), &step.table, 1);
        }
        elements.truncate(count);
        call.output(shape, elements)
    })
}

fn nearest_backward(call: &Backward<'_>, steps: &Axes) -> Result<Gradients, Fault> {
    let x = call.tensor("x")?;
    let shapes = shapes(x.shape(), steps);
    let back = steps.iter().zip(&shapes).rev();
    let gradient = back.fold(call.upstream()?.to_vec(), |gradient, (step, before)| {
        given_back(&gradient, Around::axis(before, step.axis), &step.table, 1)
    });
    Ok(vec![("x", 0, or_zeros(gradient, x.len()))])
}

/// A gradient; zeros where nothing was made, and nothing flows.
fn or_zeros(gradient: Vec<f32>, elements: usize) -> Vec<f32> {
    if gradient.len() == elements {
        gradient
    } else {
        vec![0.0; elements]
    }
}

/// The positions of the nearest neighbours where all points lie at the beginning of their part of the axis.
fn floors(old: usize, new: usize) -> Vec<usize> {
    (0..new)
        .map(|at| scaled(at as u128, old, new as u128))
        .collect()
}

/// Refuses a result that does not fit into memory, and one whose tables of positions do not, before these are made.
fn fits(call: &Call<'_>, shape: &[usize]) -> Result<(), Fault> {
    call.count(shape)?;
    shape
        .iter()
        .try_for_each(|&dim| call.count(&[dim, 2]).map(drop))
}

fn upsampled(args: &Args<'_>) -> Result<(Vec<usize>, Axes), Fault> {
    let shape = with_last(args, &scaled_plane(args)?)?;
    let steps = steps(args, &shape, 2, false, floors)?;
    Ok((shape, steps))
}

pub(super) fn upsample_nearest(call: &mut Call<'_>) -> Outcome {
    fits(call, &with_last(call, &scaled_plane(call)?)?)?;
    let (shape, steps) = upsampled(call)?;
    nearest(call, &shape, &steps)
}

pub(super) fn upsample_nearest_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    nearest_backward(call, &upsampled(call)?.1)
}

fn to_target(args: &Args<'_>) -> Result<(Vec<usize>, Axes), Fault> {
    plane(args)?;
    let shape = with_last(args, &target_plane(args, None)?)?;
    let steps = steps(args, &shape, 2, false, |old, new| {
        Sampling::Default.nearest(new, old)
    })?;
    Ok((shape, steps))
}

pub(super) fn resize_nearest(call: &mut Call<'_>) -> Outcome {
    fits(call, &with_last(call, &target_plane(call, None)?)?)?;
    let (shape, steps) = to_target(call)?;
    nearest(call, &shape, &steps)
}

pub(super) fn resize_nearest_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    nearest_backward(call, &to_target(call)?.1)
}

/// What each new position of an axis lies between.
fn pairs(mode: Sampling, old: usize, new: usize) -> Vec<Pair> {
    let pair = |at: usize| {
        let position = mode
            .position(at, new, old)
            .clamp(0.0, old.saturating_sub(1) as f64);
        let first = position.floor();
        Pair {
            first: first as usize,
            second: (first as usize + 1).min(old.saturating_sub(1)),
            share: (position - first) as f32,
        }
    };
    (0..new).map(pair).collect()
}

/// One axis interpolated.
fn blended(values: &[f32], Around { before, dim, after }: Around, table: &[Pair]) -> Vec<f32> {
    let len = table.len();
    let mut out = vec![0f32; element_count(&[before, len, after]).unwrap_or(0)];
    in_parts(&mut out, len.saturating_mul(after), |(block, out)| {
        let values = &values[block * dim * after..][..dim * after];
        if after == 1 {
            for (out, pair) in out.iter_mut().zip(table) {
                *out = blend(values[pair.first], values[pair.second], pair.share);
            }
            return;
        }
        for (out, pair) in out.chunks_exact_mut(after).zip(table) {
            let first = &values[pair.first * after..][..after];
            if pair.share == 0.0 {
                out.copy_from_slice(first);
                continue;
            }
            let second = &values[pair.second * after..][..after];
            for (out, (&first, &second)) in out.iter_mut().zip(first.iter().zip(second)) {
                *out = first * (1.0 - pair.share) + second * pair.share;
            }
        }
    });
    out
}

/// Nothing of the second where it has no share, be it infinite.
fn blend(first: f32, second: f32, share: f32) -> f32 {
    if share == 0.0 {
        first
    } else {
        first * (1.0 - share) + second * share
    }
}

/// The gradient of [`blended`].
fn unblended(gradient: &[f32], Around { before, dim, after }: Around, table: &[Pair]) -> Vec<f32> {
    let len = table.len();
    let mut sums = vec![0f32; element_count(&[before, dim, after]).unwrap_or(0)];
    if gradient.is_empty() {
        return sums;
    }
    in_parts(&mut sums, dim * after, |(block, sums)| {
        let gradient = &gradient[block * len * after..][..len * after];
        for (gradient, pair) in gradient.chunks_exact(after).zip(table) {
            for (position, share) in [(pair.first, 1.0 - pair.share), (pair.second, pair.share)] {
                let sums = &mut sums[position * after..][..after];
                sums.iter_mut()
                    .zip(gradient)
                    .for_each(|(sum, more)| *sum += share * more);
            }
        }
    });
    sums
}

/// The new shape, how many of its axes are resized, and how.
struct Linear {
    shape: Vec<usize>,
    resized: usize,
    mode: Sampling,
}

impl Linear {
    fn steps(&self, args: &Args<'_>) -> Result<Vec<Step<Pair>>, Fault> {
        // points that lie off the corners lie off all positions
        let all = self.mode == Sampling::OffsetCorners;
        let table = |old, new| pairs(self.mode, old, new);
        steps(args, &self.shape, self.resized, all, table)
    }

    fn run(&self, call: &mut Call<'_>) -> Outcome {
        let count = call.count(&self.shape)?;
        let steps = self.steps(call)?;
        let (mut elements, x) = call.take::<f32>("x")?;
        for (step, before) in steps.iter().zip(shapes(&x, &steps)) {
            elements = blended(&elements, Around::axis(&before, step.axis), &step.table);
        }
        elements.truncate(count);
        call.output(&self.shape, elements)
    }

    /// The same for integers, rounded.
    fn run_rounded(&self, call: &mut Call<'_>) -> Outcome {
        let count = call.count(&self.shape)?;
        let steps = self.steps(call)?;
        let (elements, x) = call.take::<i32>("x")?;
        let mut elements: Vec<f32> = elements.into_iter().map(|value| value as f32).collect();
        for (step, before) in steps.iter().zip(shapes(&x, &steps)) {
            elements = blended(&elements, Around::axis(&before, step.axis), &step.table);
        }
        elements.truncate(count);
        let rounded = elements.iter().map(|value| value.round_ties_even() as i32);
        call.output(&self.shape, rounded.collect::<Vec<i32>>())
    }

    fn backward(&self, call: &Backward<'_>) -> Result<Gradients, Fault> {
        let steps = self.steps(call)?;
        let x = call.tensor("x")?;
        let shapes = shapes(x.shape(), &steps);
        let back = steps.iter().zip(&shapes).rev();
        let gradient = back.fold(call.upstream()?.to_vec(), |gradient, (step, before)| {
            unblended(&gradient, Around::axis(before, step.axis), &step.table)
        });
        Ok(vec![("x", 0, or_zeros(gradient, x.len()))])
    }
}

/// The mode of `upsample_bilinear`; since iOS 16 the points may lie in the middle of their pixels whatever the corners do.
fn upsampled_linear(args: &Args<'_>) -> Result<Linear, Fault> {
    let align = args.bool_or("align_corners", true)?;
    let mode = match (align, args.bool_or("half_pixel_centers", !align)?) {
        (true, false) => Sampling::StrictAlignCorners,
        (false, true) => Sampling::UnalignCorners,
        (false, false) => Sampling::Default,
        (true, true) => return Err("align_corners and half_pixel_centers are both true".into()),
    };
    Ok(Linear {
        shape: with_last(args, &scaled_plane(args)?)?,
        resized: 2,
        mode,
    })
}

pub(super) fn upsample_linear(call: &mut Call<'_>) -> Outcome {
    upsampled_linear(call)?.run(call)
}

pub(super) fn upsample_linear_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    upsampled_linear(call)?.backward(call)
}

fn resized_linear(args: &Args<'_>) -> Result<Linear, Fault> {
    plane(args)?;
    Ok(Linear {
        shape: with_last(args, &target_plane(args, Some(1))?)?,
        resized: 2,
        mode: sampling(args)?,
    })
}

pub(super) fn resize_linear(call: &mut Call<'_>) -> Outcome {
    resized_linear(call)?.run(call)
}

pub(super) fn resize_linear_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    resized_linear(call)?.backward(call)
}

/// The last `resized_dims` numbers of `shape` are those of `x`; a 0 leaves an axis as it is.
fn resized(args: &Args<'_>) -> Result<(Linear, bool), Fault> {
    let (x, wanted) = (args.tensor("x")?.shape(), args.ints("shape")?);
    let count = args.int("resized_dims")?;
    let fits = usize::try_from(count).ok();
    let count = fits.filter(|&count| count <= wanted.len() && wanted.len() <= x.len());
    let count = count.ok_or_else(|| {
        format!(
            "resized_dims is {fits:?}, shape {wanted:?}, and x has {} dimensions",
            x.len()
        )
    })?;
    let mut shape = x.to_vec();
    for (at, &dim) in wanted[wanted.len() - count..].iter().enumerate() {
        if dim != 0 {
            let dim = usize::try_from(dim);
            shape[x.len() - count + at] =
                dim.map_err(|_| format!("shape is {wanted:?}; expected none below 0"))?;
        }
    }
    let linear = match args.text("interpolation_mode")? {
        None | Some("LINEAR") => true,
        Some("NEAREST_NEIGHBOR") => false,
        Some(other) => {
            return Err(format!(
                "interpolation_mode is \"{other}\"; expected LINEAR or NEAREST_NEIGHBOR"
            )
            .into());
        }
    };
    let mode = sampling(args)?;
    Ok((
        Linear {
            shape,
            resized: count,
            mode,
        },
        linear,
    ))
}

fn resized_nearest(
    args: &Args<'_>,
    Linear {
        shape,
        resized,
        mode,
    }: &Linear,
) -> Result<Axes, Fault> {
    let all = *mode == Sampling::OffsetCorners;
    steps(args, shape, *resized, all, |old, new| {
        mode.nearest(new, old)
    })
}

pub(super) fn resize(call: &mut Call<'_>) -> Outcome {
    let (resized, linear) = resized(call)?;
    fits(call, &resized.shape)?;
    if !linear {
        let steps = resized_nearest(call, &resized)?;
        return nearest(call, &resized.shape, &steps);
    }
    if call.tensor("x")?.dtype().is_int() {
        return resized.run_rounded(call);
    }
    resized.run(call)
}

pub(super) fn resize_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (resized, linear) = resized(call)?;
    if linear {
        return resized.backward(call);
    }
    nearest_backward(call, &resized_nearest(call, &resized)?)
}

/// The view of `x` that `crop` leaves.
fn inside(args: &Args<'_>) -> Result<View, Fault> {
    let margins = |param: &str| -> Result<[i64; 2], Fault> {
        let found = args.ints(param)?;
        <[i64; 2]>::try_from(found.as_slice())
            .map_err(|_| format!("{param} is {found:?}; expected two numbers").into())
    };
    cropped(
        args.tensor("x")?.shape(),
        [margins("crop_height")?, margins("crop_width")?],
    )
}

pub(super) fn crop(call: &mut Call<'_>) -> Outcome {
    shown(call, &inside(call)?)
}

pub(super) fn crop_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let mut gradient = vec![0.0; call.tensor("x")?.len()];
    inside(call)?.write(&mut gradient, call.upstream()?);
    Ok(vec![("x", 0, gradient)])
}
