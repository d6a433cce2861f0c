//! K-means of short vectors: a good answer, since the best is out of reach.
//!
//! Seeds are drawn by k-means++ on a sample and improved there by Lloyd's steps and by moving centroids, more often the
//! less work that is; the best starts are improved on a larger sample, and the best of those on all vectors until the
//! cost hardly falls. A few vectors with weights are also moved one by one. Assignment is exact and skips most centroids:
//! see `field`.
//!
//! Cost: one step over a million vectors of 4 takes some 30 to 60 ms at k = 256. Wrong choice: for `dim == 1`, where
//! [`ValueHistogram::cluster`](crate::ValueHistogram::cluster) finds the optimum in less time.
//! Source: Lloyd 1957; Arthur and Vassilvitskii 2007 (k-means++); Hartigan 1975.
//! Our deviations: (1) starts compete on samples when there are many vectors; (2) a cluster that loses all its vectors is moved to the vector
//! farthest from its centroid; (3) all sums are taken over fixed pieces and in order.

mod draw;
mod hartigan;
mod lloyd;
mod merge_split;
mod nearest_centroid;
mod seeding;
mod z_order;

use std::sync::atomic::AtomicBool;

use crate::stop::Stop;
use crate::weights::Weights;
use z_order::OrderedVectors;

/// Up to this many distances for a step, Lloyd's steps go on until they gain next to nothing.
const CHEAP: usize = 1 << 23;

/// The part of the cost that is next to nothing.
const SETTLED: f64 = 1e-7;

/// How long to look for good vector clusters.
#[derive(Debug, Clone, Copy)]
pub struct VectorOptions<'a> {
    /// Seed of all random choices.
    pub seed: u64,
    /// Independent starts, the best of which is kept; so many times as many as are made anyway.
    pub starts: u32,
    /// Most Lloyd steps over all vectors.
    pub max_iterations: u32,
    /// Stop when a step lowers the cost by less than this part of it.
    pub tolerance: f64,
    /// Set by another thread when the clusters are no longer wanted: what is returned then is not worth using.
    pub stop: Option<&'a AtomicBool>,
}

impl VectorOptions<'_> {
    /// Whether the clusters are no longer wanted.
    fn stopped(&self) -> bool {
        Stop(self.stop).requested()
    }
}

impl Default for VectorOptions<'_> {
    fn default() -> Self {
        VectorOptions {
            seed: 0,
            starts: 1,
            max_iterations: 100,
            tolerance: 2e-4,
            stop: None,
        }
    }
}

/// Clusters of vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorClusters {
    /// `k × dim`, row-major, in ascending lexicographic order.
    pub centroids: Vec<f32>,
    /// One index for each vector.
    pub indices: Vec<u8>,
    /// Weighted squared error at these centroids and indices.
    pub cost: f64,
}

/// Clusters finite `values` (row-major vectors of `dim`; a last one that is not complete is left out) into at most `k`
/// clusters, `k` being at most 256. There are fewer when there are fewer distinct vectors.
///
/// `weights` has one weight for each vector; a weight that is negative, not finite or missing counts as zero.
///
/// ```
/// use palettizer_kernels::{VectorOptions, cluster_vectors};
/// let values = [0.0, 0.0, 0.0, 1.0, 9.0, 9.0, 9.0, 8.0];
/// let found = cluster_vectors(&values, 2, 2, None, VectorOptions::default());
/// assert_eq!(found.centroids, [0.0, 0.5, 9.0, 8.5]);
/// assert_eq!(found.indices, [0, 0, 1, 1]);
/// assert_eq!(found.cost, 1.0);
/// ```
pub fn cluster_vectors(
    values: &[f32],
    dim: usize,
    k: usize,
    weights: Option<&[f32]>,
    options: VectorOptions<'_>,
) -> VectorClusters {
    let dim = dim.max(1);
    let n = values.len() / dim;
    let values = &values[..n * dim];
    let k = k.clamp(1, 256);
    let weights: Option<Vec<f32>> = weights.map(|w| {
        let clean = |i: usize| Weights::Each(w).at(i) as f32;
        (0..n).map(clean).collect()
    });
    // If nothing counts, everything counts alike.
    let weights = weights.filter(|w| w.iter().any(|&w| w > 0.0));
    let vectors = OrderedVectors::new(values, dim, weights.as_deref());
    let mut centroids = seeding::start(&vectors, k, options);
    // The last steps gain the last tenth of a percent; where they are cheap, all of them are made.
    let tolerance = match n.saturating_mul(k) <= CHEAP {
        true => options.tolerance.min(SETTLED),
        false => options.tolerance,
    };
    let last = VectorOptions {
        tolerance,
        ..options
    };
    lloyd::descend(&vectors, &mut centroids, last);
    sort(&mut centroids, dim);
    let mut indices = vec![0; n];
    let mut cost = 0.0;
    if !options.stopped() {
        cost = vectors.assign(&centroids, &mut indices, Stop(options.stop));
    }
    VectorClusters {
        centroids,
        indices,
        cost,
    }
}

/// Index of the nearest of at most 256 centroids for each vector, ties going to the lower index; returns the squared
/// error.
///
/// Distances are compared as sums of squared differences of 32-bit floats, in order of the coordinates. Another thread sets `stop` when
/// the indices are no longer wanted: they are not worth using then.
///
/// ```
/// use palettizer_kernels::assign_vectors;
/// let mut indices = [0; 2];
/// let error = assign_vectors(&[0.0, 0.0, 2.0, 1.0], 2, &[0.0, 0.0, 2.0, 2.0], &mut indices, None);
/// assert_eq!((indices, error), ([0, 1], 1.0));
/// ```
pub fn assign_vectors(
    values: &[f32],
    dim: usize,
    centroids: &[f32],
    indices: &mut [u8],
    stop: Option<&AtomicBool>,
) -> f64 {
    let dim = dim.max(1);
    let n = (values.len() / dim).min(indices.len());
    let k = (centroids.len() / dim).min(256);
    let vectors = OrderedVectors::new(&values[..n * dim], dim, None);
    vectors.assign(&centroids[..k * dim], &mut indices[..n], Stop(stop))
}

/// Ascending order of vectors, coordinate by coordinate.
fn sort(centroids: &mut Vec<f32>, dim: usize) {
    let mut rows: Vec<&[f32]> = centroids.chunks_exact(dim).collect();
    rows.sort_by(|a, b| {
        let mut orders = a.iter().zip(*b).map(|(a, b)| a.total_cmp(b));
        orders
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    *centroids = rows.concat();
}
