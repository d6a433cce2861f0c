//! The per-channel scale: every output channel divided by its largest absolute value.
//!
//! The scale s of a channel is max|w|, which the weight's dtype holds exactly; an all-zero channel has 1, and one
//! that has nothing but subnormals the smallest normal number, lest a runtime that flushes them makes it zero. (Or s
//! is the next number of `fp16`, where the spec says so.) The
//! normalised w / s are clustered in `f32` with weight s², so that what is minimised is the error of the final
//! weights, (w − s·c)² = s²·(w/s − c)².

use std::ops::Range;

use palettizer_kernels::Element;
use rayon::prelude::*;

use super::rounding::Rounding;
use super::storage::Storage;
use super::table::refuse_non_finite;
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
        storage: Storage,
    ) -> Result<Self, Refusal> {
        let what = "per-channel scale";
        let axis = layout
            .output_axis
            .ok_or(Refusal::ChannelAxisUnknown { what })?;
        let count = layout.shape[axis];
        let inner: usize = layout.shape[axis + 1..].iter().product();
        let found = largest(values, count, inner);
        let non_finite = found.iter().map(|(_, bad)| bad).sum();
        refuse_non_finite(non_finite, values.len())?;
        let scales: Vec<f32> = found
            .into_iter()
            .map(|(most, _)| match most {
                0.0 => 1.0,
                most => storage.scale(most.max(rounding.smallest_normal())),
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

/// Largest absolute value of a channel, and how many of its values are not finite.
type Largest = (f32, usize);

/// Rows of fewer elements than this are read side by side, as they lie.
const LONG_ROW: usize = 32;

fn largest<T: Element>(values: &[T], count: usize, inner: usize) -> Vec<Largest> {
    let merge = |(a, m): Largest, (b, n): Largest| (a.max(b), m + n);
    let of_row = |row: &[T]| {
        row.iter().fold((0.0, 0), |found, value| {
            let value = value.to_f32().abs();
            merge(found, (value, usize::from(!value.is_finite())))
        })
    };
    if inner >= LONG_ROW || count * inner == values.len() {
        let channel = |channel| {
            let rows = values.chunks_exact(inner).skip(channel).step_by(count);
            rows.map(of_row).fold((0.0, 0), merge)
        };
        let few = (1 << 14) / inner.max(1) + 1;
        let channels = (0..count).into_par_iter().with_min_len(few);
        return channels.map(channel).collect();
    }
    // One list for each stretch of rows; maxima and counts do not depend on the order they are merged in.
    let stretch = ((1 << 16) / (count * inner)).max(1) * count * inner;
    let lists = values.par_chunks(stretch).map(|rows| {
        let mut list = vec![(0.0, 0); count];
        for outer in rows.chunks_exact(count * inner) {
            for (found, row) in list.iter_mut().zip(outer.chunks_exact(inner)) {
                *found = merge(*found, of_row(row));
            }
        }
        list
    });
    lists.reduce(
        || vec![(0.0, 0); count],
        |a, b| a.into_iter().zip(b).map(|(a, b)| merge(a, b)).collect(),
    )
}
