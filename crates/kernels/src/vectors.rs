//! K-means of short vectors.

/// How long to look for good vector clusters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VectorOptions {
    /// Seed of all random choices.
    pub seed: u64,
    /// Independent starts, the best of which is kept.
    pub starts: u32,
    /// Most Lloyd steps.
    pub max_iterations: u32,
    /// Stop when a step lowers the cost by less than this part of it.
    pub tolerance: f64,
}

impl Default for VectorOptions {
    fn default() -> Self {
        VectorOptions { seed: 0, starts: 1, max_iterations: 100, tolerance: 1e-4 }
    }
}

/// Clusters of vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorClusters {
    /// `k × dim`, row-major, in ascending lexicographic order.
    pub centroids: Vec<f32>,
    /// One index for each vector.
    pub indices: Vec<u8>,
    /// Weighted squared error.
    pub cost: f64,
}

/// Clusters `values` (row-major, vectors of `dim`) into at most `k` (≤ 256).
pub fn cluster_vectors(
    values: &[f32],
    dim: usize,
    k: usize,
    weights: Option<&[f32]>,
    options: VectorOptions,
) -> VectorClusters {
    let dim = dim.max(1);
    let n = values.len() / dim;
    let k = k.clamp(1, 256);
    let weight = |i: usize| weights.map_or(1.0, |w| f64::from(w[i]));
    let mut state = options.seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut centroids: Vec<f32> = Vec::new();
    let mut nearest = vec![f64::INFINITY; n];
    while centroids.len() < k * dim {
        let mass = |i: usize| weight(i) * if nearest[i].is_finite() { nearest[i] } else { 1.0 };
        let total: f64 = (0..n).map(mass).sum();
        if total <= 0.0 {
            break;
        }
        let mut left = random() * total;
        let mut pick = 0;
        for i in 0..n {
            let m = mass(i);
            if m > 0.0 {
                pick = i;
                left -= m;
                if left < 0.0 {
                    break;
                }
            }
        }
        let new = values[pick * dim..(pick + 1) * dim].to_vec();
        for (i, near) in nearest.iter_mut().enumerate() {
            *near = near.min(distance(&values[i * dim..(i + 1) * dim], &new));
        }
        centroids.extend(new);
    }
    let mut indices = vec![0; n];
    let mut last = f64::INFINITY;
    for _ in 0..options.max_iterations {
        assign_vectors(values, dim, &centroids, &mut indices);
        let mut sums = vec![0.0_f64; centroids.len()];
        let mut totals = vec![0.0_f64; centroids.len() / dim];
        for (i, &c) in indices.iter().enumerate() {
            totals[usize::from(c)] += weight(i);
            for d in 0..dim {
                sums[usize::from(c) * dim + d] += weight(i) * f64::from(values[i * dim + d]);
            }
        }
        for (d, c) in centroids.iter_mut().enumerate() {
            if totals[d / dim] > 0.0 {
                *c = (sums[d] / totals[d / dim]) as f32;
            }
        }
        let cost = weighted(values, dim, &centroids, &indices, &weight);
        if last - cost <= options.tolerance * cost {
            break;
        }
        last = cost;
    }
    assign_vectors(values, dim, &centroids, &mut indices);
    let cost = weighted(values, dim, &centroids, &indices, &weight);
    VectorClusters { centroids, indices, cost }
}

fn weighted(values: &[f32], dim: usize, centroids: &[f32], indices: &[u8], weight: &dyn Fn(usize) -> f64) -> f64 {
    let mut cost = 0.0;
    for (i, &c) in indices.iter().enumerate() {
        let c = usize::from(c) * dim;
        cost += weight(i) * distance(&values[i * dim..(i + 1) * dim], &centroids[c..c + dim]);
    }
    cost
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Index of the nearest centroid for each vector, ties to the lower index; the squared error.
pub fn assign_vectors(values: &[f32], dim: usize, centroids: &[f32], indices: &mut [u8]) -> f64 {
    let dim = dim.max(1);
    let mut error = 0.0;
    for (vector, index) in values.chunks_exact(dim).zip(indices) {
        let mut best = f64::INFINITY;
        for (c, centroid) in centroids.chunks_exact(dim).enumerate() {
            let d = distance(vector, centroid);
            if d < best {
                best = d;
                *index = c as u8;
            }
        }
        error += best;
    }
    error
}
