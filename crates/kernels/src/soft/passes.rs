//! The four passes over a group: column sums, the soft weight, what a gradient comes to in each cluster, and the gradient.
//!
//! Each makes the attention of its vectors again: see `loops`. A pass that sums moves its sums over to 64 bits after each chunk, and adds
//! those of the tasks in order.

use super::centers::Centers;
use super::chunk::visit;
use super::loops::{After, Back, gradient_chunk, output_chunk, pull_chunk, sum_chunk};
use super::options::SoftGroup;
use super::real::{Real, SoftElement};
use super::scratch::{Needs, Scratch};

/// What the columns of the attention come to.
pub(super) struct Sums {
    /// Of each cluster.
    pub(super) columns: Vec<f64>,
    /// The vectors' sums, weighted: cluster by cluster.
    pub(super) vectors: Vec<f64>,
    /// The sum of the least distances.
    pub(super) inertia: f64,
}

/// AᵀX, the column sums of A, and the sum of the least distances.
pub(super) fn column_sums<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
) -> Sums {
    let (k, dim) = (centers.k, centers.dim);
    let slots = k * (dim + 1) + 1;
    let needs = Needs {
        slots,
        ..Needs::default()
    };
    let scratch = || Scratch::new(group.vectors(), centers, needs);
    let mut sums = visit(
        group,
        &mut [(); 0],
        0,
        slots,
        scratch,
        |scratch, vectors, _, sums| {
            scratch.load(group, None, centers, &vectors);
            sum_chunk(centers, scratch, vectors);
            scratch.flush(sums);
            if centers.windows.is_some() {
                let floor = centers.floor.to_f64();
                scratch.inside[0].flush(floor, &mut sums[..k]);
                scratch.inside[1].flush(floor, &mut sums[k..2 * k]);
            }
        },
    );
    let inertia = sums.pop().unwrap_or(0.0);
    Sums {
        vectors: centers.unsorted(&sums[k..], dim),
        columns: centers.unsorted(&sums[..k], 1),
        inertia,
    }
}

/// A·C for the centroids after the last step.
pub(super) fn output<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
    centroids: &[E::Real],
    out: &mut [E],
) {
    let after = After::new(centers, centroids);
    let needs = Needs {
        y: true,
        ..Needs::default()
    };
    let scratch = || Scratch::new(group.vectors(), centers, needs);
    visit(
        group,
        out,
        group.dim,
        0,
        scratch,
        |scratch, vectors, place, _| {
            scratch.load(group, None, centers, &vectors);
            output_chunk(centers, &after, scratch, vectors.clone());
            scratch.restore(centers);
            scratch.y.scale(group, vectors.clone(), false);
            scratch.y.store(group, vectors, place);
        },
    );
}

/// AᵀG: what a gradient of the soft weight comes to in each centroid after the last step.
pub(super) fn pulled<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
    grad: &[E],
) -> Vec<f64> {
    let slots = centers.k * centers.dim;
    let needs = Needs {
        g: true,
        slots,
        ..Needs::default()
    };
    let scratch = || Scratch::new(group.vectors(), centers, needs);
    let sums = visit(
        group,
        &mut [(); 0],
        0,
        slots,
        scratch,
        |scratch, vectors, _, sums| {
            scratch.load(group, Some(grad), centers, &vectors);
            pull_chunk(centers, scratch, vectors);
            scratch.flush(sums);
            if centers.windows.is_some() {
                scratch.inside[0].flush(centers.floor.to_f64(), sums);
            }
        },
    );
    centers.unsorted(&sums, centers.dim)
}

/// What one step's backward starts from.
pub(super) struct Step<'a, E: SoftElement> {
    /// ∂L/∂N, cluster by cluster.
    pub(super) sums: &'a [E::Real],
    /// ∂L/∂s.
    pub(super) columns: &'a [E::Real],
    /// In the last step: G, and the centroids after it.
    pub(super) last: Option<(&'a [E], &'a [E::Real])>,
}

/// Adds what a step's attention passes on to `out`, and gives what it passes to the centroids before it.
pub(super) fn gradient<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
    step: &Step<'_, E>,
    out: &mut [E::Real],
) -> Vec<f64> {
    let slots = centers.k * centers.dim;
    let needs = Needs {
        g: step.last.is_some(),
        y: true,
        more: true,
        slots,
    };
    let back = Back {
        sums: After::new(centers, step.sums),
        columns: centers.sorted(step.columns, 1),
        last: step.last.map(|(_, c)| centers.sorted(c, centers.dim)),
    };
    let scratch = || Scratch::new(group.vectors(), centers, needs);
    let sums = visit(
        group,
        out,
        group.dim,
        slots,
        scratch,
        |scratch, vectors, place, sums| {
            scratch.load(group, step.last.map(|(grad, _)| grad), centers, &vectors);
            gradient_chunk(centers, &back, scratch, vectors.clone());
            scratch.flush(sums);
            if !place.0.is_empty() {
                scratch.restore(centers);
                scratch.y.scale(group, vectors.clone(), true);
                scratch.y.add_to(group, vectors, place);
            }
        },
    );
    centers.unsorted(&sums, centers.dim)
}
