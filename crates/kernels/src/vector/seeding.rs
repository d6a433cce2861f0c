//! Where to start: k-means++ on a sample, several times; the best go on to a larger sample or to all vectors.
//!
//! The next seed is drawn in proportion to the squared distance to the seeds so far. Of a few candidates drawn, the
//! one that lowers the cost most is taken.
//! Source: Arthur and Vassilvitskii 2007; several candidates as in their code and scikit-learn.

use super::VectorOptions;
use super::hartigan::transfer;
use super::lloyd::descend;
use super::merge_split::improve;
use super::nearest_centroid::TILE;
use super::z_order::OrderedVectors;
use crate::random::Random;
use crate::simd::dispatch;

/// Vectors of the first sample for each cluster, and at least.
const SHARE: usize = 64;
const LEAST: usize = 16384;
/// The second sample is so many times the first.
const GROWTH: usize = 4;
/// Lloyd steps on a sample.
const STEPS: u32 = 30;
/// Rounds of moves on the first sample, and on the later ones.
const ROUNDS: [usize; 2] = [8, 1];
/// Most work (vectors times clusters) of a later sample on which centroids are moved at all.
const MOVED: usize = 1 << 24;
/// Most starts, and the work (vectors times clusters) that they may be.
const STARTS: (usize, usize) = (16, 1 << 21);
/// Up to this much work (vectors times clusters), vectors with weights are moved one by one.
const FEW: usize = 1 << 14;
/// Most of them that reach a later sample, and the work that they may be there.
const FINALISTS: (usize, usize) = (4, 1 << 23);

/// The best of several starts, at most `k` centroids that are nearly settled on all vectors.
pub(super) fn start(vectors: &OrderedVectors, k: usize, options: VectorOptions<'_>) -> Vec<f32> {
    let mut random = Random::new(options.seed);
    let rough = VectorOptions {
        max_iterations: STEPS,
        tolerance: options.tolerance.max(1e-3),
        ..options
    };
    let fine = VectorOptions {
        tolerance: 2.0 * options.tolerance,
        ..options
    };
    let first = (k * SHARE).max(LEAST);
    let sizes = [first, first * GROWTH];
    let samples: Vec<OrderedVectors> = sizes
        .into_iter()
        .filter(|&size| size <= vectors.len / 2)
        .map(|size| sample(vectors, size, &mut random))
        .collect();
    let mut levels = samples.iter().chain([vectors]);
    let Some(level) = levels.next() else {
        return Vec::new();
    };
    let starts = share(STARTS, level, k).saturating_mul(options.starts.max(1) as usize);
    let mut found: Vec<(f64, Vec<f32>)> = (0..starts)
        .map(|_| {
            let mut centroids = Vec::new();
            draw(level, k, &mut centroids, &mut random, options);
            let settled = descend(level, &mut centroids, rough);
            let most = centroids.len() / vectors.dim / 4;
            let mut cost = improve(level, &mut centroids, settled, most, ROUNDS[0], options);
            let few = level.weights.is_some() && level.len * k <= FEW;
            if few && transfer(level, &mut centroids) {
                cost = descend(level, &mut centroids, rough);
            }
            (cost, centroids)
        })
        .collect();
    for level in levels {
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found.truncate(share(FINALISTS, level, k));
        for (cost, centroids) in &mut found {
            if centroids.len() < k * vectors.dim {
                // The sample has fewer distinct vectors than clusters; this one may have more.
                draw(level, k, centroids, &mut random, options);
            }
            *cost = descend(level, centroids, rough);
            if level.len * k <= MOVED {
                *cost = improve(level, centroids, *cost, k / 8, ROUNDS[1], options);
            }
            if level.len < vectors.len {
                *cost = descend(level, centroids, fine);
            }
        }
    }
    found
        .into_iter()
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, centroids)| centroids)
        .unwrap_or_default()
}

/// How many times the work may be done, at least once.
fn share((most, budget): (usize, usize), level: &OrderedVectors, k: usize) -> usize {
    (budget / (level.len * k).max(1)).clamp(1, most)
}

/// Every so manyth vector, in Z-order, from a random one on: the sample is spread like the whole.
fn sample(vectors: &OrderedVectors, size: usize, random: &mut Random) -> OrderedVectors {
    let offset = random.unit();
    let pick = |i: usize| {
        (((i as f64 + offset) * vectors.len as f64 / size as f64) as usize).min(vectors.len - 1)
    };
    let values: Vec<f32> = (0..size).flat_map(|i| vectors.vector(pick(i))).collect();
    let weights: Option<Vec<f32>> = vectors
        .weights
        .as_ref()
        .map(|w| (0..size).map(|i| w[pick(i)]).collect());
    OrderedVectors::new(&values, vectors.dim, weights.as_deref())
}

/// Adds seeds until there are `k`, or no vector is at any distance from them.
fn draw(
    vectors: &OrderedVectors,
    k: usize,
    centroids: &mut Vec<f32>,
    random: &mut Random,
    options: VectorOptions<'_>,
) {
    let dim = vectors.dim;
    let trials = 2 + k.ilog2() as usize / 2;
    let farthest = |i: usize| match vectors.weight(i) > 0.0 {
        true => f32::INFINITY,
        false => 0.0,
    };
    let mut rest: Vec<f32> = (0..vectors.len).map(farthest).collect();
    let mut trial = vec![0.0; vectors.len];
    let mut kept = vec![0.0; vectors.len];
    for centroid in centroids.chunks_exact(dim) {
        nearer(vectors, centroid, &rest, &mut trial);
        std::mem::swap(&mut rest, &mut trial);
    }
    while centroids.len() < k * dim && !options.stopped() {
        let first = centroids.is_empty();
        let mass = |i: usize| match first {
            true => vectors.weight(i),
            false => vectors.weight(i) * f64::from(rest[i]),
        };
        let mut sums = Vec::with_capacity(vectors.len);
        let mut total = 0.0;
        for i in 0..vectors.len {
            total += mass(i);
            sums.push(total);
        }
        if !(total > 0.0 && total.is_finite()) {
            return;
        }
        let mut best: Option<(f64, usize)> = None;
        for _ in 0..if first { 1 } else { trials } {
            let goal = random.unit() * total;
            let pick = sums
                .partition_point(|&sum| sum <= goal)
                .min(vectors.len - 1);
            let seed: Vec<f32> = vectors.vector(pick).collect();
            let cost = nearer(vectors, &seed, &rest, &mut trial);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, pick));
                std::mem::swap(&mut kept, &mut trial);
            }
        }
        let Some((_, pick)) = best else { return };
        centroids.extend(vectors.vector(pick));
        std::mem::swap(&mut rest, &mut kept);
    }
}

/// Distances once `seed` is added; returns their weighted sum.
fn nearer(vectors: &OrderedVectors, seed: &[f32], rest: &[f32], out: &mut [f32]) -> f64 {
    let cost = lower(&vectors.tiles, seed, rest, out);
    match &vectors.weights {
        None => cost,
        Some(weights) => out
            .iter()
            .zip(weights)
            .map(|(out, w)| f64::from(*out) * f64::from(*w))
            .sum(),
    }
}

dispatch! {
    fn lower(tiles: &[f32], seed: &[f32], rest: &[f32], out: &mut [f32]) -> f64 = lower_body
}

/// The lesser of `rest` and the squared distances to `seed`; returns their sum.
#[inline(always)]
fn lower_body(tiles: &[f32], seed: &[f32], rest: &[f32], out: &mut [f32]) -> f64 {
    let mut total = [0.0; TILE];
    let tiles = tiles.chunks_exact(TILE * seed.len());
    for (tile, (rest, out)) in tiles.zip(rest.chunks(TILE).zip(out.chunks_mut(TILE))) {
        let mut sum = [0.0_f32; TILE];
        for (x, &c) in tile.as_chunks::<TILE>().0.iter().zip(seed) {
            for l in 0..TILE {
                sum[l] += (x[l] - c) * (x[l] - c);
            }
        }
        let mut least = [0.0_f32; TILE];
        least[..rest.len()].copy_from_slice(rest);
        for l in 0..TILE {
            // Beyond the last vector, `least` is zero and nothing is added.
            least[l] = if sum[l] < least[l] { sum[l] } else { least[l] };
            total[l] += f64::from(least[l]);
        }
        out.copy_from_slice(&least[..out.len()]);
    }
    total.iter().sum()
}
