//! The final weights of a group under a per-channel scale: what every entry comes to in every channel.
//!
//! The error is that of the products, rounded as the runtime rounds them. A folded scale is rounded once more than the
//! two that it is made of: up or down, whichever costs less. The nearest entry may then be another one than before;
//! each index is moved to it, which is hardly ever more than a step.

use palettizer_kernels::Element;

use super::channels::Channels;
use super::elements::Elements;
use super::entries::Quantized;
use super::table::GroupTable;
use crate::ErrorFigures;

/// Measures squared error and energy on a group's final weights; with a folded scale, moves indices first.
pub(crate) fn finish<T: Element>(
    elements: &Elements<'_, T>,
    channels: &Channels,
    group: usize,
    table: &mut GroupTable,
    indices: &mut [u8],
) {
    let error = if elements.groups.dim > 1 {
        measure_vectors(elements, channels, group, &table.entries.values, indices)
    } else if let Some(quantized) = &table.entries.quantized
        && elements.storage.folds
    {
        let numbers = floats(quantized);
        table.folded = fold(elements, channels, group, quantized, indices);
        let first = elements.layout.output_channels(group).start;
        let factor = |channel: usize| table.folded[channel - first];
        measure(elements, channels, group, &numbers, factor, indices, true)
    } else {
        let factor = |channel: usize| channels.scales[channel];
        let entries = &table.entries.values;
        measure(elements, channels, group, entries, factor, indices, false)
    };
    table.error = ErrorFigures {
        gap: table.error.gap,
        ..error
    };
}

fn measure_vectors<T: Element>(
    elements: &Elements<'_, T>,
    channels: &Channels,
    group: usize,
    entries: &[f32],
    indices: &[u8],
) -> ErrorFigures {
    let dim = elements.groups.dim;
    let mut error = ErrorFigures::default();
    for (first, &index) in elements.groups.firsts(group).zip(indices) {
        let vector = &entries[usize::from(index) * dim..][..dim];
        for (at, &entry) in elements.groups.members(first).zip(vector) {
            let found = elements
                .rounding
                .product(channels.scales[channels.of(at)], entry);
            error.add(f64::from(elements.values[at].to_f32()), f64::from(found));
        }
    }
    error
}

/// Of scalars: `factor` is what the numbers of the table are multiplied by in a channel. If asked, an index `moves` to the
/// nearest product first.
fn measure<T: Element>(
    elements: &Elements<'_, T>,
    channels: &Channels,
    group: usize,
    numbers: &[f32],
    factor: impl Fn(usize) -> f32,
    indices: &mut [u8],
    moves: bool,
) -> ErrorFigures {
    let mut error = ErrorFigures::default();
    let mut left = indices.iter_mut();
    let mut row = Vec::new();
    for range in elements.groups.ranges(group) {
        for (channel, run) in channels.runs(range) {
            let scale = factor(channel);
            let scaled = |number: f32| elements.rounding.product(scale, number);
            row.clear();
            // All products at once, unless there are fewer elements than entries.
            if run.len() > numbers.len() {
                row.extend(numbers.iter().copied().map(scaled));
            }
            let product = |index: usize| match row.get(index) {
                Some(product) => *product,
                None => scaled(numbers[index]),
            };
            for (at, index) in run.filter(|&at| elements.keeps(at)).zip(&mut left) {
                let value = elements.values[at].to_f32();
                if moves {
                    *index = nearest(value, *index, numbers.len(), product);
                }
                error.add(f64::from(value), f64::from(product(usize::from(*index))));
            }
        }
    }
    error
}

/// The folded scale of each channel of a group.
fn fold<T: Element>(
    elements: &Elements<'_, T>,
    channels: &Channels,
    group: usize,
    quantized: &Quantized,
    indices: &[u8],
) -> Vec<f32> {
    let own = elements.layout.output_channels(group);
    let scales = channels.scales[own.clone()].iter();
    let choices: Vec<[f32; 2]> = scales
        .map(|&scale| elements.storage.folded(quantized.scale, scale))
        .collect();
    let mut costs = vec![[0.0; 2]; choices.len()];
    let numbers = floats(quantized);
    let mut left = indices.iter();
    for range in elements.groups.ranges(group) {
        for (channel, run) in channels.runs(range) {
            let channel = channel - own.start;
            for (at, &index) in run.filter(|&at| elements.keeps(at)).zip(&mut left) {
                if choices[channel][0] == choices[channel][1] {
                    continue;
                }
                let value = elements.values[at].to_f32();
                let mass = elements.sensitivity.map_or(1.0, |s| f64::from(s.each[at]));
                for (cost, scale) in costs[channel].iter_mut().zip(choices[channel]) {
                    let product = |index: usize| elements.rounding.product(scale, numbers[index]);
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
