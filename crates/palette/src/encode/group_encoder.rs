//! All groups of one weight: each gathered, given its table, and measured.
//!
//! A group is gathered only as far as it must be: borrowed where it lies when it is one slice of unscaled scalars,
//! copied as it is when it is several, widened to `f32` when it is scaled or made of vectors. Buffers are kept from
//! one group to the next. With a per-channel scale the error is measured again, on the products: see `products`.

use palettizer_kernels::{Element, Weights};
use rayon::prelude::*;

use crate::context::Sensitivity;
use crate::encode::channels::Channels;
use crate::encode::entries::{Rounding, Storage};
use crate::encode::scalar::{self, Table};
use crate::encode::vector;
use crate::layout::groups::{Groups, Mask};
use crate::{Context, LutGroup, Mode, PaletteSpec, Refusal};

/// One weight at work.
pub(crate) struct GroupEncoder<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) groups: Groups,
    pub(crate) channels: Option<Channels>,
    pub(crate) mask: Option<Mask<'a>>,
    pub(crate) sensitivity: Option<Sensitivity<'a>>,
    pub(crate) context: &'a Context<'a>,
    pub(crate) spec: &'a PaletteSpec,
    /// Rounding to the weight's dtype.
    pub(crate) rounding: Rounding,
    pub(crate) storage: Storage,
}

/// Memory that one group after the other uses.
#[derive(Default)]
struct Scratch<T> {
    values: Vec<T>,
    wide: Vec<f32>,
    weights: Vec<f32>,
}

impl<T: Element> GroupEncoder<'_, T> {
    /// The tables of all groups; their indices, group after group.
    pub(crate) fn tables(
        &self,
        counts: &[usize],
        indices: &mut [u8],
    ) -> Result<Vec<Table>, Refusal> {
        let mut parts = Vec::with_capacity(counts.len());
        let mut left = indices;
        for &count in counts {
            let (part, rest) = left.split_at_mut(count);
            parts.push(part);
            left = rest;
        }
        let scratch = || Scratch {
            values: Vec::new(),
            wide: Vec::new(),
            weights: Vec::new(),
        };
        let tables: Vec<Result<Table, Refusal>> = parts
            .into_par_iter()
            .enumerate()
            .map_init(scratch, |scratch, (group, indices)| {
                self.table(group, scratch, indices)
            })
            .collect();
        // The first refusal in the order of the groups, whichever was found first.
        tables.into_iter().collect()
    }

    fn table(
        &self,
        group: usize,
        scratch: &mut Scratch<T>,
        indices: &mut [u8],
    ) -> Result<Table, Refusal> {
        self.context.go_on()?;
        let (spec, storage) = (self.spec, self.storage);
        let exact = self.channels.is_none();
        let mut table = if let Mode::Custom(function) = spec.mode() {
            self.widen(group, scratch, None);
            let values = &scratch.wide;
            let described = LutGroup {
                shape: &self.groups.shape,
                channel_axis: self.groups.channel_axis,
                dtype: self.rounding.0,
            };
            let ranges = self.groups.ranges(group).flatten().enumerate();
            let kept = ranges
                .filter(|(_, at)| self.mask.is_none_or(|mask| mask.keeps(*at)))
                .map(|(offset, _)| offset);
            scalar::custom(values, &described, function, storage, kept, indices)?
        } else if self.groups.dim > 1 {
            self.vectors(group, scratch);
            let exact = exact || self.snap(scratch);
            let weights = (!scratch.weights.is_empty()).then_some(scratch.weights.as_slice());
            vector::table(&mut scratch.wide, weights, exact, group, self, indices)?
        } else if let Some(channels) = &self.channels {
            self.widen(group, scratch, self.mask);
            let exact = self.snap(scratch);
            let weights = self.row_weights(channels, group, scratch);
            scalar::table(&scratch.wide, weights, exact, spec, storage, indices)?
        } else {
            let values = self.slice(self.values, group, &mut scratch.values);
            let weights = match self.sensitivity {
                None => Weights::Equal,
                Some(some) => Weights::Each(self.slice(some.each, group, &mut scratch.weights)),
            };
            scalar::table(values, weights, exact, spec, storage, indices)?
        };
        if let Some(channels) = &self.channels {
            self.finish(channels, group, &mut table, indices);
        }
        Ok(table)
    }

    /// The group's kept elements of `all` as they are: borrowed when they lie together.
    fn slice<'s, E: Copy>(&self, all: &'s [E], group: usize, buffer: &'s mut Vec<E>) -> &'s [E] {
        if self.mask.is_none()
            && let Some(range) = self.groups.whole(group)
        {
            return &all[range];
        }
        buffer.clear();
        for range in self.groups.ranges(group) {
            match self.mask {
                None => buffer.extend_from_slice(&all[range]),
                Some(mask) => buffer.extend(mask.positions(range).map(|at| all[at])),
            }
        }
        buffer
    }

    /// The group's values in order, in `f32`, divided by their channel's scale; those the mask keeps, if one is
    /// given. Weights for each of them, unless whole rows share theirs.
    fn widen(&self, group: usize, scratch: &mut Scratch<T>, mask: Option<Mask<'_>>) {
        scratch.wide.clear();
        scratch.weights.clear();
        let kept = |at: &usize| mask.is_none_or(|mask| mask.keeps(*at));
        let value = |at: usize| self.values[at].to_f32();
        for range in self.groups.ranges(group) {
            let Some(channels) = &self.channels else {
                scratch.wide.extend(range.filter(kept).map(value));
                continue;
            };
            for (channel, run) in channels.runs(range) {
                let scale = channels.scales[channel];
                let before = scratch.wide.len();
                let normalised = run.clone().filter(kept).map(|at| value(at) / scale);
                scratch.wide.extend(normalised);
                let weight = channels.weights[channel];
                if let Some(some) = self.sensitivity {
                    let weights = run.filter(kept).map(|at| some.scaled(at, weight));
                    scratch.weights.extend(weights);
                } else if !channels.first || mask.is_some() {
                    let len = scratch.wide.len() - before;
                    scratch.weights.extend(std::iter::repeat_n(weight, len));
                }
            }
        }
    }

    /// What the widened values of a group weigh.
    fn row_weights<'s>(
        &self,
        channels: &'s Channels,
        group: usize,
        scratch: &'s Scratch<T>,
    ) -> Weights<'s> {
        if !scratch.weights.is_empty() || scratch.wide.is_empty() {
            return Weights::Each(&scratch.weights);
        }
        let groups = &self.groups;
        // The output axis is the first: a group has some of its rows if it lies along it, else all of them.
        let some = groups.shape[0] < channels.scales.len();
        let rows = match some {
            true => &channels.weights[group * groups.channels..][..groups.channels],
            false => channels.weights.as_slice(),
        };
        match rows {
            [_] => Weights::Equal,
            weights => Weights::Rows {
                len: scratch.wide.len() / weights.len(),
                weights,
            },
        }
    }

    /// In unique mode, rounds scaled values as entries are, so that "distinct" means what a table can hold.
    fn snap(&self, scratch: &mut Scratch<T>) -> bool {
        let unique = matches!(self.spec.mode(), Mode::Unique);
        if unique {
            for value in &mut scratch.wide {
                *value = self.storage.rounding.nearest(f64::from(*value));
            }
        }
        unique
    }

    /// The group's vectors one after the other, in `f32`, divided by their channels' scales. With scales or
    /// sensitivities, also the mean weight of their elements (the sum would say the same, and might overflow).
    fn vectors(&self, group: usize, scratch: &mut Scratch<T>) {
        scratch.wide.clear();
        scratch.weights.clear();
        for first in self.firsts(group) {
            let mut weight = 0.0;
            for at in self.members(first) {
                let value = self.values[at].to_f32();
                let Some(channels) = &self.channels else {
                    scratch.wide.push(value);
                    weight += self
                        .sensitivity
                        .map_or(1.0, |some| f64::from(some.each[at]));
                    continue;
                };
                let channel = channels.of(at);
                let own = channels.weights[channel];
                scratch.wide.push(value / channels.scales[channel]);
                let both = self.sensitivity.map_or(own, |some| some.scaled(at, own));
                weight += f64::from(both);
            }
            if self.channels.is_some() || self.sensitivity.is_some() {
                scratch
                    .weights
                    .push((weight / self.groups.dim as f64) as f32);
            }
        }
    }

    /// Where each vector of a group starts, in index order.
    pub(crate) fn firsts(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let (inner, dim) = (self.groups.inner, self.groups.dim);
        self.groups.ranges(group).flat_map(move |range| {
            let starts = range.step_by(inner * dim);
            starts.flat_map(move |start| start..start + inner)
        })
    }

    /// The elements of the vector that starts there.
    pub(crate) fn members(&self, first: usize) -> impl Iterator<Item = usize> + use<T> {
        let (inner, dim) = (self.groups.inner, self.groups.dim);
        (0..dim).map(move |j| first + j * inner)
    }
}
