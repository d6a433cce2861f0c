//! K-means++: each seed is drawn in proportion to the squared distances from the seeds so far. Of a few candidates drawn, the one
//! that lowers the cost most is taken.
//!
//! Only tiles near a candidate are looked at: where all vectors have a seed that is nearer than the box of the tile is to the
//! candidate, nothing changes. With many seeds those are nearly all.
//!
//! Cost: for each candidate, some operations for each tile, and for each vector that is near.
//! Wrong choice: in high dimensions, where boxes are near everything.
//! Source: Arthur and Vassilvitskii 2007; several candidates as in their code and scikit-learn.
//! Our deviations: (1) the tiles that are passed by.

use super::VectorOptions;
use super::nearest_centroid::TILE;
use super::z_order::OrderedVectors;
use crate::random::Random;
use crate::simd::dispatch;

/// Boxes that are looked at side by side.
const SIDE: usize = 8;

/// Adds seeds until there are `k`, or no vector is at any distance from them.
pub(super) fn draw(
    vectors: &OrderedVectors,
    k: usize,
    centroids: &mut Vec<f32>,
    random: &mut Random,
    options: VectorOptions<'_>,
) {
    let dim = vectors.dim;
    let trials = 2 + k.ilog2() as usize / 2;
    let mut rest = Rest::new(vectors);
    let (mut near, mut best_near) = (Vec::new(), Vec::new());
    for seed in centroids.chunks_exact(dim) {
        rest.boxes.near(seed, &mut near);
        rest.lower(seed, &near);
    }
    while centroids.len() < k * dim && !options.stopped() {
        let first = centroids.is_empty();
        let sums = rest.sums(first);
        let total = sums.last().copied().unwrap_or(0.0);
        if !(total > 0.0 && total.is_finite()) {
            return;
        }
        let mut best: Option<(f64, Vec<f32>)> = None;
        for _ in 0..if first { 1 } else { trials } {
            let pick = rest.pick(random.unit() * total, &sums, first);
            let seed: Vec<f32> = vectors.vector(pick).collect();
            rest.boxes.near(&seed, &mut near);
            let gain = if first { 0.0 } else { rest.gain(&seed, &near) };
            if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                best = Some((gain, seed));
                std::mem::swap(&mut near, &mut best_near);
            }
        }
        let Some((_, seed)) = best else { return };
        rest.lower(&seed, &best_near);
        centroids.extend(seed);
    }
}

/// How far the vectors are from the nearest seed.
struct Rest<'a> {
    vectors: &'a OrderedVectors,
    /// Squared distances, infinite without seeds; zero for vectors that do not count.
    squares: Vec<f32>,
    /// For each tile, their sum, weighted.
    masses: Vec<f64>,
    boxes: Boxes,
}

/// The boxes of all tiles, coordinate by coordinate.
struct Boxes {
    /// Tiles, filled up to whole sides.
    width: usize,
    low: Vec<f32>,
    high: Vec<f32>,
    /// The greatest squared distance that a vector of the tile has.
    farthest: Vec<f32>,
}

impl<'a> Rest<'a> {
    fn new(vectors: &'a OrderedVectors) -> Self {
        let tiles = vectors.len.div_ceil(TILE);
        let width = tiles.next_multiple_of(SIDE);
        let column = || vec![0.0; width * vectors.dim];
        let (mut low, mut high) = (column(), column());
        for tile in 0..tiles {
            let (lo, hi) = vectors.bounds(tile);
            for (d, (&lo, &hi)) in lo.iter().zip(hi).enumerate() {
                (low[d * width + tile], high[d * width + tile]) = (lo, hi);
            }
        }
        let mut squares = vec![0.0; tiles * TILE];
        let mut farthest = vec![0.0; width];
        for (i, square) in squares[..vectors.len].iter_mut().enumerate() {
            if vectors.weight(i) > 0.0 {
                (*square, farthest[i / TILE]) = (f32::INFINITY, f32::INFINITY);
            }
        }
        Rest {
            vectors,
            squares,
            masses: vec![f64::INFINITY; tiles],
            boxes: Boxes {
                width,
                low,
                high,
                farthest,
            },
        }
    }

    /// What a vector is drawn in proportion to: its weight, times the squared distance unless it is the first.
    fn mass(&self, i: usize, first: bool) -> f64 {
        match first {
            true if i < self.vectors.len => self.vectors.weight(i),
            true => 0.0,
            false => self.vectors.weight(i) * f64::from(self.squares[i]),
        }
    }

    /// The masses up to each tile, that included.
    fn sums(&self, first: bool) -> Vec<f64> {
        let mut total = 0.0;
        let tiles = 0..self.masses.len();
        tiles
            .map(|tile| {
                total += match first {
                    true => self.lanes(tile).map(|i| self.mass(i, true)).sum(),
                    false => self.masses[tile],
                };
                total
            })
            .collect()
    }

    fn lanes(&self, tile: usize) -> std::ops::Range<usize> {
        tile * TILE..(tile + 1) * TILE
    }

    /// The vector up to which the masses come to more than `goal`.
    fn pick(&self, goal: f64, sums: &[f64], first: bool) -> usize {
        let tile = sums.partition_point(|&sum| sum <= goal).min(sums.len() - 1);
        let mut sum = if tile > 0 { sums[tile - 1] } else { 0.0 };
        let mut last = tile * TILE;
        for i in self.lanes(tile) {
            let mass = self.mass(i, first);
            sum += mass;
            // Rounding may leave the goal beyond the last that can be drawn.
            last = if mass > 0.0 { i } else { last };
            if sum > goal {
                return i;
            }
        }
        last
    }

    /// How much lower a seed makes the cost.
    fn gain(&self, seed: &[f32], near: &[u32]) -> f64 {
        let vectors = self.vectors;
        let weights = vectors.weights.as_deref().unwrap_or_default();
        gain(&vectors.tiles, weights, &self.squares, seed, near)
    }

    /// Adds a seed.
    fn lower(&mut self, seed: &[f32], near: &[u32]) {
        for &tile in near {
            let lanes = self.lanes(tile as usize);
            let columns = &self.vectors.tiles[lanes.start * seed.len()..];
            let found = squares(columns, seed);
            let mut farthest = 0.0;
            for (square, found) in self.squares[lanes.clone()].iter_mut().zip(found) {
                *square = if found < *square { found } else { *square };
                farthest = if *square > farthest {
                    *square
                } else {
                    farthest
                };
            }
            self.boxes.farthest[tile as usize] = farthest;
            self.masses[tile as usize] = lanes.map(|i| self.mass(i, false)).sum();
        }
    }
}

impl Boxes {
    /// The tiles in which a seed may be nearer to a vector than what is there.
    fn near(&self, seed: &[f32], near: &mut Vec<u32>) {
        near.resize(self.width, 0);
        let len = find_near(
            self.width,
            [&self.low, &self.high],
            &self.farthest,
            seed,
            near,
        );
        near.truncate(len);
    }
}

dispatch! {
    fn find_near(width: usize, bounds: [&[f32]; 2], farthest: &[f32], seed: &[f32], near: &mut [u32]) -> usize = find_near_body
}

/// Every tile is written, the next one over it if it was not near. Rounding keeps the order of distances: no vector is nearer than its
/// box.
#[inline(always)]
fn find_near_body(
    width: usize,
    [low, high]: [&[f32]; 2],
    farthest: &[f32],
    seed: &[f32],
    near: &mut [u32],
) -> usize {
    let mut len = 0;
    for at in (0..width).step_by(SIDE) {
        let mut square = [0.0_f32; SIDE];
        let columns = low.chunks_exact(width).zip(high.chunks_exact(width));
        for ((low, high), &x) in columns.zip(seed) {
            let (low, high) = (&low[at..at + SIDE], &high[at..at + SIDE]);
            for l in 0..SIDE {
                let (below, above) = (low[l] - x, x - high[l]);
                let outside = if below > above { below } else { above };
                let outside = if outside > 0.0 { outside } else { 0.0 };
                square[l] += outside * outside;
            }
        }
        for (l, (square, &farthest)) in square.iter().zip(&farthest[at..at + SIDE]).enumerate() {
            near[len] = (at + l) as u32;
            len += usize::from(*square < farthest);
        }
    }
    len
}

dispatch! {
    fn gain(tiles: &[f32], weights: &[f32], rest: &[f32], seed: &[f32], near: &[u32]) -> f64 = gain_body
}

/// What the squares of the tiles near a seed lose by it, weighted unless there are no weights.
#[inline(always)]
fn gain_body(tiles: &[f32], weights: &[f32], rest: &[f32], seed: &[f32], near: &[u32]) -> f64 {
    let mut total = [0.0_f64; TILE];
    for &tile in near {
        let at = tile as usize * TILE;
        let found = squares(&tiles[at * seed.len()..], seed);
        let rest = &rest[at..at + TILE];
        let mut lost = [0.0_f32; TILE];
        for l in 0..TILE {
            let less = rest[l] - found[l];
            lost[l] = if less > 0.0 { less } else { 0.0 };
        }
        if weights.is_empty() {
            for l in 0..TILE {
                total[l] += f64::from(lost[l]);
            }
        } else {
            let weights = &weights[at..at + TILE];
            for l in 0..TILE {
                total[l] += f64::from(lost[l]) * f64::from(weights[l]);
            }
        }
    }
    total.iter().sum()
}

/// Squared distances of the vectors of a tile from a seed.
#[inline(always)]
fn squares(tile: &[f32], seed: &[f32]) -> [f32; TILE] {
    let mut sum = [0.0_f32; TILE];
    for (x, &c) in tile.as_chunks::<TILE>().0.iter().zip(seed) {
        for l in 0..TILE {
            sum[l] += (x[l] - c) * (x[l] - c);
        }
    }
    sum
}
