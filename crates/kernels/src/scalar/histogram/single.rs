//! 32-bit values: too many to count, so look over them, and come back when asked.
//!
//! Cost: looking over takes 0.6 ns a value; sorting, for small groups and where bounds do not help, about 20.
//! Wrong choice: values that began as 16-bit floats, which `half` counts.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::summary::Summary;
use crate::assign::{Borders, single};
use crate::scalar::branch_and_bound::{self, Group, Precision};
use crate::scalar::lagrangian::{self, Clusters};
use crate::scalar::points::Points;
use crate::scalar::radix_sort::{key, radix, unkey};
use crate::simd::dispatch;
use crate::stop::Stop;
use crate::weights::Weights;

/// Values looked at by one task; also the unit in which sums are added up.
const CHUNK: usize = 1 << 17;

/// A group of 32-bit floats.
#[derive(Debug)]
pub(super) struct SingleHistogram<'a> {
    values: &'a [f32],
    weights: Weights<'a>,
    precision: Precision,
    pub(super) summary: Summary,
    /// All points, sorted; made when first asked for.
    points: OnceLock<Points<'a>>,
    pub(super) stop: Stop<'a>,
}

impl<'a> SingleHistogram<'a> {
    pub(super) fn new(values: &'a [f32], mut weights: Weights<'a>, precision: Precision) -> Self {
        let parts: Vec<Scan> = values.par_chunks(CHUNK).map(scan).collect();
        let mut summary = Summary::default();
        let mut range = (f32::INFINITY, f32::NEG_INFINITY);
        for (part, chunk) in parts.iter().zip(values.chunks(CHUNK)) {
            summary.energy += part.energy;
            summary.zeros += u64::from(part.zeros);
            range = (range.0.min(part.min), range.1.max(part.max));
            if part.non_finite > 0 {
                for x in chunk {
                    summary.nan += u64::from(x.is_nan());
                    summary.infinite += u64::from(*x == f32::INFINITY);
                    summary.negative_infinite += u64::from(*x == f32::NEG_INFINITY);
                }
            }
        }
        if range.0 <= range.1 {
            // +0, whichever zero came first.
            summary.range = Some((range.0 + 0.0, range.1 + 0.0));
        }
        if !weights.is_equal() {
            let counts = |i: usize| weights.at(i) > 0.0 && values[i].is_finite();
            if !(0..values.len()).any(counts) {
                weights = Weights::Equal;
            }
        }
        SingleHistogram {
            values,
            weights,
            precision,
            summary,
            points: OnceLock::new(),
            stop: Stop::default(),
        }
    }

    pub(super) fn cluster(&self, k: usize) -> Clusters {
        if let Some(range) = self.summary.range {
            let group = Group {
                values: self.values,
                weights: self.weights,
                range,
                finite: self.summary.non_finite() == 0,
                precision: self.precision,
                stop: self.stop,
            };
            if let Some(clusters) = branch_and_bound::cluster(&group, k.max(1)) {
                return clusters;
            }
        }
        if self.stop.requested() {
            return Clusters::default();
        }
        lagrangian::cluster(self.points(), k)
    }

    /// All finite values that have a weight.
    fn points(&self) -> &Points<'a> {
        self.points.get_or_init(|| {
            if self.weights.is_equal() {
                return points_of(&self.sorted(), |key| (key, 1.0), self.stop);
            }
            let mut pairs: Vec<(u32, f32)> = Vec::with_capacity(self.values.len());
            self.weights.each(0, self.values.len(), |i, w| {
                let x = self.values[i];
                if x.is_finite() && w > 0.0 {
                    pairs.push((key(x + 0.0), w as f32));
                }
            });
            let sorted = radix(pairs, |pair: (u32, f32)| pair.0, self.stop);
            points_of(&sorted, |(key, w)| (key, f64::from(w)), self.stop)
        })
    }

    /// Distinct finite values, ascending, or `None` if there are more than `limit`.
    pub(super) fn distinct(&self, limit: usize) -> Option<Vec<f32>> {
        // Open addressing: 0 stands for an empty slot, and no value, -0 being counted as +0, has the key 0x7fff_ffff.
        let slots = (limit.clamp(1, 1 << 16) * 2).next_power_of_two();
        let mut table = vec![0_u32; slots];
        let mut found = Vec::new();
        for &x in self.values.iter().filter(|x| x.is_finite()) {
            let mark = key(x + 0.0) ^ 0x7fff_ffff;
            let mut at = (mark.wrapping_mul(0x9e37_79b1) >> 7) as usize & (slots - 1);
            while table[at] != 0 && table[at] != mark {
                at = (at + 1) & (slots - 1);
            }
            if table[at] == 0 {
                if found.len() == limit {
                    return None;
                }
                table[at] = mark;
                found.push(x + 0.0);
            }
        }
        found.sort_unstable_by(f32::total_cmp);
        Some(found)
    }

    /// Number of distinct finite values.
    pub(super) fn distinct_count(&self) -> usize {
        self.sorted().chunk_by(|a, b| a == b).count()
    }

    /// The keys of the finite values, ascending.
    fn sorted(&self) -> Vec<u32> {
        let key_of = |&x: &f32| key(x + 0.0);
        let keys = if self.summary.non_finite() == 0 {
            self.values.iter().map(key_of).collect()
        } else {
            let finite = self.values.iter().filter(|x| x.is_finite());
            finite.map(key_of).collect()
        };
        radix(keys, |key: u32| key, self.stop)
    }

    pub(super) fn assign(&self, borders: &Borders, indices: &mut [u8]) -> f64 {
        single::assign(
            borders,
            self.values,
            self.summary.non_finite() == 0,
            indices,
        )
    }
}

/// Distinct values and their weights, from sorted keys; none if it is stopped. Each is written, and moved on from when the next differs.
fn points_of<'s, T: Copy>(
    sorted: &[T],
    part: impl Fn(T) -> (u32, f64),
    stop: Stop<'s>,
) -> Points<'s> {
    let mut points = Points::new(stop);
    if stop.requested() {
        return points;
    }
    points.x.resize(sorted.len(), 0.0);
    points.w.resize(sorted.len(), 0.0);
    let mut at = 0;
    let mut sum = 0.0;
    let mut last = None;
    for (key, w) in sorted.iter().map(|&item| part(item)) {
        let same = last == Some(key);
        at += usize::from(!same && last.is_some());
        sum = if same { sum + w } else { w };
        points.x[at] = f64::from(unkey(key));
        points.w[at] = sum;
        last = Some(key);
    }
    let len = sorted.len().min(at + 1);
    points.x.truncate(len);
    points.w.truncate(len);
    points
}

/// What is learnt of some values at once.
struct Scan {
    non_finite: u32,
    zeros: u32,
    min: f32,
    max: f32,
    energy: f64,
}

dispatch! {
    fn scan(values: &[f32]) -> Scan = scan_body
}

#[inline(always)]
fn scan_body(values: &[f32]) -> Scan {
    const BLOCK: usize = 16;
    let (mut odd, mut zeros) = ([0_u32; BLOCK], [0_u32; BLOCK]);
    let (mut min, mut max) = ([f32::INFINITY; BLOCK], [f32::NEG_INFINITY; BLOCK]);
    let mut energy = [0.0_f64; BLOCK];
    for chunk in values.chunks(BLOCK) {
        // What is missing at the end is counted as not finite here and taken off below.
        let block = <[f32; BLOCK]>::try_from(chunk).unwrap_or_else(|_| {
            let mut block = [f32::NAN; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        });
        for l in 0..BLOCK {
            let x = block[l];
            let finite = x.abs() < f32::INFINITY;
            odd[l] += u32::from(!finite);
            zeros[l] += u32::from(x == 0.0);
            let (low, high) = if finite {
                (x, x)
            } else {
                (f32::INFINITY, f32::NEG_INFINITY)
            };
            min[l] = if low < min[l] { low } else { min[l] };
            max[l] = if high > max[l] { high } else { max[l] };
            let x = f64::from(if finite { x } else { 0.0 });
            energy[l] += x * x;
        }
    }
    let missing = (BLOCK - values.len() % BLOCK) % BLOCK;
    Scan {
        non_finite: odd.iter().sum::<u32>() - missing as u32,
        zeros: zeros.iter().sum(),
        min: min.into_iter().fold(f32::INFINITY, f32::min),
        max: max.into_iter().fold(f32::NEG_INFINITY, f32::max),
        energy: energy.iter().sum(),
    }
}
