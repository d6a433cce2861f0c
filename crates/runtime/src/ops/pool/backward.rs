//! Gradients of poolings.

use super::forward::is_larger;
use super::{Kind, Pair, Pooling};
use rayon::prelude::*;

/// Elements that are worth a piece of work.
const WORTH: usize = 1 << 16;

/// Adds the gradient of all planes.
pub(super) fn pool(
    pooling: &Pooling,
    kind: Kind,
    x: &[f32],
    y: &[f32],
    upstream: &[f32],
    gradient: &mut [f32],
) {
    let (input, output) = (pooling.input(), pooling.output());
    let given = y.par_chunks(output).zip(upstream.par_chunks(output));
    let planes = gradient.par_chunks_mut(input).zip(x.par_chunks(input));
    let planes = planes.zip(given).with_min_len(WORTH.div_ceil(input));
    planes.for_each(|((gradient, x), (y, upstream))| match kind {
        Kind::Max => largest(pooling, x, upstream, gradient),
        Kind::Average => spread(pooling, y, upstream, gradient, None),
        Kind::L2 => spread(pooling, y, upstream, gradient, Some(x)),
    });
}

/// To the largest element of each window; of equal ones the first, as in torch.
fn largest(pooling: &Pooling, x: &[f32], upstream: &[f32], gradient: &mut [f32]) {
    const NONE: usize = usize::MAX;
    let (width, stride) = (pooling.axes[2].output, pooling.axes[2].stride);
    let (mut most, mut places) = (vec![0.0; width], vec![NONE; width]);
    for (at, upstream) in upstream.chunks(width).enumerate() {
        places.fill(NONE);
        for start in pooling.rows(at) {
            let mut keep = |window: usize, element: usize| {
                let (most, place) = (&mut most[window], &mut places[window]);
                if *place == NONE || is_larger(x[element], *most) {
                    (*most, *place) = (x[element], element);
                }
            };
            pooling.pairs(|pair| match pair {
                Pair::Tap(windows, first) => {
                    let elements = (start + first..).step_by(stride);
                    windows
                        .zip(elements)
                        .for_each(|(window, at)| keep(window, at));
                }
                Pair::Window(window, elements) => {
                    elements.for_each(|at| keep(window, start + at));
                }
            });
        }
        for (&place, g) in places.iter().zip(upstream) {
            if place != NONE {
                gradient[place] += g;
            }
        }
    }
}

/// To all elements of a window: of an average alike, of the root of squares in proportion to them.
fn spread(
    pooling: &Pooling,
    y: &[f32],
    upstream: &[f32],
    gradient: &mut [f32],
    squares_of: Option<&[f32]>,
) {
    let [_, _, columns] = pooling.axes;
    let mut shares = vec![0.0; columns.output];
    let mut row = vec![0.0; columns.input];
    let lines = y
        .chunks(columns.output)
        .zip(upstream.chunks(columns.output));
    for (at, (y, upstream)) in lines.enumerate() {
        let (count, widths) = pooling.count(at);
        let given = upstream.iter().zip(y).zip(widths);
        for (share, ((&g, &y), &width)) in shares.iter_mut().zip(given) {
            *share = match squares_of {
                None => g / (count * width),
                Some(_) if y == 0.0 => 0.0,
                Some(_) => g / y,
            };
        }
        row.fill(0.0);
        pooling.pairs(|pair| match pair {
            Pair::Tap(windows, first) => {
                let elements = row[first..].iter_mut().step_by(columns.stride);
                let elements = elements.zip(&shares[windows]);
                elements.for_each(|(sum, share)| *sum += share);
            }
            Pair::Window(window, elements) => {
                let elements = row[elements].iter_mut();
                elements.for_each(|sum| *sum += shares[window]);
            }
        });
        for start in pooling.rows(at) {
            let into = gradient[start..start + columns.input].iter_mut();
            match squares_of {
                None => into.zip(&row).for_each(|(sum, share)| *sum += share),
                Some(x) => {
                    let terms = row.iter().zip(&x[start..]);
                    into.zip(terms)
                        .for_each(|(sum, (share, x))| *sum += share * x);
                }
            }
        }
    }
}
