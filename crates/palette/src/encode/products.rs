//! The final weights of a group under a per-channel scale: what every entry comes to in every channel.
//!
//! The error is that of the products, rounded as the runtime rounds them. A folded scale is rounded once more than the
//! two that it is made of: up or down, whichever costs less. The nearest entry may then be another one than before;
//! each index is moved to it, which is hardly ever more than a step.

use palettizer_kernels::Element;

use crate::encode::channels::Channels;
use crate::encode::entries::Quantized;
use crate::encode::group_encoder::GroupEncoder;
use crate::encode::scalar::Table;

impl<T: Element> GroupEncoder<'_, T> {
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
        let scaled = |scale, number| self.product(scale, number);
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
        let integers = quantized.filter(|_| self.storage.folds).map(|quantized| {
            table.folded = self.fold(channels, group, quantized, indices);
            floats(quantized)
        });
        let numbers = integers.as_deref().unwrap_or(entries);
        let (first, factors) = match &integers {
            Some(_) => (channels.of_group(group).start, &table.folded),
            None => (0, &channels.scales),
        };
        let mut left = indices.iter_mut();
        let mut row = Vec::new();
        for range in self.groups.ranges(group) {
            for (channel, run) in channels.runs(range) {
                let scale = factors[channel - first];
                row.clear();
                // All products at once, unless there are fewer elements than entries.
                if run.len() > numbers.len() {
                    row.extend(numbers.iter().map(|&number| scaled(scale, number)));
                }
                let product = |index: usize| match row.get(index) {
                    Some(product) => *product,
                    None => scaled(scale, numbers[index]),
                };
                for (at, index) in run.filter(|&at| self.keeps(at)).zip(&mut left) {
                    let value = self.values[at].to_f32();
                    if integers.is_some() {
                        *index = nearest(value, *index, numbers.len(), product);
                    }
                    add(value, product(usize::from(*index)));
                }
            }
        }
        (table.squared_error, table.energy) = (squared_error, energy);
    }

    /// The folded scale of each channel of a group.
    fn fold(
        &self,
        channels: &Channels,
        group: usize,
        quantized: &Quantized,
        indices: &[u8],
    ) -> Vec<f32> {
        let own = channels.of_group(group);
        let scales = channels.scales[own.clone()].iter();
        let choices: Vec<[f32; 2]> = scales
            .map(|&scale| self.storage.folded(quantized.scale, scale))
            .collect();
        let mut costs = vec![[0.0; 2]; choices.len()];
        let numbers = floats(quantized);
        let mut left = indices.iter();
        for range in self.groups.ranges(group) {
            for (channel, run) in channels.runs(range) {
                let channel = channel - own.start;
                for (at, &index) in run.filter(|&at| self.keeps(at)).zip(&mut left) {
                    if choices[channel][0] == choices[channel][1] {
                        continue;
                    }
                    let value = self.values[at].to_f32();
                    let mass = self.sensitivity.map_or(1.0, |s| f64::from(s.each[at]));
                    for (cost, scale) in costs[channel].iter_mut().zip(choices[channel]) {
                        let product = |index: usize| self.product(scale, numbers[index]);
                        let index = nearest(value, index, numbers.len(), product);
                        let lost = f64::from(value) - f64::from(product(usize::from(index)));
                        *cost += mass * lost * lost;
                    }
                }
            }
        }
        let pairs = choices.iter().zip(costs);
        pairs
            .map(|(choice, costs)| choice[usize::from(costs[1] < costs[0])])
            .collect()
    }

    fn keeps(&self, at: usize) -> bool {
        self.mask.is_none_or(|mask| mask.keeps(at))
    }

    /// A number of a table under a scale, rounded to the weight's dtype.
    fn product(&self, scale: f32, number: f32) -> f32 {
        self.rounding.nearest(f64::from(scale) * f64::from(number))
    }
}

fn floats(quantized: &Quantized) -> Vec<f32> {
    quantized.integers.iter().map(|&q| f32::from(q)).collect()
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
