//! 16-bit values: there are only 65,536 of them, so count each.
//!
//! Groups of some thousands and more are counted in a table of all bit patterns, smaller ones are sorted by radix:
//! clearing and reading the table would take longer than the values themselves. Either way the group shrinks to its
//! distinct values, and all later questions are asked of those.
//!
//! Cost: about 0.5 ns a value, and 15 µs for a table. Wrong choice: none for 16 bits; hopeless for 32.

use rayon::prelude::*;

use super::summary::Summary;
use crate::assign::Borders;
use crate::assign::half::{self, key};
use crate::scalar::points::Points;
use crate::scalar::radix_sort::by_digits;
use crate::stop::Stop;
use crate::weights::Weights;

/// Below this many values, sort.
const SMALL: usize = 8192;
/// The same where values have weights, whose table is larger and is filled more slowly.
const SMALL_WEIGHTED: usize = 1 << 15;
/// Values counted by one task.
const CHUNK: usize = 1 << 20;

/// The distinct values of a group of 16-bit floats.
#[derive(Debug)]
pub(super) struct HalfHistogram<'a> {
    bits: &'a [u16],
    infinity: u16,
    /// Ascending; -0 counts as +0.
    pub(super) values: Vec<f32>,
    counts: Vec<u64>,
    /// Weights of the values, unless they are the counts.
    weights: Option<Vec<f64>>,
    pub(super) summary: Summary,
}

impl<'a> HalfHistogram<'a> {
    pub(super) fn new(
        bits: &'a [u16],
        infinity: u16,
        decode: fn(u16) -> f32,
        weights: Weights<'_>,
    ) -> Self {
        let mut group = HalfHistogram {
            bits,
            infinity,
            values: Vec::new(),
            counts: Vec::new(),
            weights: (!weights.is_equal()).then(Vec::new),
            summary: Summary::default(),
        };
        let small = match weights.is_equal() {
            true => SMALL,
            false => SMALL_WEIGHTED,
        };
        if bits.len() < small {
            group.sort(decode, weights);
        } else {
            group.count(decode, weights);
        }
        group.weights = group.weights.filter(|w| w.iter().any(|&w| w != 0.0));
        group.summary.finish(&group.values, &group.counts);
        group
    }

    /// Adds a bit pattern; they come in ascending order of value.
    #[inline]
    fn add(&mut self, bits: u16, count: u64, weight: f64, decode: fn(u16) -> f32) {
        if bits & 0x7fff >= self.infinity {
            match (bits & 0x7fff == self.infinity, bits >> 15 == 0) {
                (false, _) => self.summary.nan += count,
                (true, true) => self.summary.infinite += count,
                (true, false) => self.summary.negative_infinite += count,
            }
            return;
        }
        let merge = bits == 0 && self.values.last() == Some(&0.0);
        if merge {
            if let Some(last) = self.counts.last_mut() {
                *last += count;
            }
            if let Some(last) = self.weights.as_mut().and_then(|w| w.last_mut()) {
                *last += weight;
            }
        } else {
            self.values.push(decode(bits) + 0.0);
            self.counts.push(count);
            if let Some(weights) = &mut self.weights {
                weights.push(weight);
            }
        }
    }

    fn sort(&mut self, decode: fn(u16) -> f32, weights: Weights<'_>) {
        let order = |bits: u16| key(bits) as u16 ^ 0x8000;
        if weights.is_equal() {
            let keys = self.bits.iter().map(|&b| order(b));
            let sorted = by_digits::<u16, 2, 256>(keys.collect(), u32::from, Stop::default());
            for run in sorted.chunk_by(|a, b| a == b) {
                self.add(key(run[0] ^ 0x8000) as u16, run.len() as u64, 0.0, decode);
            }
            return;
        }
        let pairs = self
            .bits
            .iter()
            .zip(0..)
            .map(|(&b, i)| (order(b), i))
            .collect();
        let sorted =
            by_digits::<(u16, u32), 2, 256>(pairs, |pair| u32::from(pair.0), Stop::default());
        for run in sorted.chunk_by(|a, b| a.0 == b.0) {
            let weight = run.iter().map(|pair| weights.at(pair.1 as usize)).sum();
            self.add(
                key(run[0].0 ^ 0x8000) as u16,
                run.len() as u64,
                weight,
                decode,
            );
        }
    }

    fn count(&mut self, decode: fn(u16) -> f32, weights: Weights<'_>) {
        let counts = totals(self.bits.par_chunks(CHUNK).map(count).collect());
        let sums = (!weights.is_equal()).then(|| {
            let parts: Vec<Vec<f64>> = self
                .bits
                .par_chunks(CHUNK)
                .enumerate()
                .map(|(c, chunk)| {
                    let mut sums = vec![0.0; 1 << 16];
                    weights.each(c * CHUNK, chunk.len(), |i, weight| {
                        sums[usize::from(chunk[i])] += weight
                    });
                    sums
                })
                .collect();
            totals(parts)
        });
        let mut visit = |bits: usize| {
            if counts[bits] > 0 {
                let weight = sums.as_ref().map_or(0.0, |sums| sums[bits]);
                self.add(bits as u16, counts[bits], weight, decode);
            }
        };
        (0x8000..0x1_0000).rev().for_each(&mut visit);
        (0..0x8000).for_each(&mut visit);
    }

    /// The values that have a weight.
    pub(super) fn points<'s>(&self, stop: Stop<'s>) -> Points<'s> {
        let mut points = Points::new(stop);
        match &self.weights {
            None => {
                points.x = self.values.iter().map(|&x| f64::from(x)).collect();
                points.w = self.counts.iter().map(|&n| n as f64).collect();
            }
            Some(weights) => {
                for (&x, &w) in self.values.iter().zip(weights).filter(|(_, w)| **w > 0.0) {
                    points.push(f64::from(x), w);
                }
            }
        }
        points
    }

    pub(super) fn assign(
        &self,
        borders: &Borders,
        decode: fn(u16) -> f32,
        indices: &mut [u8],
    ) -> f64 {
        half::assign(borders, self.bits, self.infinity, decode, indices);
        borders.error_of(&self.values, &self.counts)
    }
}

/// How often each bit pattern occurs among fewer than 2³² values.
fn count(bits: &[u16]) -> Vec<u32> {
    let mut counts = vec![0_u32; 1 << 16];
    if bits.len() < 1 << 18 {
        for &b in bits {
            counts[usize::from(b)] += 1;
        }
        return counts;
    }
    // Two tables: the counter of a frequent value (zero, often) is then not waited for by its next increment.
    let mut odd = vec![0_u32; 1 << 16];
    let pairs = bits.chunks_exact(2);
    for &b in pairs.remainder() {
        counts[usize::from(b)] += 1;
    }
    for pair in pairs {
        counts[usize::from(pair[0])] += 1;
        odd[usize::from(pair[1])] += 1;
    }
    for (count, odd) in counts.iter_mut().zip(odd) {
        *count += odd;
    }
    counts
}

/// Adds tables up, in order.
fn totals<T: Copy, S: Default + Copy + From<T> + std::ops::AddAssign>(
    parts: Vec<Vec<T>>,
) -> Vec<S> {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_default();
    let mut totals: Vec<S> = first.into_iter().map(S::from).collect();
    for part in parts {
        for (total, part) in totals.iter_mut().zip(part) {
            *total += S::from(part);
        }
    }
    totals
}
