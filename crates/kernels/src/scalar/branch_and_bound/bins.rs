//! A histogram that suits any distribution, without sorting.
//!
//! A sample of the values tells where they are dense. Each is taken relative to the median of the sample and looked up
//! in a table by its sign, exponent and leading bits; every cell of that table is cut into equal bins, and a cell gets
//! as many bins as an optimal quantizer would put centroids there (in proportion to the integral of density^(1/3),
//! after Panter and Dite). So each cluster spans about the same number of bins, however heavy the tails and however
//! far the outliers.
//!
//! Where bins turn out to matter, they are [split](Bins::split) into parts, and only those are counted again.
//!
//! Cost: 2 to 4 ns a value. Wrong choice: for fewer than some ten thousand values, which are sorted in that time.

use rayon::prelude::*;

use crate::scalar::lagrangian::cube_root;
use crate::scalar::radix_sort::{key, radix, unkey};
use crate::simd::{dispatch, nearest_whole};
use crate::weights::Weights;

/// Values put into bins by one task; the unit in which sums are added up.
const CHUNK: usize = 1 << 21;
/// Values gathered by one task.
const GATHER: usize = 1 << 18;
/// More bins than this are filled segment by segment.
const LARGE: usize = 1 << 18;
/// Bins of a segment: as many as fit a cache.
const SEGMENT: usize = 1 << 14;
/// Values sifted together.
const SIFT: usize = 1 << 14;
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
    /// Median of the sample, -0 if that is zero; sums are taken relative to it.
    pub(super) anchor: f32,
    cells: Vec<Cell>,
    /// Number of bins.
    len: usize,
    /// Once some are split: the first part of each bin, or [`CLOSED`].
    split: Vec<u32>,
    /// Parts of each bin that is split.
    parts: f32,
}

/// Where a value falls that no bin is open for.
const CLOSED: u32 = u32::MAX;

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
        // Less -0, both zeros are +0; less +0, -0 would stay what it is and fall below a range that begins with zero.
        let anchor = if anchor == 0.0 { -0.0 } else { anchor };
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
                cube_root(count * span * span)
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
            split: Vec::new(),
            parts: 1.0,
        };
        for (c, &count) in counts.iter().enumerate().take(last + 1).skip(first) {
            let (_, hi, lo) = width(c);
            let seen = count > 0;
            let part = shares[c] / whole[usize::from(seen)]
                * target as f64
                * if seen { 0.75 } else { 0.25 };
            let count = (part as usize).max(SPARE);
            let scale = (count - 1) as f32 / (hi - lo);
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

    /// Bin of a value relative to the anchor, finite and in the range, and where it lies in it, from -0.5 to 0.5. Both rise
    /// with the value.
    #[inline(always)]
    fn place(&self, y: f32) -> (usize, f32) {
        let cell = self.cells[cell(y)];
        let part = (y - cell.origin) * cell.scale;
        let part = if part < cell.last { part } else { cell.last };
        let bin = nearest_whole(part);
        (cell.base as usize + bin, part - bin as f32)
    }

    /// Part of a bin that a value falls into, or [`CLOSED`].
    #[inline(always)]
    fn part(&self, x: f32) -> u32 {
        let (bin, at) = self.place(x - self.anchor);
        let part = (at + 0.5) * self.parts - 0.5;
        let part = if part > 0.0 { part } else { 0.0 };
        let last = self.parts - 1.0;
        let part = if part < last { part } else { last };
        let first = self.split[bin];
        if first == CLOSED {
            CLOSED
        } else {
            first + nearest_whole(part) as u32
        }
    }

    /// Whether bins have been split.
    pub(super) fn is_split(&self) -> bool {
        !self.split.is_empty()
    }

    /// Splits each of the bins `open` into `parts`, which become the bins, and closes all others.
    pub(super) fn split(&mut self, open: impl Iterator<Item = u32>, parts: usize) {
        self.split = vec![CLOSED; self.len];
        let mut len = 0;
        for bin in open {
            self.split[bin as usize] = len as u32;
            len += parts;
        }
        self.parts = parts as f32;
        self.len = len;
    }

    /// Moments of every bin.
    pub(super) fn moments(
        &self,
        values: &[f32],
        weights: Weights<'_>,
        finite: bool,
    ) -> Vec<Moments> {
        if self.len > LARGE && !self.is_split() {
            return self.by_segments(values, weights);
        }
        let sieve = if self.is_split() {
            self.sieve(|bin| self.split[bin] != CLOSED)
        } else {
            Vec::new()
        };
        let anchor = f64::from(self.anchor);
        let parts: Vec<Vec<Moments>> = values
            .par_chunks(CHUNK)
            .enumerate()
            .map(|(c, chunk)| {
                let mut bins = vec![[0.0; 4]; self.len];
                let moments = |x: f32, w: f64| {
                    let y = f64::from(x) - anchor;
                    [w, w * y, w * (y * y), 1.0]
                };
                if self.is_split() {
                    self.sifted(chunk, c * CHUNK, weights, &sieve, |x, w| {
                        let part = self.part(x);
                        if part != CLOSED {
                            add(&mut bins[part as usize], moments(x, w));
                        }
                    });
                } else if weights.is_equal() && finite {
                    count(self, chunk, &mut bins);
                } else {
                    weights.each(c * CHUNK, chunk.len(), |i, w| {
                        let x = chunk[i];
                        if x.is_finite() && w > 0.0 {
                            add(&mut bins[self.place(x - self.anchor).0], moments(x, w));
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

    /// The same for more bins than a cache holds: the values are put in order of the segments of the table first.
    fn by_segments(&self, values: &[f32], weights: Weights<'_>) -> Vec<Moments> {
        let segments = self.len.div_ceil(SEGMENT);
        let parts: Vec<_> = values
            .par_chunks(GATHER)
            .enumerate()
            .map(|(c, chunk)| {
                let mut segment = vec![0_u16; chunk.len()];
                // Those that do not count come after the last segment.
                let mut ends = vec![0; segments + 1];
                weights.each(c * GATHER, chunk.len(), |i, w| {
                    let x = chunk[i];
                    let to = if x.is_finite() && w > 0.0 {
                        self.place(x - self.anchor).0 / SEGMENT
                    } else {
                        segments
                    };
                    segment[i] = to as u16;
                    ends[to] += 1;
                });
                let mut at = 0;
                for end in &mut ends {
                    at += std::mem::replace(end, at);
                }
                let mut pairs = vec![(0.0_f32, 0.0_f32); chunk.len()];
                weights.each(c * GATHER, chunk.len(), |i, w| {
                    let end = &mut ends[usize::from(segment[i])];
                    pairs[*end] = (chunk[i], w as f32);
                    *end += 1;
                });
                (pairs, ends)
            })
            .collect();
        let mut bins = vec![[0.0; 4]; self.len];
        bins.par_chunks_mut(SEGMENT)
            .enumerate()
            .for_each(|(s, segment)| {
                for (pairs, ends) in &parts {
                    let start = if s > 0 { ends[s - 1] } else { 0 };
                    count_weighted(self, &pairs[start..ends[s]], s * SEGMENT, segment);
                }
            });
        bins
    }

    /// The values in the bins marked, with their weights, sorted.
    pub(super) fn gather(
        &self,
        values: &[f32],
        weights: Weights<'_>,
        marked: impl Iterator<Item = u32>,
    ) -> Vec<(u32, f32)> {
        let mut flags = vec![false; self.len];
        marked.for_each(|bin| flags[bin as usize] = true);
        let sieve = self.sieve(|bin| match self.split.get(bin) {
            None => flags[bin],
            Some(&CLOSED) => false,
            Some(&first) => flags[first as usize..][..self.parts as usize].contains(&true),
        });
        let parts: Vec<Vec<(u32, f32)>> = values
            .par_chunks(GATHER)
            .enumerate()
            .map(|(c, chunk)| {
                let mut found = Vec::with_capacity(chunk.len() / 16);
                self.sifted(chunk, c * GATHER, weights, &sieve, |x, w| {
                    let wanted = if self.is_split() {
                        let part = self.part(x);
                        part != CLOSED && flags[part as usize]
                    } else {
                        flags[self.place(x - self.anchor).0]
                    };
                    if wanted {
                        found.push((key(x + 0.0), w as f32));
                    }
                });
                found
            })
            .collect();
        radix(parts.concat(), |pair: (u32, f32)| pair.0)
    }

    /// Visits the finite values that a sieve lets through and their weights, if positive; the first is element `start`.
    #[inline(always)]
    fn sifted(
        &self,
        values: &[f32],
        start: usize,
        weights: Weights<'_>,
        sieve: &[u8],
        mut visit: impl FnMut(f32, f64),
    ) {
        let mut places = Vec::with_capacity(SIFT);
        for (c, chunk) in values.chunks(SIFT).enumerate() {
            places.clear();
            sift(self.anchor, chunk, sieve, &mut places);
            for &at in &places {
                let x = chunk[at as usize];
                let w = weights.at(start + c * SIFT + at as usize);
                if x.is_finite() && w > 0.0 {
                    visit(x, w);
                }
            }
        }
    }

    /// For the leading 16 bits of a key, whether a value with them may lie in a bin that is wanted.
    fn sieve(&self, wanted: impl Fn(usize) -> bool) -> Vec<u8> {
        const FINE: u32 = 16 - CELL_BITS;
        let mut sieve = vec![0; 1 << 16];
        let any = |first: usize, last: usize| (first..=last).any(&wanted);
        for (c, cell) in self.cells.iter().enumerate() {
            let first = cell.base as usize;
            if cell.base == u32::MAX || !any(first, first + cell.last as usize) {
                continue;
            }
            let bin = |key: u32| self.place(unkey(key)).0;
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
        add(
            &mut moments[bins.place(x - bins.anchor).0],
            [1.0, y, y * y, 1.0],
        );
    }
}

dispatch! {
    fn count_weighted(bins: &Bins, pairs: &[(f32, f32)], first: usize, moments: &mut [Moments]) = count_weighted_body
}

/// Values and weights that fall into the bins from `first` on.
#[inline(always)]
fn count_weighted_body(bins: &Bins, pairs: &[(f32, f32)], first: usize, moments: &mut [Moments]) {
    let anchor = f64::from(bins.anchor);
    for &(x, w) in pairs {
        let (y, w) = (f64::from(x) - anchor, f64::from(w));
        add(
            &mut moments[bins.place(x - bins.anchor).0 - first],
            [w, w * y, w * (y * y), 1.0],
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins of the same values, filled in different ways.
    #[test]
    fn every_way_to_count_agrees() {
        let mut values: Vec<f32> = (0..400_000_u32)
            .map(|i| {
                let x = f64::from(i.wrapping_mul(0x9e37_79b1)) / f64::from(u32::MAX) - 0.4;
                (x * x * x) as f32
            })
            .collect();
        let range = (-0.064, 0.216_f32);
        values.retain(|x| (range.0..=range.1).contains(x));
        values[7] = f32::NAN;
        let row = [0.5, 0.0, 2.0, 1.0];
        let weights = Weights::Rows {
            len: 100_000,
            weights: &row,
        };
        let mut bins = Bins::new(&values, range, 3 * SEGMENT);
        let whole = bins.moments(&values, weights, false);
        let same = |a: &Moments, b: &Moments| {
            a[3] == b[3] && (0..3).all(|i| (a[i] - b[i]).abs() <= 1e-12 * a[0])
        };
        let segments = bins.by_segments(&values, weights);
        assert!(bins.len > 2 * SEGMENT && whole.len() == segments.len());
        assert!(whole.iter().zip(&segments).all(|(a, b)| same(a, b)));

        let open: Vec<u32> = (0..bins.len as u32).filter(|bin| bin % 3 == 1).collect();
        bins.split(open.iter().copied(), 5);
        let parts = bins.moments(&values, weights, false);
        for (&bin, parts) in open.iter().zip(parts.chunks(5)) {
            let mut sum = [0.0; 4];
            parts.iter().for_each(|part| add(&mut sum, *part));
            assert!(same(&whole[bin as usize], &sum));
        }
        let gathered = bins.gather(&values, weights, (0..parts.len() as u32).step_by(2));
        let number: f64 = parts.iter().step_by(2).map(|part| part[3]).sum();
        assert!(number > 1000.0 && gathered.len() as f64 == number);
    }
}
