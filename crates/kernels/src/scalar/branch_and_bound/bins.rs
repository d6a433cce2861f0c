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

use crate::scalar::lagrangian::cube_root;
use crate::scalar::radix_sort::{key, radix, unkey};
use crate::simd::nearest_whole;
use crate::stop::Stop;

/// Values looked at to find the middle.
const MEDIAN: usize = 1 << 10;
/// Values looked at to learn the distribution, at most and at least; else one of sixteen.
const SAMPLE: (usize, usize) = (1 << 12, 1 << 16);
/// Bits of a key that select a cell: sign, exponent and four more.
const CELL_BITS: u32 = 13;
const CELLS: usize = 1 << CELL_BITS;
/// Bins of a cell in which the sample has nothing.
const SPARE: usize = 4;

/// Cuts the number line into bins.
#[derive(Debug)]
pub(super) struct Bins {
    /// Median of the sample, -0 if that is zero; sums are taken relative to it.
    pub(super) anchor: f32,
    /// The greatest value, relative to it.
    most: f32,
    /// Of each cell, see [`Cell`], how it is cut.
    cells: Vec<u64>,
    /// Number of bins.
    pub(super) len: usize,
    /// Once some are split: the first part of each bin, or [`CLOSED`].
    pub(super) split: Vec<u32>,
    /// Parts of each bin that is split.
    pub(super) parts: f32,
}

/// Where a value falls that no bin is open for.
pub(super) const CLOSED: u32 = u32::MAX;

/// A cell of the table, of which each begins where its leading bits say.
#[derive(Clone, Copy)]
struct Cell {
    /// Bins for each unit of length.
    scale: f32,
    /// Its first bin, or [`CLOSED`] outside of the range.
    base: u32,
}

impl Cell {
    /// In one number, which one load fetches.
    fn packed(self) -> u64 {
        u64::from(self.base) << 32 | u64::from(self.scale.to_bits())
    }

    #[inline(always)]
    fn unpacked(packed: u64) -> Self {
        Cell {
            scale: f32::from_bits(packed as u32),
            base: (packed >> 32) as u32,
        }
    }
}

impl Bins {
    /// About `target` bins for `values`, whose finite ones lie in `range`.
    pub(super) fn new(values: &[f32], range: (f32, f32), target: usize) -> Self {
        let sample = |size: usize| {
            let every = values.iter().step_by((values.len() / size).max(1));
            every.copied().filter(|x| x.is_finite())
        };
        let sorted = radix(
            sample(MEDIAN).map(|x| key(x + 0.0)).collect(),
            |key| key,
            Stop::default(),
        );
        let anchor = sorted.get(sorted.len() / 2);
        let anchor = anchor.map_or(range.0, |&key| unkey(key));
        // Less -0, both zeros are +0; less +0, -0 would stay what it is and fall below a range that begins with zero.
        let anchor = if anchor == 0.0 { -0.0 } else { anchor };
        let mut counts = vec![0_u32; CELLS];
        for x in sample((values.len() / 16).clamp(SAMPLE.0, SAMPLE.1)) {
            counts[cell(x - anchor)] += 1;
        }
        let range = (range.0 - anchor, range.1 - anchor);
        let numbers = allot(&counts, range, target);
        let closed = Cell {
            scale: 0.0,
            base: CLOSED,
        };
        let mut bins = Bins {
            anchor,
            most: range.1,
            cells: vec![closed.packed(); CELLS],
            len: 0,
            split: Vec::new(),
            parts: 1.0,
        };
        for (c, number) in (cell(range.0)..).zip(numbers) {
            let (low, high) = ends(c);
            // The greatest value comes so near the last bin that no other is nearer.
            let scale = (number - 1) as f32 / (high.min(range.1) - low);
            let usable = scale.is_finite() && scale > 0.0;
            let cell = Cell {
                scale: if usable { scale } else { 0.0 },
                base: bins.len as u32,
            };
            bins.cells[c] = cell.packed();
            bins.len += number;
        }
        bins
    }

    /// Bin of a value relative to the anchor, finite and in the range, and where it lies in it, from -0.5 to 0.5. Both rise
    /// with the value.
    #[inline(always)]
    pub(super) fn place(&self, y: f32) -> (usize, f32) {
        let cell = Cell::unpacked(self.cells[cell(y)]);
        let part = (y - origin(key(y))) * cell.scale;
        let bin = nearest_whole(part);
        (cell.base as usize + bin, part - bin as f32)
    }

    /// The bins of values that are finite and in the range; the same as [`place`](Self::place), step by step for all of them.
    #[inline(always)]
    pub(super) fn places<const N: usize>(&self, values: &[f32; N]) -> [u32; N] {
        let (mut y, mut keys) = ([0.0; N], [0_u32; N]);
        let (mut cells, mut bins) = ([0_u64; N], [0_u32; N]);
        for i in 0..N {
            y[i] = values[i] - self.anchor;
            keys[i] = key(y[i]);
        }
        if let Some(table) = self.cells.first_chunk::<CELLS>() {
            for i in 0..N {
                cells[i] = table[(keys[i] >> (32 - CELL_BITS)) as usize];
            }
        }
        for i in 0..N {
            let cell = Cell::unpacked(cells[i]);
            let part = (y[i] - origin(keys[i])) * cell.scale;
            bins[i] = cell.base.wrapping_add(nearest_whole(part) as u32);
        }
        bins
    }

    /// Part of a bin that a value falls into, or [`CLOSED`].
    #[inline(always)]
    pub(super) fn part(&self, x: f32) -> u32 {
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

    /// For the leading 16 bits of a key, whether a value with them may lie in a bin that is wanted.
    pub(super) fn sieve(&self, wanted: impl Fn(usize) -> bool) -> Vec<u8> {
        const FINE: u32 = 16 - CELL_BITS;
        let mut sieve = vec![0; 1 << 16];
        let any = |first: usize, last: usize| (first..=last).any(&wanted);
        let count = if self.is_split() {
            self.split.len()
        } else {
            self.len
        };
        let bases = self.cells.iter().map(|&cell| Cell::unpacked(cell).base);
        let mut open = bases
            .enumerate()
            .filter(|(_, base)| *base != CLOSED)
            .peekable();
        while let Some((c, base)) = open.next() {
            let first = base as usize;
            let end = open.peek().map_or(count, |(_, next)| *next as usize);
            if !any(first, end - 1) {
                continue;
            }
            // The last cell goes on beyond the range.
            let bin = |key: u32| self.place(unkey(key).min(self.most)).0;
            let leading = (c << FINE..).zip(&mut sieve[c << FINE..(c + 1) << FINE]);
            for (leading, pass) in leading {
                let low = (leading as u32) << 16;
                *pass = u8::from(any(bin(low), bin(low | 0xffff)));
            }
        }
        sieve
    }
}

/// Where the cell of a key begins.
#[inline(always)]
fn origin(key: u32) -> f32 {
    unkey(key & (u32::MAX << (32 - CELL_BITS)))
}

/// The cell of a value relative to the anchor.
#[inline(always)]
fn cell(y: f32) -> usize {
    (key(y) >> (32 - CELL_BITS)) as usize
}

/// The least and the greatest value of a cell.
fn ends(cell: usize) -> (f32, f32) {
    let (first, rest) = ((cell as u32) << (32 - CELL_BITS), u32::MAX >> CELL_BITS);
    (unkey(first), unkey(first | rest))
}

/// How many of about `target` bins each cell of a range gets, given how much of a sample each has.
fn allot(counts: &[u32], range: (f32, f32), target: usize) -> Vec<usize> {
    let counts = (cell(range.0)..=cell(range.1)).map(|c| (c, counts[c]));
    let share = |(c, count): (usize, u32)| {
        let (low, high) = ends(c);
        let span = f64::from(high.min(range.1)) - f64::from(low.max(range.0));
        match span > 0.0 {
            true => cube_root(f64::from(count).max(0.5) * span * span),
            false => 0.0,
        }
    };
    // Cells in which the sample has nothing share a quarter of the bins: they may hold the tails.
    let mut whole = [f64::MIN_POSITIVE; 2];
    for (c, count) in counts.clone() {
        whole[usize::from(count > 0)] += share((c, count));
    }
    let number = |(c, count)| {
        let seen = usize::from(count > 0);
        let part = share((c, count)) / whole[seen] * target as f64 * [0.25, 0.75][seen];
        (part as usize).max(SPARE)
    };
    counts.map(number).collect()
}
