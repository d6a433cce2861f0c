//! The elements of a weight, and a group of them gathered for what finds its table.
//!
//! A group is gathered only as far as it must be: borrowed where it lies when it is one slice of unscaled scalars,
//! copied as it is when it is several, made single precision when it is scaled or made of vectors. Buffers are kept
//! from one group to the next.

use palettizer_kernels::{Element, Weights};

use super::channels::Channels;
use super::rounding::Rounding;
use super::storage::Storage;
use crate::Layout;
use crate::context::Sensitivity;
use crate::layout::groups::{Groups, Mask};

/// A weight with all that is known of its elements.
pub(crate) struct Elements<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) layout: &'a Layout,
    pub(crate) groups: Groups,
    pub(crate) channels: Option<Channels>,
    pub(crate) mask: Option<Mask<'a>>,
    pub(crate) sensitivity: Option<Sensitivity<'a>>,
    /// Rounding to the weight's dtype.
    pub(crate) rounding: Rounding,
    pub(crate) storage: Storage,
}

/// A gathered group, in memory that one group after the other uses.
pub(crate) struct Gathered<T> {
    values: Vec<T>,
    /// Values in single precision.
    pub(crate) singles: Vec<f32>,
    /// What an error in each of them costs; none if they all cost the same, or whole rows do.
    weights: Vec<f32>,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Gathered {
            values: Vec::new(),
            singles: Vec::new(),
            weights: Vec::new(),
        }
    }
}

impl<T> Gathered<T> {
    /// The values in single precision, to be worked on, with their weights.
    pub(crate) fn vectors(&mut self) -> (&mut [f32], Option<&[f32]>) {
        let weights = Some(self.weights.as_slice()).filter(|weights| !weights.is_empty());
        (&mut self.singles, weights)
    }
}

impl<T: Element> Elements<'_, T> {
    /// Whether a position is not pruned.
    pub(crate) fn keeps(&self, at: usize) -> bool {
        self.mask.is_none_or(|mask| mask.keeps(at))
    }

    /// The group's kept values as they are, with what they weigh.
    pub(crate) fn scalars<'s>(
        &'s self,
        group: usize,
        gathered: &'s mut Gathered<T>,
    ) -> (&'s [T], Weights<'s>) {
        let weights = match self.sensitivity {
            None => Weights::Equal,
            Some(some) => Weights::Each(self.slice(some.each, group, &mut gathered.weights)),
        };
        (
            self.slice(self.values, group, &mut gathered.values),
            weights,
        )
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

    /// The group's values in order, in single precision, divided by their channel's scale; those the mask keeps, if one
    /// is given. Weights for each of them, unless whole rows share theirs.
    pub(crate) fn gather_singles(
        &self,
        group: usize,
        gathered: &mut Gathered<T>,
        mask: Option<Mask<'_>>,
    ) {
        let Gathered {
            singles, weights, ..
        } = gathered;
        singles.clear();
        weights.clear();
        let kept = |at: &usize| mask.is_none_or(|mask| mask.keeps(*at));
        let value = |at: usize| self.values[at].to_f32();
        for range in self.groups.ranges(group) {
            let Some(channels) = &self.channels else {
                singles.extend(range.filter(kept).map(value));
                continue;
            };
            for (channel, run) in channels.runs(range) {
                let (scale, weight) = (channels.scales[channel], channels.weights[channel]);
                let before = singles.len();
                singles.extend(run.clone().filter(kept).map(|at| value(at) / scale));
                if let Some(some) = self.sensitivity {
                    weights.extend(run.filter(kept).map(|at| some.scaled(at, weight)));
                } else if !channels.first || mask.is_some() {
                    weights.extend(std::iter::repeat_n(weight, singles.len() - before));
                }
            }
        }
    }

    /// What the scaled values of a group weigh.
    pub(crate) fn scaled_weights<'s>(
        &self,
        channels: &'s Channels,
        group: usize,
        gathered: &'s Gathered<T>,
    ) -> Weights<'s> {
        if !gathered.weights.is_empty() || gathered.singles.is_empty() {
            return Weights::Each(&gathered.weights);
        }
        // The output axis is the first: the group has whole rows.
        match &channels.weights[self.layout.output_channels(group)] {
            [_] => Weights::Equal,
            weights => Weights::Rows {
                len: gathered.singles.len() / weights.len(),
                weights,
            },
        }
    }

    /// The group's vectors one after the other, in single precision, divided by their channels' scales. With scales or
    /// sensitivities, also the mean weight of their elements (the sum would say the same, and might overflow).
    pub(crate) fn gather_vectors(&self, group: usize, gathered: &mut Gathered<T>) {
        gathered.singles.clear();
        gathered.weights.clear();
        for first in self.groups.firsts(group) {
            let mut weight = 0.0;
            for at in self.groups.members(first) {
                let value = self.values[at].to_f32();
                let Some(channels) = &self.channels else {
                    gathered.singles.push(value);
                    weight += self
                        .sensitivity
                        .map_or(1.0, |some| f64::from(some.each[at]));
                    continue;
                };
                let channel = channels.of(at);
                let own = channels.weights[channel];
                gathered.singles.push(value / channels.scales[channel]);
                let both = self.sensitivity.map_or(own, |some| some.scaled(at, own));
                weight += f64::from(both);
            }
            if self.channels.is_some() || self.sensitivity.is_some() {
                let mean = (weight / self.groups.dim as f64) as f32;
                gathered.weights.push(mean);
            }
        }
    }

    /// Rounds gathered values as entries are, so that "distinct" means what a table can hold.
    pub(crate) fn round(&self, gathered: &mut Gathered<T>) {
        for value in &mut gathered.singles {
            *value = self.storage.rounding.nearest(f64::from(*value));
        }
    }
}
