//! Where the windows of convolutions and poolings lie: sizes, strides, dilations and padding, as MIL has them.
//!
//! Up to three spatial axes; fewer are filled up in front with axes of size 1, so that the loops know one form, whose last axis
//! is a row. What MIL's documentation says of `same` differs from Core ML's own formats and from `type_inference`; it is the
//! latter that holds: as many outputs as `ceil(input / stride)`, and no more padding than the last window needs, the odd element
//! of it behind (`same`) or in front (`same_lower`).

use crate::call::{Args, Fault};
use std::ops::Range;

/// One axis of a convolution or pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Elements that the windows slide over.
    pub input: usize,
    /// How many windows there are.
    pub output: usize,
    /// Elements of a window.
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Padding in front.
    pub before: usize,
    /// Padding behind.
    pub after: usize,
}

impl Axis {
    /// The axis that there is not.
    const NONE: Axis = Axis {
        input: 1,
        output: 1,
        kernel: 1,
        stride: 1,
        dilation: 1,
        before: 0,
        after: 0,
    };

    /// The windows whose element number `tap` is an input, and the input of the first of them.
    pub(super) fn hits(&self, tap: usize) -> (Range<usize>, usize) {
        self.within(tap * self.dilation, 0..self.output)
    }

    /// Of positions `base + i * stride` in the padded input, i in `range`: those that are inputs, and the input of the first.
    pub(super) fn within(&self, base: usize, range: Range<usize>) -> (Range<usize>, usize) {
        let first = self.before.saturating_sub(base).div_ceil(self.stride);
        let end = (self.before + self.input).saturating_sub(base);
        let end = end.div_ceil(self.stride).min(range.end);
        let first = first.max(range.start);
        if first >= end {
            return (range.start..range.start, 0);
        }
        (first..end, base + first * self.stride - self.before)
    }

    /// The taps of window `at` that are inputs, and the input of the first; without dilation.
    pub(super) fn taps(&self, at: usize) -> (Range<usize>, usize) {
        let start = at * self.stride;
        let first = self.before.saturating_sub(start);
        let end = (self.before + self.input).saturating_sub(start);
        let end = end.min(self.kernel);
        if first >= end {
            return (0..0, 0);
        }
        (first..end, start + first - self.before)
    }

    /// Whether each window is one element, in order.
    pub(super) fn is_identity(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.input == self.output
    }

    /// Whether the only window is the whole input.
    pub(super) fn is_whole(&self) -> bool {
        let plain = self.dilation == 1 || self.kernel == 1;
        self.output == 1 && self.kernel == self.input && self.before == 0 && plain
    }
}

/// The last three axes, those that there are not filled up in front.
pub(super) fn three(axes: &[Axis]) -> Result<[Axis; 3], Fault> {
    match *axes {
        [] => Ok([Axis::NONE; 3]),
        [a] => Ok([Axis::NONE, Axis::NONE, a]),
        [a, b] => Ok([Axis::NONE, a, b]),
        [a, b, c] => Ok([a, b, c]),
        _ => Err(format!("{} spatial axes; expected one to three", axes.len()).into()),
    }
}

/// The parameters that say where windows lie.
pub(super) struct Windows {
    strides: Vec<usize>,
    dilations: Vec<usize>,
    padding: Padding,
}

enum Padding {
    Same {
        lower: bool,
    },
    /// Before and after each axis, in turn.
    Custom(Vec<usize>),
}

impl Windows {
    /// As an operation with this many spatial axes has them.
    pub(super) fn of(call: &Args<'_>, axes: usize) -> Result<Self, Fault> {
        let padding = match call.text("pad_type")?.unwrap_or("valid") {
            // anything given as `pad` counts for "custom" alone
            "valid" => Padding::Custom(vec![0; 2 * axes]),
            "custom" => Padding::Custom(numbers(call, "pad", 2 * axes, 0)?),
            "same" => Padding::Same { lower: false },
            "same_lower" => Padding::Same { lower: true },
            other => {
                let allowed = "\"valid\", \"same\", \"same_lower\" or \"custom\"";
                return Err(format!("pad_type is \"{other}\"; expected {allowed}").into());
            }
        };
        Ok(Windows {
            strides: numbers(call, "strides", axes, 1)?,
            dilations: numbers(call, "dilations", axes, 1)?,
            padding,
        })
    }

    /// The axes of windows that slide over an input.
    pub(super) fn over(
        &self,
        input: &[usize],
        kernel: &[usize],
        ceil: bool,
    ) -> Result<Vec<Axis>, Fault> {
        let axes = input.iter().zip(kernel).enumerate();
        axes.map(|(at, (&input, &kernel))| self.axis(at, input, kernel, ceil))
            .collect()
    }

    fn axis(&self, at: usize, input: usize, kernel: usize, ceil: bool) -> Result<Axis, Fault> {
        let (stride, dilation) = (self.strides[at], self.dilations[at]);
        let extent = extent(at, kernel, dilation)?;
        let [wide, step] = [input as i128, stride as i128];
        let (before, after) = match &self.padding {
            Padding::Custom(pad) => (pad[2 * at] as i128, pad[2 * at + 1] as i128),
            Padding::Same { lower } => {
                let windows = wide.div_euclid(step) + i128::from(wide % step > 0);
                split((windows - 1) * step + extent - wide, *lower)
            }
        };
        let total = wide + before + after;
        let mut output = if ceil {
            (total - extent + step - 1).div_euclid(step) + 1
        } else {
            (total - extent).div_euclid(step) + 1
        };
        // a window must not begin behind the input: the padding in front counts as half of the whole
        let padded = before + after;
        if ceil && padded > 0 && 2 * (output - 1) * step >= 2 * wide + padded {
            output -= 1;
        }
        if output <= 0 {
            let what = format!("a window of {extent} does not fit into {total} elements");
            return Err(format!("spatial axis {at}: {what}").into());
        }
        // all positions fit, those of windows that end behind the padding too
        size(at, (output - 1) * step + extent)?;
        Ok(Axis {
            input,
            output: size(at, output)?,
            kernel,
            stride,
            dilation,
            before: size(at, before)?,
            after: size(at, after)?,
        })
    }

    /// The axes of the windows that slide over what a transposed convolution gives; its input is their output.
    pub(super) fn under(
        &self,
        narrow: &[usize],
        kernel: &[usize],
        wanted: Option<&[usize]>,
    ) -> Result<Vec<Axis>, Fault> {
        let mut axes = Vec::new();
        for (at, (&narrow, &kernel)) in narrow.iter().zip(kernel).enumerate() {
            let wanted = wanted.map(|wanted| wanted[at]);
            axes.push(self.transposed(at, narrow, kernel, wanted)?);
        }
        Ok(axes)
    }

    fn transposed(
        &self,
        at: usize,
        narrow: usize,
        kernel: usize,
        wanted: Option<usize>,
    ) -> Result<Axis, Fault> {
        let (stride, dilation) = (self.strides[at], self.dilations[at]);
        let extent = extent(at, kernel, dilation)?;
        let whole = (narrow as i128 - 1) * stride as i128 + extent;
        let whole = if narrow == 0 { 0 } else { whole };
        let same = narrow as i128 * stride as i128;
        let wanted = wanted.map(|wanted| wanted as i128);
        // With `output_shape`, padding in front is what the type of padding makes of that shape; `same` takes away the same
        // elements as the convolution would have padded.
        let (wide, before) = match &self.padding {
            Padding::Custom(pad) => {
                let (before, after) = (pad[2 * at] as i128, pad[2 * at + 1] as i128);
                (wanted.unwrap_or(whole - before - after), before)
            }
            Padding::Same { lower } => {
                let wide = wanted.unwrap_or(same);
                (wide, split(whole - wide, *lower).0)
            }
        };
        if wide < 0 {
            return Err(format!("spatial axis {at}: {wide} outputs are left").into());
        }
        Ok(Axis {
            input: size(at, wide)?,
            output: narrow,
            kernel,
            stride,
            dilation,
            before: size(at, before)?,
            after: size(at, (whole - wide - before).max(0))?,
        })
    }
}

/// Padding in front and behind.
fn split(padding: i128, lower: bool) -> (i128, i128) {
    let padding = padding.max(0);
    let (less, more) = (padding / 2, padding - padding / 2);
    if lower { (more, less) } else { (less, more) }
}

/// Elements from the first to the last tap.
fn extent(at: usize, kernel: usize, dilation: usize) -> Result<i128, Fault> {
    if kernel == 0 {
        return Err(format!("spatial axis {at}: the kernel is empty").into());
    }
    Ok((kernel as i128 - 1) * dilation as i128 + 1)
}

/// A number of elements, small enough to be added to and multiplied by two.
fn size(at: usize, value: i128) -> Result<usize, Fault> {
    let fits = usize::try_from(value)
        .ok()
        .filter(|&size| size <= usize::MAX / 8);
    fits.ok_or_else(|| format!("spatial axis {at}: {value} elements are out of range").into())
}

/// A number for each axis, at least `least`; that if none are given.
pub(super) fn numbers(
    call: &Args<'_>,
    param: &str,
    count: usize,
    least: usize,
) -> Result<Vec<usize>, Fault> {
    let Some(given) = call.optional_ints(param)? else {
        return Ok(vec![least; count]);
    };
    if given.len() != count {
        let found = given.len();
        return Err(format!("{param} has {found} elements; expected {count}").into());
    }
    let fits = |&value: &i64| {
        let value = usize::try_from(value).ok();
        value.filter(|&value| value >= least)
    };
    let fits: Option<Vec<usize>> = given.iter().map(fits).collect();
    fits.ok_or_else(|| format!("{param} is {given:?}; expected at least {least}").into())
}
