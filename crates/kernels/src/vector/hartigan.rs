//! Moving single vectors to other clusters: where few vectors have very unequal weights, Lloyd's steps stop early.
//!
//! A vector of weight `w` that leaves a cluster of weight `W` saves `W w / (W - w)` times its squared distance from the
//! mean, and costs `V w / (V + w)` times that from the mean of a cluster of weight `V`. Lloyd's steps compare the plain
//! distances, so a heavy vector, which has its mean near, never leaves.
//!
//! Cost: `n k dim` for a pass, not side by side. Wrong choice: on many vectors; moves then gain next to nothing.
//! Source: Hartigan 1975.

use super::nearest_centroid::Centroids;
use super::z_order::OrderedVectors;

/// Most passes over the vectors.
const PASSES: u32 = 16;
/// A move must gain this part of what it saves.
const WORTH: f64 = 1e-6;

/// A cluster as its vectors make it.
struct Cluster {
    weight: f64,
    mean: Vec<f64>,
}

impl Cluster {
    /// Squared distance from the mean.
    fn distance(&self, vector: &[f64]) -> f64 {
        let pairs = vector.iter().zip(&self.mean);
        pairs.map(|(x, mean)| (x - mean) * (x - mean)).sum()
    }

    /// Takes in a vector, or lets it go if its weight is negative.
    fn add(&mut self, vector: &[f64], weight: f64) {
        self.weight += weight;
        for (mean, x) in self.mean.iter_mut().zip(vector) {
            *mean += weight / self.weight * (x - *mean);
        }
    }
}

/// Moves vectors between the clusters of `centroids` while that lowers the cost; whether any moved.
pub(super) fn transfer(vectors: &OrderedVectors, centroids: &mut [f32]) -> bool {
    let dim = vectors.dim;
    let empty = |_| Cluster {
        weight: 0.0,
        mean: vec![0.0; dim],
    };
    let mut clusters: Vec<Cluster> = (0..centroids.len() / dim).map(empty).collect();
    if clusters.is_empty() {
        // Stopped before the first seed.
        return false;
    }
    let rows: Vec<Vec<f64>> = (0..vectors.len)
        .map(|at| vectors.vector(at).map(f64::from).collect())
        .collect();
    let mut homes = Vec::with_capacity(vectors.len);
    let nearest = Centroids::new(centroids, dim);
    vectors.visit_nearest(&nearest, |_, _, home| homes.push(home));
    for (at, &home) in homes.iter().enumerate() {
        if vectors.weight(at) > 0.0 {
            clusters[home].add(&rows[at], vectors.weight(at));
        }
    }
    let mut moved = false;
    for _ in 0..PASSES {
        let mut settled = true;
        for (at, vector) in rows.iter().enumerate() {
            let (weight, home) = (vectors.weight(at), homes[at]);
            let rest = clusters[home].weight - weight;
            // Nothing would be left of the cluster.
            if weight <= 0.0 || rest <= 1e-9 * weight {
                continue;
            }
            let saved = clusters[home].weight / rest * clusters[home].distance(vector);
            let costs = clusters.iter().enumerate().filter(|(c, _)| *c != home);
            let costs = costs.map(|(c, to)| {
                let cost = to.weight / (to.weight + weight) * to.distance(vector);
                (cost, c)
            });
            let least = costs.min_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, to)) = least.filter(|(cost, _)| *cost < saved * (1.0 - WORTH)) {
                clusters[home].add(vector, -weight);
                clusters[to].add(vector, weight);
                homes[at] = to;
                settled = false;
            }
        }
        if settled {
            break;
        }
        moved = true;
    }
    if moved {
        for (centroid, cluster) in centroids.chunks_exact_mut(dim).zip(&clusters) {
            if cluster.weight > 0.0 {
                let means = centroid.iter_mut().zip(&cluster.mean);
                means.for_each(|(x, mean)| *x = *mean as f32);
            }
        }
    }
    moved
}
