//! Where to start: k-means++ on a sample, several times; the best go on to a larger sample or to all vectors.
//!
//! The next seed is drawn in proportion to the squared distance to the seeds so far. Of a few candidates drawn, the
//! one that lowers the cost most is taken.
//! Source: Arthur and Vassilvitskii 2007; several candidates as in their code and scikit-learn.

use super::VectorOptions;
use super::field::Field;
use super::lloyd::descend;
use super::swap::improve;
use super::transfer::transfer;
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
pub(super) fn start(field: &Field, k: usize, options: VectorOptions<'_>) -> Vec<f32> {
    let mut random = Random(options.seed);
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
    let samples: Vec<Field> = sizes
        .into_iter()
        .filter(|&size| size <= field.len / 2)
        .map(|size| sample(field, size, &mut random))
        .collect();
    let mut levels = samples.iter().chain([field]);
    let Some(level) = levels.next() else {
        return Vec::new();
    };
    let starts = share(STARTS, level, k).saturating_mul(options.starts.max(1) as usize);
    let mut found: Vec<(f64, Vec<f32>)> = (0..starts)
        .map(|_| {
            let mut centroids = Vec::new();
            draw(level, k, &mut centroids, &mut random, options);
            let settled = descend(level, &mut centroids, rough);
            let most = centroids.len() / field.dim / 4;
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
            if centroids.len() < k * field.dim {
                // The sample has fewer distinct vectors than clusters; this one may have more.
                draw(level, k, centroids, &mut random, options);
            }
            *cost = descend(level, centroids, rough);
            if level.len * k <= MOVED {
                *cost = improve(level, centroids, *cost, k / 8, ROUNDS[1], options);
            }
            if level.len < field.len {
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
fn share((most, budget): (usize, usize), level: &Field, k: usize) -> usize {
    (budget / (level.len * k).max(1)).clamp(1, most)
}

/// Every so manyth vector, in Z-order, from a random one on: the sample is spread like the whole.
fn sample(field: &Field, size: usize, random: &mut Random) -> Field {
    let offset = random.unit();
    let pick = |i: usize| {
        (((i as f64 + offset) * field.len as f64 / size as f64) as usize).min(field.len - 1)
    };
    let values: Vec<f32> = (0..size).flat_map(|i| field.vector(pick(i))).collect();
    let weights: Option<Vec<f32>> = field
        .weights
        .as_ref()
        .map(|w| (0..size).map(|i| w[pick(i)]).collect());
    Field::new(&values, field.dim, weights.as_deref())
}

/// Adds seeds until there are `k`, or no vector is at any distance from them.
fn draw(
    field: &Field,
    k: usize,
    centroids: &mut Vec<f32>,
    random: &mut Random,
    options: VectorOptions<'_>,
) {
    let dim = field.dim;
    let trials = 2 + k.ilog2() as usize / 2;
    let mut rest: Vec<f32> = (0..field.len)
        .map(|i| {
            if field.weight(i) > 0.0 {
                f32::INFINITY
            } else {
                0.0
            }
        })
        .collect();
    let mut trial = vec![0.0; field.len];
    let mut kept = vec![0.0; field.len];
    for centroid in centroids.chunks_exact(dim) {
        nearer(field, centroid, &rest, &mut trial);
        std::mem::swap(&mut rest, &mut trial);
    }
    while centroids.len() < k * dim && !options.stopped() {
        let first = centroids.is_empty();
        let mass = |i: usize| {
            if first {
                field.weight(i)
            } else {
                field.weight(i) * f64::from(rest[i])
            }
        };
        let mut sums = Vec::with_capacity(field.len);
        let mut total = 0.0;
        for i in 0..field.len {
            total += mass(i);
            sums.push(total);
        }
        if !(total > 0.0 && total.is_finite()) {
            return;
        }
        let mut best: Option<(f64, usize)> = None;
        for _ in 0..if first { 1 } else { trials } {
            let goal = random.unit() * total;
            let pick = sums.partition_point(|&sum| sum <= goal).min(field.len - 1);
            let seed: Vec<f32> = field.vector(pick).collect();
            let cost = nearer(field, &seed, &rest, &mut trial);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, pick));
                std::mem::swap(&mut kept, &mut trial);
            }
        }
        let Some((_, pick)) = best else { return };
        centroids.extend(field.vector(pick));
        std::mem::swap(&mut rest, &mut kept);
    }
}

/// Distances once `seed` is added; returns their weighted sum.
fn nearer(field: &Field, seed: &[f32], rest: &[f32], out: &mut [f32]) -> f64 {
    let cost = lower(&field.tiles, seed, rest, out);
    match &field.weights {
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
    const LANES: usize = super::field::LANES;
    let mut total = [0.0; LANES];
    let tiles = tiles.chunks_exact(LANES * seed.len());
    for (tile, (rest, out)) in tiles.zip(rest.chunks(LANES).zip(out.chunks_mut(LANES))) {
        let mut sum = [0.0_f32; LANES];
        for (x, &c) in tile.as_chunks::<LANES>().0.iter().zip(seed) {
            for l in 0..LANES {
                sum[l] += (x[l] - c) * (x[l] - c);
            }
        }
        let mut least = [0.0_f32; LANES];
        least[..rest.len()].copy_from_slice(rest);
        for l in 0..LANES {
            // Beyond the last vector, `least` is zero and nothing is added.
            least[l] = if sum[l] < least[l] { sum[l] } else { least[l] };
            total[l] += f64::from(least[l]);
        }
        out.copy_from_slice(&least[..out.len()]);
    }
    total.iter().sum()
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// At least 0 and less than 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
