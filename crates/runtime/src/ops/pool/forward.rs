//! Poolings of planes.

use super::{Kind, Pair, Pooling};
use rayon::prelude::*;

/// Elements that are worth a piece of work.
const WORTH: usize = 1 << 16;

/// Pools all planes.
pub(super) fn pool(pooling: &Pooling, kind: Kind, x: &[f32], out: &mut [f32]) {
    let (input, output) = (pooling.input(), pooling.output());
    if input == 0 {
        out.fill(if kind == Kind::Max {
            f32::NEG_INFINITY
        } else {
            0.0
        });
        return;
    }
    let planes = x.par_chunks(input).zip(out.par_chunks_mut(output));
    let planes = planes.with_min_len(WORTH.div_ceil(input));
    planes.for_each_init(
        || vec![0.0; pooling.axes[2].input],
        |row, (x, out)| match kind {
            Kind::Max => largest(pooling, x, row, out),
            Kind::Average => {
                sums(pooling, x, row, out, |x| x);
                average(pooling, out);
            }
            Kind::L2 => {
                sums(pooling, x, row, out, |x| x * x);
                out.iter_mut().for_each(|sum| *sum = sum.sqrt());
            }
        },
    );
}

/// Whether a number takes the place of another as the largest; NaN does, as in torch.
#[inline(always)]
pub(super) fn is_larger(x: f32, than: f32) -> bool {
    x > than || x.is_nan()
}

fn largest(pooling: &Pooling, x: &[f32], row: &mut [f32], out: &mut [f32]) {
    let keep = |most: &mut f32, x: &f32| *most = if is_larger(*x, *most) { *x } else { *most };
    let (width, stride) = (row.len(), pooling.axes[2].stride);
    for (at, out) in out.chunks_mut(pooling.axes[2].output).enumerate() {
        row.fill(f32::NEG_INFINITY);
        for start in pooling.rows(at) {
            let values = row.iter_mut().zip(&x[start..start + width]);
            values.for_each(|(most, x)| keep(most, x));
        }
        out.fill(f32::NEG_INFINITY);
        pooling.pairs(|pair| match pair {
            Pair::Tap(windows, first) if stride == 1 => {
                let values = out[windows].iter_mut().zip(&row[first..]);
                values.for_each(|(most, x)| keep(most, x));
            }
            Pair::Tap(windows, first) => {
                let values = row[first..].iter().step_by(stride);
                let values = out[windows].iter_mut().zip(values);
                values.for_each(|(most, x)| keep(most, x));
            }
            Pair::Window(window, elements) => {
                let most = &mut out[window];
                row[elements].iter().for_each(|x| keep(most, x));
            }
        });
    }
}

/// The sums of a function of each element of windows.
fn sums(pooling: &Pooling, x: &[f32], row: &mut [f32], out: &mut [f32], term: impl Fn(f32) -> f32) {
    let (width, stride) = (row.len(), pooling.axes[2].stride);
    for (at, out) in out.chunks_mut(pooling.axes[2].output).enumerate() {
        row.fill(0.0);
        for start in pooling.rows(at) {
            let values = row.iter_mut().zip(&x[start..start + width]);
            values.for_each(|(sum, &x)| *sum += term(x));
        }
        pooling.pairs(|pair| match pair {
            Pair::Tap(windows, first) if stride == 1 => {
                let values = out[windows].iter_mut().zip(&row[first..]);
                values.for_each(|(sum, x)| *sum += x);
            }
            Pair::Tap(windows, first) => {
                let values = row[first..].iter().step_by(stride);
                let values = out[windows].iter_mut().zip(values);
                values.for_each(|(sum, x)| *sum += x);
            }
            Pair::Window(window, elements) => {
                // a whole row may be long
                let terms = row[elements].iter().map(|&x| f64::from(x));
                out[window] += terms.sum::<f64>() as f32;
            }
        });
    }
}

/// Divides sums by the elements of their windows.
fn average(pooling: &Pooling, out: &mut [f32]) {
    for (at, out) in out.chunks_mut(pooling.axes[2].output).enumerate() {
        let (count, widths) = pooling.count(at);
        let sums = out.iter_mut().zip(widths);
        sums.for_each(|(sum, width)| *sum /= count * width);
    }
}
