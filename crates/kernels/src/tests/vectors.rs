//! Vector k-means: what can be said of a heuristic.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::{KINDS, Kind, Noise};
use crate::{VectorOptions, assign_vectors, cluster_vectors};

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .fold(0.0, |sum, (a, b)| sum + (a - b) * (a - b))
}

/// Nearest centroid for each vector, looking at all; the squared error in 64 bits.
pub(super) fn naive(
    values: &[f32],
    dim: usize,
    centroids: &[f32],
    weights: Option<&[f32]>,
) -> (Vec<u8>, f64) {
    let mut cost = 0.0;
    let mut indices = Vec::new();
    for (i, vector) in values.chunks_exact(dim).enumerate() {
        let mut best = (f32::INFINITY, 0);
        for (c, centroid) in centroids.chunks_exact(dim).enumerate() {
            let d = distance(vector, centroid);
            if d < best.0 {
                best = (d, c);
            }
        }
        indices.push(best.1 as u8);
        let exact: f64 = vector
            .iter()
            .zip(&centroids[best.1 * dim..])
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
            .sum();
        cost += weights.map_or(1.0, |w| f64::from(w[i])) * exact;
    }
    (indices, cost)
}

proptest! {
    #[test]
    fn nearest_is_nearest(seed: u64, n in 1_usize..700, dim in 1_usize..10, k in 1_usize..40, lattice: bool) {
        let mut noise = Noise(seed);
        let kind = if lattice { Kind::Lattice } else { Kind::Normal };
        let values = noise.values(kind, n * dim);
        let centroids = noise.values(kind, k * dim);
        let (wanted, cost) = naive(&values, dim, &centroids, None);
        let mut indices = vec![0; n];
        let error = assign_vectors(&values, dim, &centroids, &mut indices, None);
        prop_assert_eq!(indices, wanted);
        prop_assert!((error - cost).abs() <= 1e-9 * cost);
    }

    #[test]
    fn few_distinct_vectors_cost_nothing(seed: u64, n in 1_usize..200, dim in 1_usize..5, few in 1_usize..20) {
        let mut noise = Noise(seed);
        let rows: Vec<f32> = noise.values(Kind::Normal, few * dim);
        let values: Vec<f32> = (0..n).flat_map(|_| {
            let row = (noise.unit() * few as f64) as usize * dim;
            rows[row..row + dim].to_vec()
        }).collect();
        let found = cluster_vectors(&values, dim, few, None, VectorOptions::default());
        prop_assert_eq!(found.cost, 0.0);
        let mut distinct: Vec<Vec<u32>> = values.chunks_exact(dim).map(|v| v.iter().map(|x| x.to_bits()).collect()).collect();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(found.centroids.len(), distinct.len() * dim);
    }
}

#[test]
fn clusters_are_consistent() {
    let mut noise = Noise(31);
    for kind in KINDS {
        for (n, dim, k) in [
            (3000, 2, 16),
            (5000, 4, 64),
            (700, 3, 256),
            (900, 5, 7),
            (2000, 16, 8),
            (30_000, 4, 16),
        ] {
            let values = noise.values(kind, n * dim);
            let weights: Vec<f32> = (0..n).map(|_| noise.unit() as f32).collect();
            for weights in [None, Some(&weights[..])] {
                let found = cluster_vectors(&values, dim, k, weights, VectorOptions::default());
                assert!(found.centroids.len() <= k * dim);
                let (indices, cost) = naive(&values, dim, &found.centroids, weights);
                assert_eq!(found.indices, indices);
                assert!((found.cost - cost).abs() <= 1e-9 * cost, "{kind:?}");
                let one = cluster_vectors(&values, dim, 1, weights, VectorOptions::default());
                assert!(found.cost < one.cost || one.cost == 0.0);
            }
        }
    }
}

#[test]
fn finds_separate_clusters() {
    let mut noise = Noise(32);
    for dim in [2, 4, 7, 8] {
        let centers: Vec<f32> = (0..20 * dim)
            .map(|i| (i / dim) as f32 * 100.0 + noise.unit() as f32)
            .collect();
        let values: Vec<f32> = (0..4000)
            .flat_map(|i| {
                (0..dim)
                    .map(|d| centers[i % 20 * dim + d] + noise.normal() as f32 * 0.01)
                    .collect::<Vec<_>>()
            })
            .collect();
        let found = cluster_vectors(
            &values,
            dim,
            20,
            None,
            VectorOptions {
                starts: 4,
                ..VectorOptions::default()
            },
        );
        assert!(
            found.cost < 4000.0 * dim as f64 * 1.2e-4,
            "dim {dim}: {}",
            found.cost
        );
    }
}

/// The least cost of any assignment to `k` clusters, by trying all.
fn brute(values: &[f32], dim: usize, k: usize, weights: &[f32]) -> f64 {
    let n = weights.len();
    let mut best = f64::INFINITY;
    for number in 0..k.pow(n as u32) {
        let mut cost = 0.0;
        for cluster in 0..k {
            let members = || (0..n).filter(move |&i| number / k.pow(i as u32) % k == cluster);
            let weight: f64 = members().map(|i| f64::from(weights[i])).sum();
            for d in 0..dim {
                let pairs =
                    || members().map(|i| (f64::from(weights[i]), f64::from(values[i * dim + d])));
                let mean = pairs().map(|(w, x)| w * x).sum::<f64>() / weight.max(f64::MIN_POSITIVE);
                cost += pairs().map(|(w, x)| w * (x - mean).powi(2)).sum::<f64>();
            }
        }
        best = best.min(cost);
    }
    best
}

#[test]
fn few_vectors_of_very_unequal_weights_are_clustered_best() {
    let mut noise = Noise(35);
    for round in 0..300 {
        let (k, n) = [(2, 8), (2, 10), (3, 7)][round % 3];
        let dim = 2 + round % 2;
        let values = noise.values(Kind::Normal, n * dim);
        // From all alike to many orders of magnitude.
        let tail = round as f64 / 50.0;
        let weights: Vec<f32> = (0..n)
            .map(|_| (tail * noise.normal()).exp() as f32)
            .collect();
        let options = VectorOptions {
            seed: round as u64,
            ..VectorOptions::default()
        };
        let found = cluster_vectors(&values, dim, k, Some(&weights), options);
        let best = brute(&values, dim, k, &weights);
        let cost = found.cost;
        assert!(cost <= best * (1.0 + 1e-6), "{cost} {best} {tail}");
    }
}

#[test]
fn odd_inputs() {
    let none = cluster_vectors(&[], 4, 16, None, VectorOptions::default());
    assert_eq!(
        (none.centroids.len(), none.indices.len(), none.cost),
        (0, 0, 0.0)
    );
    let one = cluster_vectors(
        &[1.0, 2.0, 3.0],
        2,
        16,
        Some(&[0.0]),
        VectorOptions::default(),
    );
    assert_eq!((one.centroids, one.indices), (vec![1.0, 2.0], vec![0]));
    // Not a number anywhere must not hang or panic.
    let mut values = Noise(33).values(Kind::Normal, 4000);
    values[100] = f32::NAN;
    values[200] = f32::INFINITY;
    let found = cluster_vectors(&values, 4, 16, None, VectorOptions::default());
    assert_eq!(found.indices.len(), 1000);
    let weights: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let found = cluster_vectors(&values, 4, 16, Some(&weights), VectorOptions::default());
    assert_eq!(found.indices.len(), 1000);
    // Nor when it is over before it begins.
    let stop = AtomicBool::new(true);
    let options = VectorOptions {
        stop: Some(&stop),
        ..VectorOptions::default()
    };
    let found = cluster_vectors(&values, 4, 16, Some(&weights), options);
    assert_eq!(found.indices.len(), 1000);
}
