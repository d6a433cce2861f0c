//! The four passes over a group: column sums, the soft weight, what a gradient comes to in each cluster, and the gradient.
//!
//! Each makes the attention of its vectors again: see `loops`. A pass that sums moves its sums over to 64 bits after each chunk, and adds
//! those of the tasks in order.

use std::ops::Range;

use super::centers::Centers;
use super::chunk::{Columns, visit};
use super::loops::{After, Back, centroid_gradient_chunk, gradient_chunk, output_chunk, sum_chunk};
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
pub(super) fn centroid_gradient<E: SoftElement>(
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
            centroid_gradient_chunk(centers, scratch, vectors);
            scratch.flush(sums);
            if centers.windows.is_some() {
                scratch.inside[0].flush(centers.floor.to_f64(), sums);
            }
        },
    );
    centers.unsorted(&sums, centers.dim)
}

/// A step that is gone back through.
pub(super) struct StepState<R> {
    pub(super) centers: Centers<R>,
    back: Back<R>,
}

impl<R: Real> StepState<R> {
    /// Of `upstream`, the gradient of the centroids that the step made, by their means and column sums; of the last step also with the
    /// centroids after it, since W = A·C. With `enforce_zero` nothing passes the first of them.
    pub(super) fn new(
        centers: Centers<R>,
        upstream: &[f64],
        (means, columns): (&[R], &[R]),
        after: Option<&[R]>,
        enforce_zero: bool,
    ) -> Self {
        let (sums, columns) = through_means(upstream, means, columns, enforce_zero);
        let back = Back {
            sums: After::new(&centers, &sums),
            columns: centers.sorted(&columns, 1),
            last: after.map(|c| centers.sorted(c, centers.dim)),
        };
        StepState { centers, back }
    }

    fn slots(&self) -> usize {
        self.centers.k * self.centers.dim
    }

    fn scratch(&self, vectors: usize) -> Scratch<R> {
        let needs = Needs {
            g: true,
            y: true,
            more: true,
            slots: self.slots(),
        };
        Scratch::new(vectors, &self.centers, needs)
    }

    /// What a chunk passes on, in `scratch.y`, and what it passes to the centroids.
    fn chunk<E: SoftElement<Real = R>>(
        &self,
        group: &SoftGroup<'_, E>,
        grad: &[E],
        scratch: &mut Scratch<R>,
        vectors: &Range<usize>,
        sums: &mut [f64],
    ) {
        let grad = self.back.last.is_some().then_some(grad);
        scratch.load(group, grad, &self.centers, vectors);
        gradient_chunk(&self.centers, &self.back, scratch, vectors.clone());
        scratch.flush(sums);
        scratch.restore(&self.centers);
    }
}

/// Adds what a step's attention passes on to `out`, if that is not empty, and gives what it passes to the centroids before it.
pub(super) fn weight_gradient<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    state: &StepState<E::Real>,
    grad: &[E],
    out: &mut [E::Real],
) -> Vec<f64> {
    let (slots, dim) = (state.slots(), group.dim);
    let scratch = || state.scratch(group.vectors());
    let sums = visit(
        group,
        out,
        dim,
        slots,
        scratch,
        |scratch, vectors, place, sums| {
            state.chunk(group, grad, scratch, &vectors, sums);
            if !place.0.is_empty() {
                scratch.y.scale(group, vectors.clone(), true);
                scratch.y.add_to(group, vectors, place);
            }
        },
    );
    state.centers.unsorted(&sums, dim)
}

/// Writes what all steps pass on, added up before it is rounded.
pub(super) fn weight_gradient_at_once<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    states: &[StepState<E::Real>],
    grad: &[E],
    out: &mut [E],
) {
    let slots = states.iter().map(StepState::slots).max().unwrap_or(0);
    let scratch = || {
        let total = Columns::new(group.vectors(), group.dim);
        let each = states.iter().map(|state| state.scratch(group.vectors()));
        (total, each.collect::<Vec<_>>(), vec![0.0; slots])
    };
    visit(
        group,
        out,
        group.dim,
        0,
        scratch,
        |(total, each, unused), vectors, place, _| {
            total.values.fill(E::Real::ZERO);
            for (state, scratch) in states.iter().zip(each) {
                state.chunk(group, grad, scratch, &vectors, unused);
                for (total, &y) in total.values.iter_mut().zip(&scratch.y.values) {
                    *total += y;
                }
            }
            total.scale(group, vectors.clone(), true);
            total.store(group, vectors, place);
        },
    );
}

/// From the gradient of the centroids to that of the sums that their means were made of: N, and the column sums.
fn through_means<R: Real>(
    upstream: &[f64],
    means: &[R],
    columns: &[R],
    enforce_zero: bool,
) -> (Vec<R>, Vec<R>) {
    let dim = upstream.len() / columns.len().max(1);
    let mut sums = vec![R::ZERO; upstream.len()];
    let mut of_columns = vec![R::ZERO; columns.len()];
    for (j, &column) in columns.iter().enumerate() {
        if column == R::ZERO || (enforce_zero && j == 0) {
            continue;
        }
        let mut dot = 0.0;
        for at in j * dim..(j + 1) * dim {
            sums[at] = R::from_f64(upstream[at] / column.to_f64());
            dot += upstream[at] * means[at].to_f64();
        }
        of_columns[j] = R::from_f64(-dot / column.to_f64());
    }
    (sums, of_columns)
}
