//! Vectors put in an order in which neighbours are near, so that a few of them need few centroids.
//!
//! Each coordinate is reduced to a few bits by quantiles of a sample, the bits are interleaved (Z-order), and the
//! vectors are sorted by that. Consecutive vectors then have a small bounding box, and most centroids are ruled out
//! for a box at a time: first for blocks of 256, then for the sixteen vectors of a tile.
//!
//! Cost: ordering takes some 30 ns a vector, once; finding the nearest of 256 centroids 30 to 60 in four dimensions.
//! Wrong choice: in high dimensions, where boxes are large and nothing is ruled out.
//! Source: Morton 1966; the filtering of Kanungo et al. 2002, with blocks in place of a tree.

use std::ops::Range;

use rayon::prelude::*;

use super::nearest_centroid::{Centroids, Shortlist, TILE};
use crate::simd::dispatch;
use crate::stop::Stop;

/// Vectors in a block.
const BLOCK: usize = 256;
/// Blocks of one task; the unit in which sums are added up.
const TASK: usize = 64;
/// Vectors looked at for the quantiles.
const SAMPLE: usize = 4096;

/// Vectors in their order.
pub(super) struct OrderedVectors {
    pub(super) dim: usize,
    /// Number of vectors.
    pub(super) len: usize,
    /// Coordinates: for each sixteen vectors, `dim` rows of sixteen. The last ones are repeated to fill up.
    pub(super) tiles: Vec<f32>,
    /// Weights in the same order, unless all are one; zero for repeated ones.
    pub(super) weights: Option<Vec<f32>>,
    /// Original position of each vector.
    order: Vec<u32>,
    /// For each sixteen, least and then greatest coordinates.
    boxes: Vec<f32>,
}

/// Room for [`OrderedVectors::nearest`] to work in, and what it finds: squared distances and indices.
struct Block {
    lo: Vec<f32>,
    hi: Vec<f32>,
    candidates: Shortlist,
    distance: [f32; BLOCK],
    index: [u8; BLOCK],
}

impl OrderedVectors {
    pub(super) fn new(values: &[f32], dim: usize, weights: Option<&[f32]>) -> Self {
        let len = values.len() / dim;
        let order = order(values, dim, len);
        let padded = len.div_ceil(TILE) * TILE;
        let mut tiles = vec![0.0; padded * dim];
        for (tile, rows) in tiles.chunks_exact_mut(TILE * dim).zip(order.chunks(TILE)) {
            for lane in 0..TILE {
                let from = rows[lane.min(rows.len() - 1)] as usize * dim;
                for (d, x) in values[from..from + dim].iter().enumerate() {
                    tile[d * TILE + lane] = *x;
                }
            }
        }
        let weights = weights.map(|w| {
            let mut sorted: Vec<f32> = order.iter().map(|&i| w[i as usize]).collect();
            sorted.resize(padded, 0.0);
            sorted
        });
        let mut boxes = Vec::with_capacity(padded / TILE * 2 * dim);
        for tile in tiles.chunks_exact(TILE * dim) {
            let rows = tile.as_chunks::<TILE>().0;
            boxes.extend(rows.iter().map(|row| fold(row, |a, b| a < b)));
            boxes.extend(rows.iter().map(|row| fold(row, |a, b| a > b)));
        }
        OrderedVectors {
            dim,
            len,
            tiles,
            weights,
            order,
            boxes,
        }
    }

    /// Runs of vectors, given by their blocks, each for one task.
    pub(super) fn tasks(&self) -> Vec<Range<usize>> {
        let blocks = self.len.div_ceil(BLOCK);
        let tasks = (0..blocks).step_by(TASK);
        tasks
            .map(|first| first..(first + TASK).min(blocks))
            .collect()
    }

    /// Original position of the vector at `at`.
    pub(super) fn original(&self, at: usize) -> usize {
        self.order[at] as usize
    }

    /// Weight of the vector at `at`.
    pub(super) fn weight(&self, at: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| f64::from(w[at]))
    }

    /// Coordinates of the vector at `at`.
    pub(super) fn vector(&self, at: usize) -> impl Iterator<Item = f32> + '_ {
        let tile = &self.tiles[at / TILE * TILE * self.dim..];
        (0..self.dim).map(move |d| tile[d * TILE + at % TILE])
    }

    /// Visits blocks: the place of the first vector, squared distances to the nearest centroids, and their indices.
    #[inline(always)]
    pub(super) fn visit_blocks(
        &self,
        blocks: Range<usize>,
        centroids: &Centroids,
        mut visit: impl FnMut(usize, &[f32], &[u8]),
    ) {
        let mut block = Block {
            lo: Vec::new(),
            hi: Vec::new(),
            candidates: Shortlist::default(),
            distance: [0.0; BLOCK],
            index: [0; BLOCK],
        };
        for number in blocks {
            self.nearest(number, centroids, &mut block);
            let start = number * BLOCK;
            let len = (self.len - start).min(BLOCK);
            visit(start, &block.distance[..len], &block.index[..len]);
        }
    }

    /// The same for all vectors, one by one, in order.
    #[inline(always)]
    pub(super) fn visit_nearest(
        &self,
        centroids: &Centroids,
        mut visit: impl FnMut(usize, f32, usize),
    ) {
        self.visit_blocks(
            0..self.len.div_ceil(BLOCK),
            centroids,
            |start, distances, indices| {
                for (at, (&distance, &c)) in (start..).zip(distances.iter().zip(indices)) {
                    visit(at, distance, usize::from(c));
                }
            },
        );
    }

    /// The nearest centroids of one block.
    fn nearest(&self, number: usize, centroids: &Centroids, block: &mut Block) {
        let size = TILE * self.dim;
        let tiles = (number * BLOCK / TILE..(number + 1) * BLOCK / TILE)
            .take_while(|t| t * size < self.tiles.len());
        let Block {
            lo,
            hi,
            candidates,
            distance,
            index,
        } = block;
        lo.clear();
        hi.clear();
        for t in tiles.clone() {
            let (low, high) = self.bounds(t);
            if lo.is_empty() {
                lo.extend_from_slice(low);
                hi.extend_from_slice(high);
            }
            lo.iter_mut()
                .zip(low)
                .for_each(|(all, x)| *all = all.min(*x));
            hi.iter_mut()
                .zip(high)
                .for_each(|(all, x)| *all = all.max(*x));
        }
        centroids.all.shorten(lo, hi, candidates);
        let distances = distance.as_chunks_mut::<TILE>().0.iter_mut();
        let outs = distances.zip(index.as_chunks_mut::<TILE>().0);
        for (t, out) in tiles.zip(outs) {
            let (low, high) = self.bounds(t);
            candidates.nearest(&self.tiles[t * size..(t + 1) * size], low, high, out);
        }
    }

    /// Least and greatest coordinates of a tile.
    pub(super) fn bounds(&self, tile: usize) -> (&[f32], &[f32]) {
        self.boxes[tile * 2 * self.dim..(tile + 1) * 2 * self.dim].split_at(self.dim)
    }

    /// Fills the index of every vector; returns the weighted squared error. If it is stopped, both are of no use.
    pub(super) fn assign(&self, centroids: &[f32], indices: &mut [u8], stop: Stop<'_>) -> f64 {
        if centroids.len() < self.dim {
            indices.fill(0);
            return 0.0;
        }
        let centroids = &Centroids::new(centroids, self.dim);
        let tasks = self.tasks().into_par_iter();
        let parts: Vec<_> = tasks
            .map(|task| match stop.requested() {
                true => (Vec::new(), 0.0),
                false => self.assign_task(task, centroids),
            })
            .collect();
        let mut cost = 0.0;
        let mut at = 0;
        for (found, part) in parts {
            for index in found {
                indices[self.order[at] as usize] = index;
                at += 1;
            }
            cost += part;
        }
        cost
    }

    fn assign_task(&self, blocks: Range<usize>, centroids: &Centroids) -> (Vec<u8>, f64) {
        let (mut found, mut cost) = (Vec::new(), 0.0);
        self.visit_blocks(blocks, centroids, |start, _, indices| {
            for (at, &index) in (start..).zip(indices) {
                let pairs = self.vector(at).zip(centroids.row(usize::from(index)));
                let differences = pairs.map(|(x, c)| f64::from(x) - f64::from(*c));
                cost += self.weight(at) * differences.map(|d| d * d).sum::<f64>();
            }
            found.extend_from_slice(indices);
        });
        (found, cost)
    }
}

/// The first of the lanes by an order, compared half with half.
#[inline(always)]
fn fold(row: &[f32; TILE], before: impl Fn(f32, f32) -> bool) -> f32 {
    let mut row = *row;
    let mut half = TILE / 2;
    while half > 0 {
        for l in 0..half {
            // What is not a number never stays.
            let stays = before(row[l], row[l + half]) || row[l + half].is_nan();
            row[l] = if stays { row[l] } else { row[l + half] };
        }
        half /= 2;
    }
    row[0]
}

/// Positions of the vectors in Z-order of their quantiles.
fn order(values: &[f32], dim: usize, len: usize) -> Vec<u32> {
    if len <= BLOCK {
        return (0..len as u32).collect();
    }
    let bits = (16 / dim).clamp(1, 8);
    let used = dim.min(16);
    let step = (len / SAMPLE).max(1);
    let quantiles: Vec<Vec<f32>> = (0..used)
        .map(|d| {
            let mut column: Vec<f32> = (0..len)
                .step_by(step)
                .map(|i| values[i * dim + d])
                .collect();
            column.sort_unstable_by(f32::total_cmp);
            (1..1 << bits)
                .map(|q| column[(q * column.len()) >> bits])
                .collect()
        })
        .collect();
    let mut keys = vec![0_u16; len];
    let chunks = keys
        .par_chunks_mut(1 << 14)
        .zip(values.par_chunks(dim << 14));
    chunks.for_each(|(keys, values)| interleave(values, dim, bits, &quantiles, keys));
    // Counting sort, keeping the order of equals.
    let mut starts = vec![0_u32; 1 << 16];
    for &key in &keys {
        starts[usize::from(key)] += 1;
    }
    let mut at = 0;
    for start in &mut starts {
        at += std::mem::replace(start, at);
    }
    let mut order = vec![0; len];
    for (i, &key) in keys.iter().enumerate() {
        let start = &mut starts[usize::from(key)];
        order[*start as usize] = i as u32;
        *start += 1;
    }
    order
}

dispatch! {
    fn interleave(values: &[f32], dim: usize, bits: usize, quantiles: &[Vec<f32>], keys: &mut [u16]) = interleave_body
}

#[inline(always)]
fn interleave_body(
    values: &[f32],
    dim: usize,
    bits: usize,
    quantiles: &[Vec<f32>],
    keys: &mut [u16],
) {
    let used = quantiles.len();
    for (vector, key) in values.chunks_exact(dim).zip(keys) {
        let mut mixed = 0_u32;
        for (d, (&x, quantiles)) in vector.iter().zip(quantiles).enumerate() {
            let mut rank = 0;
            for bit in (0..bits).rev() {
                rank += usize::from(x > quantiles[rank + (1 << bit) - 1]) << bit;
            }
            for bit in 0..bits {
                mixed |= ((rank as u32 >> bit) & 1) << (bit * used + d);
            }
        }
        *key = mixed as u16;
    }
}
