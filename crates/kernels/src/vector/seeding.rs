//! Where to start: k-means++ on a sample, several times; the best go on to a larger sample or to all vectors.
//!
//! Cost: with 256 clusters about as much as all steps that follow. Wrong choice: none where there is no optimum to be had.
//! Source: ours.

use super::VectorOptions;
use super::draw::draw;
use super::hartigan::transfer;
use super::lloyd::descend;
use super::merge_split::improve;
use super::z_order::OrderedVectors;
use crate::random::Random;

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

/// The best of several starts, at most `k` centroids that are nearly settled on all vectors, or on a large sample.
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
        let alone = found.len() == 1;
        for (cost, centroids) in &mut found {
            if centroids.len() < k * vectors.dim {
                // The sample has fewer distinct vectors than clusters; this one may have more.
                draw(level, k, centroids, &mut random, options);
            }
            if alone && level.len == vectors.len && level.len * k > MOVED {
                // There is nothing to choose, and the steps on all vectors are the caller's.
                continue;
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
