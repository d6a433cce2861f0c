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
        let small = match weights.is_equal() {
            true => SMALL,
            false => SMALL_WEIGHTED,
        };
        let patterns = if bits.len() < small {
            Patterns::sorted(bits, weights)
        } else {
            Patterns::counted(bits, weights)
        };
        let mut group = HalfHistogram {
            bits,
            infinity,
            values: Vec::new(),
            counts: Vec::new(),
            weights: None,
            summary: Summary::default(),
        };
        group.take(patterns, decode);
        group.summary.finish(&group.values, &group.counts);
        group
    }

    /// Takes over the patterns that are finite, with the two zeros as one; the others are only counted.
    fn take(&mut self, patterns: Patterns, decode: fn(u16) -> f32) {
        let Patterns {
            bits,
            mut counts,
            mut weights,
        } = patterns;
        let finite = |bits: &u16| bits & 0x7fff < self.infinity;
        let first = bits.iter().position(finite).unwrap_or(bits.len());
        let end = bits.iter().rposition(finite).map_or(first, |at| at + 1);
        for (at, &bits) in bits.iter().enumerate() {
            if (first..end).contains(&at) {
                continue;
            }
            *match (bits & 0x7fff == self.infinity, bits >> 15 == 0) {
                (false, _) => &mut self.summary.nan,
                (true, true) => &mut self.summary.infinite,
                (true, false) => &mut self.summary.negative_infinite,
            } += counts[at];
        }
        let of_finite = bits[first..end].iter();
        self.values = of_finite.map(|&bits| decode(bits) + 0.0).collect();
        counts.truncate(end);
        counts.drain(..first);
        if !weights.is_empty() {
            weights.truncate(end);
            weights.drain(..first);
        }
        if let Some(at) = self.values.windows(2).position(|pair| pair[0] == pair[1]) {
            self.values.remove(at);
            counts[at] += counts.remove(at + 1);
            if !weights.is_empty() {
                weights[at] += weights.remove(at + 1);
            }
        }
        self.counts = counts;
        self.weights = weights.iter().any(|&w| w != 0.0).then_some(weights);
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

/// The bit patterns that occur, in ascending order of what they stand for, and how often.
struct Patterns {
    bits: Vec<u16>,
    counts: Vec<u64>,
    /// Sums of the weights; empty where these are the counts.
    weights: Vec<f64>,
}

impl Patterns {
    fn sorted(bits: &[u16], weights: Weights<'_>) -> Self {
        let order = |bits: u16| key(bits) as u16 ^ 0x8000;
        if weights.is_equal() {
            let keys = bits.iter().map(|&bits| order(bits)).collect();
            let sorted = by_digits::<u16, 2, 256>(keys, u32::from, Stop::default());
            return Patterns::of_runs(&sorted, |&key| (key, None));
        }
        let mut pairs = vec![(0, 0.0); bits.len()];
        weights.each(0, bits.len(), |i, w| pairs[i] = (order(bits[i]), w as f32));
        let sorted =
            by_digits::<(u16, f32), 2, 256>(pairs, |pair| u32::from(pair.0), Stop::default());
        Patterns::of_runs(&sorted, |&(key, w)| (key, Some(f64::from(w))))
    }

    /// From sorted keys. Each is written, and moved on from when the next differs: how long a run is, is hard to guess for the processor.
    fn of_runs<T>(sorted: &[T], part: impl Fn(&T) -> (u16, Option<f64>)) -> Self {
        let (mut bits, mut ends) = (vec![0; sorted.len()], vec![0; sorted.len()]);
        let mut sums = Vec::new();
        let (mut at, mut sum) = (0, 0.0);
        let mut last = sorted.first().map_or(0, |first| part(first).0);
        for (i, (key_, w)) in sorted.iter().map(&part).enumerate() {
            let same = key_ == last;
            at += usize::from(!same);
            bits[at] = key(key_ ^ 0x8000) as u16;
            ends[at] = i as u64 + 1;
            last = key_;
            if let Some(w) = w {
                if i == 0 {
                    sums.resize(sorted.len(), 0.0);
                }
                sum = if same { sum + w } else { w };
                sums[at] = sum;
            }
        }
        let len = sorted.len().min(at + 1);
        bits.truncate(len);
        sums.truncate(len);
        let mut before = 0;
        let lengths = ends[..len]
            .iter()
            .map(|&end| end - std::mem::replace(&mut before, end));
        Patterns {
            bits,
            counts: lengths.collect(),
            weights: sums,
        }
    }

    fn counted(bits: &[u16], weights: Weights<'_>) -> Self {
        let counts: Vec<u64> = totals(bits.par_chunks(CHUNK).map(count).collect());
        let sums: Option<Vec<f64>> = (!weights.is_equal()).then(|| {
            let parts: Vec<Vec<f64>> = bits
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
        let occurs = |&bits: &u16| counts[usize::from(bits)] > 0;
        // Those of negative values rise as the values fall.
        let mut occurring: Vec<u16> = (0x8000..=0xffff).rev().filter(occurs).collect();
        occurring.extend((0..0x8000).filter(occurs));
        let places = || occurring.iter().map(|&bits| usize::from(bits));
        Patterns {
            counts: places().map(|at| counts[at]).collect(),
            weights: sums.map_or_else(Vec::new, |sums| places().map(|at| sums[at]).collect()),
            bits: occurring,
        }
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
