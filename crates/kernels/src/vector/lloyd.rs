//! Lloyd's steps: assign, average, repeat.

use rayon::prelude::*;

use super::VectorOptions;
use super::nearest_centroid::{Centroids, TILE};
use super::z_order::OrderedVectors;
use crate::simd::dispatch;

/// Moves the centroids until a step lowers the cost by no more than the tolerance times the cost, in at most
/// `max_iterations` steps; returns the last cost seen. Clusters that lose all their vectors move to the farthest vectors, or vanish if those are at no distance.
///
/// Each step overshoots the means by a growing part of the last move (Nesterov's momentum); when the cost rises, the
/// overshooting starts again from nothing at the best means so far.
pub(super) fn descend(
    vectors: &OrderedVectors,
    centroids: &mut Vec<f32>,
    options: VectorOptions<'_>,
) -> f64 {
    let tolerance = options.tolerance;
    // Means of the step before, best means and the cost at which they were found.
    let mut last = centroids.clone();
    let mut best = (f64::INFINITY, centroids.clone());
    let mut speed = 0.0;
    for _ in 0..options.max_iterations {
        if options.stopped() {
            break;
        }
        let sums = sums(vectors, centroids, options);
        let cost = sums.cost;
        if !cost.is_finite() || options.stopped() {
            break;
        }
        let mut means = centroids.clone();
        let moved = sums.average(&mut means, vectors.dim);
        let empty: Vec<usize> = (0..sums.weight.len())
            .filter(|&c| sums.weight[c] <= 0.0)
            .collect();
        if !empty.is_empty() && reseed(vectors, &mut means, &empty, options) {
            last.clone_from(&means);
            best = (f64::INFINITY, means.clone());
            *centroids = means;
            speed = 0.0;
            continue;
        }
        let gain = best.0 - cost;
        if cost < best.0 {
            best = (cost, means.clone());
        }
        if !moved || means.len() != centroids.len() || (gain >= 0.0 && gain <= tolerance * cost) {
            break;
        }
        if gain < 0.0 {
            if speed == 0.0 {
                break;
            }
            speed = 0.0;
            last.clone_from(&best.1);
            centroids.clone_from(&best.1);
            continue;
        }
        speed += 1.0;
        let beta = (speed - 1.0) / (speed + 2.0);
        for ((c, mean), last) in centroids.iter_mut().zip(&means).zip(&last) {
            *c = mean + beta * (mean - last);
        }
        last = means;
    }
    *centroids = best.1;
    best.0
}

/// What the clusters look like, one by one.
pub(super) struct Survey {
    pub(super) weight: Vec<f64>,
    /// Sum of squared differences from the centroid, for each coordinate.
    pub(super) spread: Vec<f64>,
}

/// Surveys the clusters; for samples, as it is not done in parallel.
pub(super) fn survey(vectors: &OrderedVectors, centroids: &[f32]) -> Survey {
    let dim = vectors.dim;
    let mut survey = Survey {
        weight: vec![0.0; centroids.len() / dim],
        spread: vec![0.0; centroids.len()],
    };
    let centroids = Centroids::new(centroids, dim);
    vectors.visit_nearest(&centroids, |at, _, c| {
        let weight = vectors.weight(at);
        survey.weight[c] += weight;
        let spread = survey.spread[c * dim..(c + 1) * dim].iter_mut();
        let pairs = vectors.vector(at).zip(centroids.row(c));
        for (spread, (x, centroid)) in spread.zip(pairs) {
            *spread += weight * f64::from(x - centroid).powi(2);
        }
    });
    survey
}

/// What one pass over the vectors adds up.
struct Sums {
    cost: f64,
    weight: Vec<f64>,
    total: Vec<f64>,
}

impl Sums {
    fn new(k: usize, dim: usize) -> Self {
        Sums {
            cost: 0.0,
            weight: vec![0.0; k],
            total: vec![0.0; k * dim],
        }
    }

    fn add(mut self, other: Sums) -> Self {
        self.cost += other.cost;
        self.weight
            .iter_mut()
            .zip(other.weight)
            .for_each(|(sum, part)| *sum += part);
        self.total
            .iter_mut()
            .zip(other.total)
            .for_each(|(sum, part)| *sum += part);
        self
    }

    /// Puts each centroid in the middle of its vectors; whether any moved.
    fn average(&self, centroids: &mut [f32], dim: usize) -> bool {
        let mut moved = false;
        for (c, centroid) in centroids.chunks_exact_mut(dim).enumerate() {
            let weight = self.weight[c];
            if weight > 0.0 {
                for (x, total) in centroid.iter_mut().zip(&self.total[c * dim..]) {
                    let mean = (total / weight) as f32;
                    moved |= mean != *x;
                    *x = mean;
                }
            } else {
                moved = true;
            }
        }
        moved
    }
}

fn sums(vectors: &OrderedVectors, centroids: &[f32], options: VectorOptions<'_>) -> Sums {
    let (k, dim) = (centroids.len() / vectors.dim, vectors.dim);
    let centroids = &Centroids::new(centroids, dim);
    let tasks = vectors.tasks().into_par_iter();
    let parts: Vec<Sums> = tasks
        .map(|blocks| {
            let mut sums = Sums::new(k, dim);
            if options.stopped() {
                return sums;
            }
            vectors.visit_blocks(blocks, centroids, |start, distances, indices| {
                let end = start + indices.len();
                let weights = vectors
                    .weights
                    .as_deref()
                    .map_or(&[][..], |w| &w[start..end]);
                add(
                    &vectors.tiles[start * dim..],
                    dim,
                    weights,
                    (distances, indices),
                    &mut sums,
                );
            });
            sums
        })
        .collect();
    parts.into_iter().fold(Sums::new(k, dim), Sums::add)
}

dispatch! {
    fn add(tiles: &[f32], dim: usize, weights: &[f32], found: (&[f32], &[u8]), sums: &mut Sums) = by_dim
}

/// With the length of the vectors as a constant where it is a usual one.
#[inline(always)]
fn by_dim(tiles: &[f32], dim: usize, weights: &[f32], found: (&[f32], &[u8]), sums: &mut Sums) {
    match dim {
        1 => add_body(tiles, 1, weights, found, sums),
        2 => add_body(tiles, 2, weights, found, sums),
        4 => add_body(tiles, 4, weights, found, sums),
        8 => add_body(tiles, 8, weights, found, sums),
        _ => add_body(tiles, dim, weights, found, sums),
    }
}

/// Adds the vectors of a block to the sums of their centroids; all count alike if there are no weights.
#[inline(always)]
fn add_body(
    tiles: &[f32],
    dim: usize,
    weights: &[f32],
    (distances, indices): (&[f32], &[u8]),
    sums: &mut Sums,
) {
    let mut cost = [0.0; TILE];
    let tiles = tiles.chunks_exact(TILE * dim);
    let blocks = distances.chunks(TILE).zip(indices.chunks(TILE));
    for (t, (tile, (distances, indices))) in tiles.zip(blocks).enumerate() {
        if weights.is_empty() {
            for (cost, &distance) in cost.iter_mut().zip(distances) {
                *cost += f64::from(distance);
            }
            for (lane, &c) in indices.iter().enumerate() {
                let c = usize::from(c);
                sums.weight[c] += 1.0;
                for (d, total) in sums.total[c * dim..][..dim].iter_mut().enumerate() {
                    *total += f64::from(tile[d * TILE + lane]);
                }
            }
        } else {
            let weights = &weights[t * TILE..][..indices.len()];
            for ((cost, &distance), &weight) in cost.iter_mut().zip(distances).zip(weights) {
                *cost += f64::from(weight) * f64::from(distance);
            }
            for (lane, (&c, &weight)) in indices.iter().zip(weights).enumerate() {
                let (c, weight) = (usize::from(c), f64::from(weight));
                sums.weight[c] += weight;
                for (d, total) in sums.total[c * dim..][..dim].iter_mut().enumerate() {
                    *total += weight * f64::from(tile[d * TILE + lane]);
                }
            }
        }
    }
    sums.cost += cost.iter().sum::<f64>();
}

/// Moves the empty clusters to the vectors farthest from their centroids, or drops them; whether any moved.
fn reseed(
    vectors: &OrderedVectors,
    centroids: &mut Vec<f32>,
    empty: &[usize],
    options: VectorOptions<'_>,
) -> bool {
    let dim = vectors.dim;
    let mut left = empty.to_vec();
    while let Some(&c) = left.first() {
        let mut far = (0.0, usize::MAX);
        let nearest = Centroids::new(centroids, dim);
        for blocks in vectors.tasks() {
            if options.stopped() {
                return false;
            }
            vectors.visit_blocks(blocks, &nearest, |start, distances, _| {
                for (at, &distance) in (start..).zip(distances) {
                    let distance = f64::from(distance) * vectors.weight(at);
                    // The first in the original order, of equals.
                    let first = || vectors.original(at) < vectors.original(far.1);
                    if distance > far.0 || (distance == far.0 && distance > 0.0 && first()) {
                        far = (distance, at);
                    }
                }
            });
        }
        if far.0 <= 0.0 {
            break;
        }
        for (d, x) in vectors.vector(far.1).enumerate() {
            centroids[c * dim + d] = x;
        }
        left.remove(0);
    }
    let moved = left.len() < empty.len();
    for &c in left.iter().rev() {
        centroids.drain(c * dim..(c + 1) * dim);
    }
    moved
}
