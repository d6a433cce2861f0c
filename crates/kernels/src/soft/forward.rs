//! From weights and centroids to the soft weight.

use super::centers::Centers;
use super::options::{SoftGroup, SoftOptions};
use super::passes::{Sums, column_sums, soft_weight};
use super::real::{Real, SoftElement};

/// Makes the soft weight of one group.
///
/// `start` holds `k × dim` centroids; `next` gets those after the last step, `out` the soft weight in the order of the
/// values, and `saved` what [`soft_backward`](crate::soft_backward) needs, [`saved_len`](SoftOptions::saved_len) numbers.
///
/// Runs on the caller's rayon pool; the result does not depend on its size.
///
/// ```
/// use palettizer_kernels::{SoftGroup, SoftOptions, soft_forward};
///
/// let values = [0.0_f64, 0.02, 1.0, 0.98];
/// let group = SoftGroup { values: &values, cols: 4, dim: 1, scale: None };
/// let (mut out, mut next) = ([0.0; 4], [0.0; 2]);
/// let options = SoftOptions::default();
/// let mut saved = vec![0.0; options.saved_len(2, 1)];
/// soft_forward(&group, &[0.2, 0.7], &options, &mut out, &mut next, &mut saved);
/// assert!((next[0] - 0.01).abs() < 1e-6 && (out[3] - 0.99).abs() < 1e-6);
/// ```
///
/// # Panics
/// If the lengths contradict each other.
pub fn soft_forward<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    start: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    out: &mut [E],
    next: &mut [E::Real],
    saved: &mut [E::Real],
) {
    let (dim, n, size) = (group.dim, group.vectors(), start.len());
    let k = size / dim;
    let mut centroids = start.to_vec();
    if options.keeps_zero() {
        centroids[..dim].fill(E::Real::ZERO);
    }
    let mut before = Vec::new();
    let mut last = None;
    let mut steps = 0;
    while steps < options.iterations.max(1) {
        let centers = Centers::new(&centroids, dim, n, options, steps);
        let sums = column_sums(group, &centers);
        let means = means(&sums, &centroids);
        if !options.implicit {
            let at = 1 + size + steps * (size + k);
            saved[at..at + size].copy_from_slice(&means);
            for (to, &sum) in saved[at + size..].iter_mut().zip(&sums.columns) {
                *to = E::Real::from_f64(sum);
            }
        }
        before = std::mem::replace(&mut centroids, options.rounded(&means, dim));
        if steps == 0 && !options.implicit {
            saved[1..1 + size].copy_from_slice(&before);
        }
        steps += 1;
        // As in coremltools, a sum of exactly zero does not count as one that was there before.
        if last
            .is_some_and(|last: f64| last != 0.0 && (last - sums.inertia).abs() <= options.epsilon)
        {
            break;
        }
        last = Some(sums.inertia);
    }
    if options.implicit {
        before = centroids.clone();
        saved[1..1 + size].copy_from_slice(&centroids);
        saved[0] = E::Real::ZERO;
    } else {
        saved[0] = E::Real::from_f64(steps as f64);
    }
    let centers = Centers::new(&before, dim, n, options, steps.saturating_sub(1));
    soft_weight(group, &centers, &centroids, out);
    next.copy_from_slice(&centroids);
}

/// The weighted means; a cluster that nothing attends to keeps its centroid.
pub(super) fn means<R: Real>(sums: &Sums, centroids: &[R]) -> Vec<R> {
    let dim = sums.vectors.len() / sums.columns.len().max(1);
    let mean = |(at, &sum): (usize, &f64)| match sums.columns[at / dim] {
        0.0 => centroids[at],
        column => R::from_f64(sum / column),
    };
    sums.vectors.iter().enumerate().map(mean).collect()
}
