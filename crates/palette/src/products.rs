//! The final weights of a group under a per-channel scale: what every entry comes to in every channel.
//!
//! The error is that of the products, rounded as the runtime rounds them. A folded scale is rounded once more than the
//! two that it is made of, so the nearest entry may be another one than before: each index is moved to it, which is
//! hardly ever more than a step.

use std::borrow::Cow;

use palettizer_kernels::Element;

use crate::channels::Channels;
use crate::job::Job;
use crate::scalar::Table;

impl<T: Element> Job<'_, T> {
    /// Measures squared error and energy on a group's final weights; with a folded scale, moves indices first.
    pub(crate) fn finish(
        &self,
        channels: &Channels,
        group: usize,
        table: &mut Table,
        indices: &mut [u8],
    ) {
        let (mut squared_error, mut energy) = (0.0, 0.0);
        let mut add = |value: f32, found: f32| {
            let (value, found) = (f64::from(value), f64::from(found));
            squared_error += (value - found) * (value - found);
            energy += value * value;
        };
        let scaled = |scale: f32, number: f32| {
            let product = f64::from(scale) * f64::from(number);
            self.rounding.nearest(product)
        };
        let entries = &table.entries.values;
        let dim = self.groups.dim;
        if dim > 1 {
            for (first, &mut index) in self.firsts(group).zip(indices) {
                let vector = &entries[usize::from(index) * dim..][..dim];
                for (at, &entry) in self.members(first).zip(vector) {
                    let scale = channels.scales[channels.of(at)];
                    add(self.values[at].to_f32(), scaled(scale, entry));
                }
            }
            (table.squared_error, table.energy) = (squared_error, energy);
            return;
        }
        let quantized = table.entries.quantized.as_ref();
        let folded = quantized.filter(|_| self.storage.folds);
        let numbers: Cow<'_, [f32]> = match folded {
            None => Cow::Borrowed(entries),
            Some(quantized) => quantized.integers.iter().map(|&q| f32::from(q)).collect(),
        };
        let mut left = indices.iter_mut();
        let mut row = Vec::new();
        for range in self.groups.ranges(group) {
            for (channel, run) in channels.runs(range) {
                let scale = channels.scales[channel];
                let scale = folded.map_or(scale, |q| self.storage.folded(q.scale, scale));
                row.clear();
                // All products at once, unless there are fewer elements than entries.
                if run.len() > numbers.len() {
                    row.extend(numbers.iter().map(|&number| scaled(scale, number)));
                }
                let product = |index: usize| match row.get(index) {
                    Some(product) => *product,
                    None => scaled(scale, numbers[index]),
                };
                let kept = run.filter(|&at| self.mask.is_none_or(|mask| mask.keeps(at)));
                for (at, index) in kept.zip(&mut left) {
                    let value = self.values[at].to_f32();
                    if folded.is_some() {
                        *index = nearest(value, *index, numbers.len(), product);
                    }
                    add(value, product(usize::from(*index)));
                }
            }
        }
        (table.squared_error, table.energy) = (squared_error, energy);
    }
}

/// The nearest of so many ascending products, the lower one of two, looked for from an index near it.
fn nearest(value: f32, index: u8, count: usize, product: impl Fn(usize) -> f32) -> u8 {
    let far = |index: usize| (f64::from(value) - f64::from(product(index))).abs();
    let mut best = (far(usize::from(index)), usize::from(index));
    while best.1 + 1 < count && far(best.1 + 1) < best.0 {
        best = (far(best.1 + 1), best.1 + 1);
    }
    while best.1 > 0 && far(best.1 - 1) <= best.0 {
        best = (far(best.1 - 1), best.1 - 1);
    }
    best.1 as u8
}
