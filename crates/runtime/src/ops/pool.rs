//! Poolings: the largest, mean or root of squares of each window.
//!
//! A window is combined in two steps, first its rows to one, which are long runs, then the elements of that row.

mod backward;
mod forward;

use super::window::{self, Axis, Windows};
use crate::call::{Args, Call, Fault, Outcome, wrong};
use crate::grad::{Backward, Gradients};
use crate::registry::{Def, differentiable};
use std::ops::Range;

pub(super) const OPS: &[Def] = &[
    differentiable(
        "avg_pool",
        |call| run(call, Kind::Average),
        |call| slope(call, Kind::Average),
    )
    .by_both(),
    differentiable(
        "l2_pool",
        |call| run(call, Kind::L2),
        |call| slope(call, Kind::L2),
    )
    .by_both(),
    differentiable(
        "max_pool",
        |call| run(call, Kind::Max),
        |call| slope(call, Kind::Max),
    )
    .by_both(),
];

/// What is made of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Average,
    L2,
    Max,
}

/// A pooling of planes.
struct Pooling {
    axes: [Axis; 3],
    /// For an average: what each position along each axis is divided by.
    counts: [Vec<f32>; 3],
}

impl Pooling {
    /// Elements of a plane that is pooled.
    fn input(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }

    /// Elements of a plane that it becomes.
    fn output(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }

    /// Where the rows of a plane begin that row `row` of the output is made of.
    fn rows(&self, row: usize) -> impl Iterator<Item = usize> + use<> {
        let [planes, rows, columns] = self.axes;
        let (depths, plane) = planes.taps(row / rows.output);
        let (heights, first) = rows.taps(row % rows.output);
        (plane..plane + depths.len()).flat_map(move |plane| {
            let rows = (first..first + heights.len()).map(move |at| plane * rows.input + at);
            rows.map(move |row| row * columns.input)
        })
    }

    /// What the average in a row of the output is divided by, and then each element.
    fn count(&self, row: usize) -> (f32, &[f32]) {
        let rows = self.axes[1].output;
        let [planes, heights, widths] = &self.counts;
        (planes[row / rows] * heights[row % rows], widths)
    }

    /// Pairs the elements of a row with the windows that they belong to.
    fn pairs(&self, mut call: impl FnMut(Pair)) {
        let axis = self.axes[2];
        if axis.output < axis.kernel {
            for window in 0..axis.output {
                let (taps, first) = axis.taps(window);
                call(Pair::Window(window, first..first + taps.len()));
            }
            return;
        }
        for tap in 0..axis.kernel {
            let (windows, first) = axis.hits(tap);
            if !windows.is_empty() {
                call(Pair::Tap(windows, first));
            }
        }
    }
}

/// Elements of a row and the windows that they belong to; as many at a time as possible.
enum Pair {
    /// An element of each of these windows, and which it is for the first; the next is a stride further.
    Tap(Range<usize>, usize),
    /// A window, and all of its elements.
    Window(usize, Range<usize>),
}

/// The elements that an average divides by, along an axis.
fn counts(axis: &Axis, exclude: bool) -> Vec<f32> {
    let count = |at: usize| {
        let counted = match exclude {
            true => axis.taps(at).0.len(),
            // what lies behind the padding does not count, as in torch
            false => {
                let end = axis.before + axis.input + axis.after;
                end.saturating_sub(at * axis.stride).min(axis.kernel)
            }
        };
        counted.max(1) as f32
    };
    (0..axis.output).map(count).collect()
}

/// The windows of a pooling, and the shape that it gives.
fn windows(call: &Args<'_>) -> Result<([Axis; 3], Vec<usize>), Fault> {
    let x = call.tensor("x")?;
    if !(3..=5).contains(&x.rank()) {
        return Err(wrong("x", x, "rank 3 to 5"));
    }
    if !call.has("kernel_sizes") {
        return Err("parameter kernel_sizes is missing".into());
    }
    let axes = x.rank() - 2;
    let kernel = window::numbers(call, "kernel_sizes", axes, 1)?;
    let ceil = call.bool_or("ceil_mode", false)?;
    let axes = Windows::of(call, axes)?.over(&x.shape()[2..], &kernel, ceil)?;
    match call.text("pad_type")? {
        Some("same") if ceil => return Err("ceil_mode does not go with pad_type \"same\"".into()),
        Some("custom") if ceil && axes.iter().any(|axis| axis.before != axis.after) => {
            return Err("ceil_mode does not go with padding that differs before and after".into());
        }
        _ => {}
    }
    let mut shape = x.shape()[..2].to_vec();
    shape.extend(axes.iter().map(|axis| axis.output));
    Ok((window::three(&axes)?, shape))
}

/// A pooling with these windows; all that it gives must fit into memory.
fn pooling(call: &Args<'_>, kind: Kind, axes: [Axis; 3]) -> Result<Pooling, Fault> {
    let exclude = kind == Kind::Average && call.bool_or("exclude_padding_from_average", false)?;
    let counts = axes.each_ref().map(|axis| counts(axis, exclude));
    Ok(Pooling { axes, counts })
}

fn run(call: &mut Call<'_>, kind: Kind) -> Outcome {
    let (axes, shape) = windows(call)?;
    let mut out = call.zeros(&shape)?;
    if !out.is_empty() {
        let pooling = pooling(call, kind, axes)?;
        forward::pool(&pooling, kind, call.floats("x")?, &mut out);
    }
    call.output(&shape, out)
}

fn slope(call: &Backward<'_>, kind: Kind) -> Result<Gradients, Fault> {
    let (axes, _) = windows(call)?;
    let (x, y, upstream) = (call.floats("x")?, call.output_floats(0)?, call.upstream()?);
    let mut gradient = vec![0.0; x.len()];
    if !x.is_empty() && !y.is_empty() {
        let pooling = pooling(call, kind, axes)?;
        backward::pool(&pooling, kind, x, y, upstream, &mut gradient);
    }
    Ok(vec![("x", 0, gradient)])
}
