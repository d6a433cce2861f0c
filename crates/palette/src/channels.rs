//! The per-channel scale: every output channel divided by its largest absolute value.
//!
//! The scale s of a channel is max|w|, which the weight's dtype holds exactly; an all-zero channel has 1, and one
//! that has nothing but subnormals the smallest normal number, lest a runtime that flushes them makes it zero. The
//! normalised w / s are clustered in `f32` with weight s², so that what is minimised is the error of the final
//! weights, (w − s·c)² = s²·(w/s − c)².

use std::ops::Range;

use palettizer_kernels::Element;
use rayon::prelude::*;

use crate::entries::Rounding;
use crate::{Layout, Refusal};

/// The factors of a weight's output channels, and which element belongs to which.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    /// One factor for each output channel.
    pub(crate) scales: Vec<f32>,
    /// (s / largest s)², kept above zero: what an error in a channel's normalised values weighs.
    pub(crate) weights: Vec<f32>,
    /// Elements behind the output axis.
    inner: usize,
    /// Whether the output axis is the first.
    pub(crate) first: bool,
}

/// The least a channel weighs against the greatest: the kernels leave out what weighs nothing.
const LEAST_WEIGHT: f32 = 1e-30;

impl Channels {
    /// Finds the factors in one pass over the weight.
    pub(crate) fn new<T: Element>(
        values: &[T],
        layout: &Layout,
        rounding: Rounding,
    ) -> Result<Self, Refusal> {
        let what = "per-channel scale";
        let axis = layout
            .output_axis
            .ok_or(Refusal::ChannelAxisUnknown { what })?;
        let count = layout.shape[axis];
        let inner: usize = layout.shape[axis + 1..].iter().product();
        let largest = |row: &[T]| {
            row.iter().fold((0_f32, 0_usize), |(most, bad), v| {
                let v = v.to_f32().abs();
                (most.max(v), bad + usize::from(!v.is_finite()))
            })
        };
        let merge = |(a, m): (f32, usize), (b, n): (f32, usize)| (a.max(b), m + n);
        let found: Vec<(f32, usize)> = (0..count)
            .into_par_iter()
            .with_min_len((1 << 14) / inner.max(1) + 1)
            .map(|channel| {
                let rows = values.chunks_exact(inner).skip(channel).step_by(count);
                rows.map(largest).fold((0.0, 0), merge)
            })
            .collect();
        let bad: usize = found.iter().map(|(_, bad)| bad).sum();
        if bad > 0 {
            return Err(Refusal::NonFinite {
                count: bad,
                elements: values.len(),
            });
        }
        let scales: Vec<f32> = found
            .into_iter()
            .map(|(most, _)| match most {
                0.0 => 1.0,
                most => most.max(rounding.smallest_normal()),
            })
            .collect();
        let top = scales.iter().fold(0_f32, |a, &b| a.max(b));
        let weigh = |s: &f32| (s / top * (s / top)).max(LEAST_WEIGHT);
        Ok(Channels {
            weights: scales.iter().map(weigh).collect(),
            scales,
            inner,
            first: axis == 0,
        })
    }

    /// The channel of one element.
    pub(crate) fn of(&self, at: usize) -> usize {
        at / self.inner % self.scales.len()
    }

    /// A range of the weight, cut where the channel changes.
    pub(crate) fn runs(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let mut start = range.start;
        std::iter::from_fn(move || {
            let end = ((start / self.inner + 1) * self.inner).min(range.end);
            let run = start..end;
            start = end;
            (!run.is_empty()).then(|| (self.of(run.start), run))
        })
    }
}
