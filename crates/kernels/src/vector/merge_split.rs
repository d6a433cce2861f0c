//! Moving centroids from where they are missed least to where they are needed most.
//!
//! Lloyd's steps cannot move a centroid across others. So: some clusters are merged with their neighbours, which costs
//! `wa wb / (wa + wb)` times the squared distance of their centroids, and as many others are split along their widest
//! axis, which in `dim` dimensions saves about `1 - 2^(-2/dim)` of their error. If Lloyd's steps then end lower, that
//! is kept.
//!
//! Cost: some Lloyd steps a round. Wrong choice: on very many vectors; the steps would dominate.
//! Source: Patanè and Russo 2001 (enhanced LBG); Fritzke 2020 (breathing k-means).
//! Our deviations: (1) many pairs at once, fewer after a failure.

use super::VectorOptions;
use super::lloyd::{descend, survey};
use super::z_order::OrderedVectors;

/// Lloyd steps of a round.
const STEPS: u32 = 8;
/// A round must lower the cost by this part of it, or the next is smaller.
const WORTH: f64 = 1e-3;

/// Improves centroids that Lloyd's steps have settled at `cost`, in at most so many rounds that begin with `most` pairs;
/// returns the lower cost.
pub(super) fn improve(
    vectors: &OrderedVectors,
    centroids: &mut Vec<f32>,
    mut cost: f64,
    mut most: usize,
    rounds: usize,
    options: VectorOptions<'_>,
) -> f64 {
    let options = VectorOptions {
        max_iterations: STEPS,
        tolerance: 1e-3,
        ..options
    };
    for _ in 0..rounds {
        if options.stopped() {
            break;
        }
        let mut moved = centroids.clone();
        let pairs = rearrange(vectors, &mut moved, most);
        if pairs == 0 {
            break;
        }
        let lower = descend(vectors, &mut moved, options);
        if lower < cost {
            *centroids = moved;
        }
        if lower < cost * (1.0 - WORTH) {
            cost = lower;
        } else {
            cost = cost.min(lower);
            most = pairs / 2;
        }
    }
    cost
}

/// Merges and splits at most `most` clusters; returns how many.
fn rearrange(vectors: &OrderedVectors, centroids: &mut [f32], most: usize) -> usize {
    let dim = vectors.dim;
    let k = centroids.len() / dim;
    let survey = survey(vectors, centroids);
    let error: Vec<f64> = (0..k)
        .map(|c| survey.spread[c * dim..(c + 1) * dim].iter().sum())
        .collect();
    let merges: Vec<(f64, usize)> = (0..k)
        .map(|c| merge(centroids, dim, &survey.weight, c))
        .collect();
    let mut needy: Vec<usize> = (0..k).collect();
    let mut spare = needy.clone();
    needy.sort_by(|&a, &b| error[b].total_cmp(&error[a]).then(a.cmp(&b)));
    spare.sort_by(|&a, &b| merges[a].0.total_cmp(&merges[b].0).then(a.cmp(&b)));
    let saving = 1.0 - (-2.0 / dim as f64).exp2();
    let mut busy = vec![false; k];
    let mut needy = needy.into_iter();
    let mut pairs = 0;
    for from in spare {
        if pairs == most {
            break;
        }
        let (loss, neighbour) = merges[from];
        if busy[from] || neighbour == from || busy[neighbour] {
            continue;
        }
        let Some(to) = needy.find(|&c| !busy[c] && c != from && c != neighbour) else {
            break;
        };
        if error[to] * saving <= loss {
            break;
        }
        for c in [from, neighbour, to] {
            busy[c] = true;
        }
        split(centroids, dim, &survey.spread, survey.weight[to], from, to);
        pairs += 1;
    }
    pairs
}

/// What merging a cluster with some other costs at least, and which other.
fn merge(centroids: &[f32], dim: usize, weight: &[f64], c: usize) -> (f64, usize) {
    let own = &centroids[c * dim..(c + 1) * dim];
    let mut best = (f64::INFINITY, c);
    for (other, row) in centroids.chunks_exact(dim).enumerate() {
        let total = weight[c] + weight[other];
        if other == c || total <= 0.0 {
            continue;
        }
        let square: f32 = own.iter().zip(row).map(|(a, b)| (a - b) * (a - b)).sum();
        let loss = weight[c] * weight[other] / total * f64::from(square);
        if loss < best.0 {
            best = (loss, other);
        }
    }
    best
}

/// Puts centroids `from` and `to` on both sides of `to`, along the axis in which its cluster is widest.
fn split(centroids: &mut [f32], dim: usize, spread: &[f64], weight: f64, from: usize, to: usize) {
    let spread = &spread[to * dim..(to + 1) * dim];
    let axis = (0..dim).fold(0, |best, d| if spread[d] > spread[best] { d } else { best });
    let step = (0.8 * (spread[axis] / weight).max(0.0).sqrt()) as f32;
    centroids.copy_within(to * dim..(to + 1) * dim, from * dim);
    centroids[to * dim + axis] -= step;
    centroids[from * dim + axis] += step;
}
