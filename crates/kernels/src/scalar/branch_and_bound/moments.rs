//! Values put into bins: what is kept of each bin, and the values of some of them.
//!
//! Where not all bins are wanted, the leading bits of a value tell first whether it can lie in one that is: most values are sifted out
//! that way, many side by side.
//!
//! Cost: 2 to 4 ns a value; 1 where few bins are wanted. Wrong choice: see [`bins`](super::bins).

use rayon::prelude::*;

use super::bins::{Bins, CLOSED};
use crate::scalar::radix_sort::{key, radix};
use crate::simd::dispatch;
use crate::stop::Stop;
use crate::weights::Weights;

/// Most values put into bins by one task, which has bins of its own; its sums are the unit that is added up.
const CHUNK: usize = 3 << 20;
/// Values gathered by one task.
const GATHER: usize = 1 << 18;
/// More bins than this are filled segment by segment.
const LARGE: usize = 1 << 18;
/// Bins of a segment: as many as fit a cache.
const SEGMENT: usize = 1 << 14;
/// Values put into bins together.
const BLOCK: usize = 64;
/// Values sifted together.
const SIFT: usize = 1 << 14;

/// Moments of the values of one bin: weight, weighted sum and sum of squares relative to the anchor, and number.
pub(super) type Moments = [f64; 4];

impl Bins {
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
        let size = values.len().div_ceil(values.len().div_ceil(CHUNK).max(1));
        let parts: Vec<Vec<Moments>> = values
            .par_chunks(size.max(1))
            .enumerate()
            .map(|(c, chunk)| {
                let mut bins = vec![[0.0; 4]; self.len];
                if self.is_split() {
                    self.sifted(chunk, c * size, weights, &sieve, |x, w| {
                        let part = self.part(x);
                        if part != CLOSED {
                            add(&mut bins[part as usize], moments_of(anchor, x, w));
                        }
                    });
                } else {
                    count(self, chunk, c * size, weights, finite, &mut bins);
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
        radix(parts.concat(), |pair: (u32, f32)| pair.0, Stop::default())
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
}

dispatch! {
    fn count(bins: &Bins, values: &[f32], start: usize, weights: Weights<'_>, finite: bool, moments: &mut [Moments]) = count_body
}

/// A block of values is put into its bins before any of them is added there: else the load of the next value's cell would wait until
/// it is known where the last one is stored. The first value is element `start`.
#[inline(always)]
fn count_body(
    bins: &Bins,
    values: &[f32],
    start: usize,
    weights: Weights<'_>,
    finite: bool,
    moments: &mut [Moments],
) {
    let anchor = f64::from(bins.anchor);
    let mut block = [bins.anchor; BLOCK];
    let (mut w, mut number) = ([1.0_f64; BLOCK], [1.0_f64; BLOCK]);
    let plain = weights.is_equal() && finite;
    for (b, values) in values.chunks(BLOCK).enumerate() {
        block[..values.len()].copy_from_slice(values);
        if !plain {
            weights.each(start + b * BLOCK, values.len(), |i, weight| {
                let counts = block[i].is_finite() && weight > 0.0;
                // what does not count adds nothing, wherever that is
                block[i] = if counts { block[i] } else { bins.anchor };
                w[i] = if counts { weight } else { 0.0 };
                number[i] = f64::from(u8::from(counts));
            });
        }
        let places = bins.places(&block);
        let mut y = [0.0; BLOCK];
        for (y, &x) in y.iter_mut().zip(&block) {
            *y = f64::from(x) - anchor;
        }
        let places = &places[..values.len()];
        if plain {
            for (&place, &y) in places.iter().zip(&y) {
                add(&mut moments[place as usize], [1.0, y, y * y, 1.0]);
            }
        } else {
            for (i, &place) in places.iter().enumerate() {
                let wy = w[i] * y[i];
                add(
                    &mut moments[place as usize],
                    [w[i], wy, wy * y[i], number[i]],
                );
            }
        }
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
        let bin = &mut moments[bins.place(x - bins.anchor).0 - first];
        add(bin, moments_of(anchor, x, f64::from(w)));
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

/// What a value adds to its bin.
#[inline(always)]
fn moments_of(anchor: f64, x: f32, w: f64) -> Moments {
    let y = f64::from(x) - anchor;
    [w, w * y, w * (y * y), 1.0]
}

#[inline(always)]
fn add(bin: &mut Moments, value: Moments) {
    for (sum, value) in bin.iter_mut().zip(value) {
        *sum += value;
    }
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

    /// The greatest value is hardly above the least of its cell, which goes on beyond it: all of a bin's values are found again.
    #[test]
    fn a_range_that_ends_where_a_cell_begins() {
        let step = 2.0_f32.powi(-18);
        for most in [0.5, 0.5_f32.next_up(), 0.53, 0.53125_f32.next_up()] {
            let mut values: Vec<f32> = (-(1 << 17)..1 << 17).map(|i| i as f32 * step).collect();
            values.extend([-most, 0.0, most, most, most]);
            let mut bins = Bins::new(&values, (-most, most), SEGMENT);
            let moments = bins.moments(&values, Weights::Equal, true);
            let number: f64 = moments.iter().map(|bin| bin[3]).sum();
            assert_eq!(number, values.len() as f64);
            let all = |bins: &Bins| bins.gather(&values, Weights::Equal, 0..bins.len as u32);
            assert_eq!(all(&bins).len(), values.len());
            bins.split(0..moments.len() as u32, 3);
            assert_eq!(all(&bins).len(), values.len());
        }
    }
}
