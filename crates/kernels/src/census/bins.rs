//! A histogram that suits any distribution, without sorting.
//!
//! A sample of the values tells where they are dense. Each is taken relative to the median of the sample and looked up
//! in a table by its sign, exponent and leading bits; every cell of that table is cut into equal bins, and a cell gets
//! as many bins as an optimal quantizer would put centroids there (in proportion to the integral of density^(1/3),
//! after Panter and Dite). So each cluster spans about the same number of bins, however heavy the tails and however
//! far the outliers.
//!
//! Cost: 2 to 4 ns a value. Wrong choice: for fewer than some ten thousand values, which are sorted in that time.

use rayon::prelude::*;

use super::wide::{key, radix, unkey};
use crate::price::root;
use crate::simd::{dispatch, whole};
use crate::weights::Weights;

/// Values put into bins by one task; the unit in which sums are added up.
const CHUNK: usize = 1 << 21;
/// Values gathered by one task.
const GATHER: usize = 1 << 18;
/// Values looked at to find the middle.
const MEDIAN: usize = 1 << 10;
/// Values looked at to learn the distribution.
const SAMPLE: usize = 1 << 16;
/// Bits of a key that select a cell: sign, exponent and four more.
const CELL_BITS: u32 = 13;
/// Bins of a cell in which the sample has nothing.
const SPARE: usize = 4;

/// Cuts the number line into bins.
#[derive(Debug)]
pub(super) struct Bins {
    /// Median of the sample; sums are taken relative to it.
    pub(super) anchor: f32,
    cells: Vec<Cell>,
    /// Number of bins.
    pub(super) len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    origin: f32,
    scale: f32,
    base: u32,
    last: f32,
}

/// Moments of the values of one bin: weight, weighted sum and sum of squares relative to the anchor, and number.
pub(super) type Moments = [f64; 4];

impl Bins {
    /// About `target` bins for `values`, whose finite ones lie in `range`.
    pub(super) fn new(values: &[f32], range: (f32, f32), target: usize) -> Self {
        let sample = |size: usize| {
            values
                .iter()
                .step_by((values.len() / size).max(1))
                .filter(|x| x.is_finite())
        };
        let sorted = radix(sample(MEDIAN).map(|&x| key(x + 0.0)).collect(), |key| key);
        let anchor = sorted
            .get(sorted.len() / 2)
            .map_or(range.0, |&key| unkey(key));
        let cells = 1 << CELL_BITS;
        let mut counts = vec![0_u32; cells];
        for x in sample(SAMPLE) {
            counts[cell(x - anchor)] += 1;
        }
        let (first, last) = (cell(range.0 - anchor), cell(range.1 - anchor));
        let width = |c: usize| {
            let shift = 32 - CELL_BITS;
            let lo = unkey((c as u32) << shift);
            let hi = unkey(((c as u32) << shift) | ((1 << shift) - 1));
            (lo.max(range.0 - anchor), hi.min(range.1 - anchor), lo)
        };
        let share = |c: usize| {
            let (lo, hi, _) = width(c);
            let span = f64::from(hi) - f64::from(lo);
            let count = f64::from(counts[c]).max(0.5);
            if span > 0.0 {
                root(count * span * span)
            } else {
                0.0
            }
        };
        let shares: Vec<f64> = (0..cells)
            .map(|c| {
                if (first..=last).contains(&c) {
                    share(c)
                } else {
                    0.0
                }
            })
            .collect();
        // Cells in which the sample has nothing share a quarter of the bins: they may hold the tails.
        let mut whole = [f64::MIN_POSITIVE; 2];
        (first..=last).for_each(|c| whole[usize::from(counts[c] > 0)] += shares[c]);
        let mut bins = Bins {
            anchor,
            cells: vec![
                Cell {
                    base: u32::MAX,
                    ..Cell::default()
                };
                cells
            ],
            len: 0,
        };
        for (c, &count) in counts.iter().enumerate().take(last + 1).skip(first) {
            let (_, hi, lo) = width(c);
            let seen = count > 0;
            let part = shares[c] / whole[usize::from(seen)]
                * target as f64
                * if seen { 0.75 } else { 0.25 };
            let count = (part as usize).max(SPARE);
            let scale = count as f32 / (hi - lo);
            let scale = if scale.is_finite() && scale > 0.0 {
                scale
            } else {
                0.0
            };
            bins.cells[c] = Cell {
                origin: lo,
                scale,
                base: bins.len as u32,
                last: (count - 1) as f32,
            };
            bins.len += count;
        }
        bins
    }

    /// Bin of a finite value in the range; rises with the value.
    #[inline(always)]
    pub(super) fn bin(&self, x: f32) -> usize {
        self.place(x - self.anchor)
    }

    /// Bin of a value relative to the anchor.
    #[inline(always)]
    fn place(&self, y: f32) -> usize {
        let cell = self.cells[cell(y)];
        let part = (y - cell.origin) * cell.scale;
        let part = if part < cell.last { part } else { cell.last };
        cell.base as usize + whole(part)
    }

    /// Moments of every bin.
    pub(super) fn moments(
        &self,
        values: &[f32],
        weights: Weights<'_>,
        finite: bool,
    ) -> Vec<Moments> {
        let parts: Vec<Vec<Moments>> = values
            .par_chunks(CHUNK)
            .enumerate()
            .map(|(c, chunk)| {
                let mut bins = vec![[0.0; 4]; self.len];
                let anchor = f64::from(self.anchor);
                if weights.is_equal() && finite {
                    count(self, chunk, &mut bins);
                } else {
                    weights.each(c * CHUNK, chunk.len(), |i, w| {
                        let x = chunk[i];
                        if x.is_finite() && w > 0.0 {
                            let y = f64::from(x) - anchor;
                            add(&mut bins[self.bin(x)], [w, w * y, w * (y * y), 1.0]);
                        }
                    });
                }
                bins
            })
            .collect();
        let mut parts = parts.into_iter();
        let mut bins = parts.next().unwrap_or_default();
        for part in parts {
            bins.iter_mut()
                .zip(part)
                .for_each(|(bin, part)| add(bin, part));
        }
        bins
    }

    /// The values in the bins marked, with their weights, sorted.
    pub(super) fn gather(
        &self,
        values: &[f32],
        weights: Weights<'_>,
        marked: &[bool],
    ) -> Vec<(u32, f32)> {
        let sieve = self.sieve(marked);
        let parts: Vec<Vec<(u32, f32)>> = values
            .par_chunks(GATHER)
            .enumerate()
            .map(|(c, chunk)| {
                let mut maybe = Vec::with_capacity(chunk.len() / 16);
                sift(self.anchor, chunk, &sieve, &mut maybe);
                let mut found = Vec::with_capacity(maybe.len());
                for at in maybe {
                    let x = chunk[at as usize];
                    if x.is_finite() && marked[self.bin(x)] {
                        let w = weights.at(c * GATHER + at as usize);
                        if w > 0.0 {
                            found.push((key(x + 0.0), w as f32));
                        }
                    }
                }
                found
            })
            .collect();
        radix(parts.concat(), |pair: (u32, f32)| pair.0)
    }

    /// For the leading 16 bits of a key, whether a value with them may lie in a marked bin.
    fn sieve(&self, marked: &[bool]) -> Vec<u8> {
        const FINE: u32 = 16 - CELL_BITS;
        let mut sieve = vec![0; 1 << 16];
        let any = |first: usize, last: usize| marked[first..=last].contains(&true);
        for (c, cell) in self.cells.iter().enumerate() {
            let first = cell.base as usize;
            if first >= self.len || !any(first, first + cell.last as usize) {
                continue;
            }
            let bin = |key: u32| self.place(unkey(key));
            let leading = (c << FINE..).zip(&mut sieve[c << FINE..(c + 1) << FINE]);
            for (leading, pass) in leading {
                let low = (leading as u32) << 16;
                *pass = u8::from(any(bin(low), bin(low | 0xffff)));
            }
        }
        sieve
    }
}

dispatch! {
    fn count(bins: &Bins, values: &[f32], moments: &mut [Moments]) = count_body
}

/// Finite values that all count once.
#[inline(always)]
fn count_body(bins: &Bins, values: &[f32], moments: &mut [Moments]) {
    let anchor = f64::from(bins.anchor);
    for &x in values {
        let y = f64::from(x) - anchor;
        add(&mut moments[bins.bin(x)], [1.0, y, y * y, 1.0]);
    }
}

dispatch! {
    fn sift(anchor: f32, values: &[f32], sieve: &[u8], maybe: &mut Vec<u32>) = sift_body
}

/// Places of the values that a sieve lets through. Every place is written, the next one over it if it was not wanted.
#[inline(always)]
fn sift_body(anchor: f32, values: &[f32], sieve: &[u8], maybe: &mut Vec<u32>) {
    const BLOCK: usize = 256;
    let Some((sieve, _)) = sieve.split_first_chunk::<65536>() else {
        return;
    };
    let mut places = [0_u32; BLOCK];
    let mut leading = [0_u16; BLOCK];
    for (b, values) in values.chunks(BLOCK).enumerate() {
        for (leading, &x) in leading.iter_mut().zip(values) {
            *leading = (key(x - anchor) >> 16) as u16;
        }
        let mut len = 0;
        for (i, &leading) in leading[..values.len()].iter().enumerate() {
            places[len & (BLOCK - 1)] = (b * BLOCK + i) as u32;
            len += usize::from(sieve[usize::from(leading)]);
        }
        maybe.extend_from_slice(&places[..len]);
    }
}

#[inline(always)]
fn add(bin: &mut Moments, value: Moments) {
    for (sum, value) in bin.iter_mut().zip(value) {
        *sum += value;
    }
}

#[inline(always)]
fn cell(y: f32) -> usize {
    (key(y) >> (32 - CELL_BITS)) as usize
}
