//! The centroids of one step, ready to be compared with.

use super::options::{Attention, SoftOptions};
use super::real::Real;
use super::window::Windows;

/// Centroids and what attention to them depends on. Scalar ones ascend.
///
/// Many fields in one place: the inner loops of all passes read them, and none is made twice.
#[derive(Debug)]
pub(super) struct Centers<R> {
    pub(super) k: usize,
    pub(super) dim: usize,
    /// Cluster by cluster.
    pub(super) values: Vec<R>,
    /// The number of each cluster before they were sorted.
    pub(super) order: Vec<usize>,
    /// The place of the first cluster, whose distance is lowered.
    pub(super) first: usize,
    /// By how much.
    pub(super) lowered: R,
    /// The distance of everything but zero to the first cluster, where it is not its own.
    pub(super) barred: Option<R>,
    /// log₂e / τ.
    pub(super) sharpness: R,
    pub(super) temperature: f64,
    pub(super) floor: R,
    pub(super) attention: Attention,
    /// Number of the step, for the noise.
    pub(super) step: usize,
    /// Where it pays to visit near clusters only.
    pub(super) windows: Option<Windows<R>>,
}

impl<R: Real> Centers<R> {
    pub(super) fn new(
        centroids: &[R],
        dim: usize,
        vectors: usize,
        options: &SoftOptions<'_, R>,
        step: usize,
    ) -> Self {
        let k = centroids.len() / dim;
        let mut order: Vec<usize> = (0..k).collect();
        if dim == 1 {
            order.sort_by(|&a, &b| f64::total_cmp(&centroids[a].to_f64(), &centroids[b].to_f64()));
        }
        let values: Vec<R> = order
            .iter()
            .flat_map(|&j| &centroids[j * dim..(j + 1) * dim])
            .copied()
            .collect();
        let soft = options.attention == Attention::Softmax;
        let mut centers = Centers {
            k,
            dim,
            values,
            first: order.iter().position(|&j| j == 0).unwrap_or(0),
            order,
            lowered: R::from_f64(options.prune_threshold.max(0.0)),
            barred: options
                .keeps_zero()
                .then(|| R::from_f64((1.0 / options.floor).min(1e30))),
            sharpness: R::from_f64(std::f64::consts::LOG2_E / options.temperature),
            temperature: options.temperature,
            floor: R::from_f64(if soft { options.floor } else { 0.0 }),
            attention: options.attention,
            step,
            windows: None,
        };
        if soft && dim == 1 && centers.barred.is_none() {
            let (floor, lowered) = (centers.floor.to_f64(), centers.lowered.to_f64());
            let values = &centers.values;
            centers.windows = Windows::new(values, vectors, options.temperature, floor, lowered);
        }
        centers
    }

    /// Numbers for each cluster (`per` of them) in the order of these centers.
    pub(super) fn sorted(&self, numbers: &[R], per: usize) -> Vec<R> {
        let rows = self.order.iter().map(|&j| &numbers[j * per..(j + 1) * per]);
        rows.flatten().copied().collect()
    }

    /// The opposite, for sums.
    pub(super) fn unsorted(&self, numbers: &[f64], per: usize) -> Vec<f64> {
        let mut out = vec![0.0; numbers.len()];
        for (&j, row) in self.order.iter().zip(numbers.chunks_exact(per)) {
            out[j * per..(j + 1) * per].copy_from_slice(row);
        }
        out
    }
}
