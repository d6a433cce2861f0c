//! The passes that sum over vectors: AᵀX with the column sums of A, and AᵀG.

use super::chunk;
use super::tiles::{Met, Pass, add_weighted, floored, mask, masked, total};
use crate::soft::centers::Centers;
use crate::soft::chunk::visit;
use crate::soft::options::SoftGroup;
use crate::soft::real::{Real, SoftElement};
use crate::soft::scratch::{Needs, Scratch};
use crate::soft::tile::fold;

/// What the columns of the attention come to.
pub(in crate::soft) struct Sums {
    /// Of each cluster.
    pub(in crate::soft) columns: Vec<f64>,
    /// The vectors' sums, weighted: cluster by cluster.
    pub(in crate::soft) vectors: Vec<f64>,
    /// The sum of the least distances.
    pub(in crate::soft) inertia: f64,
}

/// AᵀX, the column sums of A, and the sum of the least distances.
pub(in crate::soft) fn column_sums<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
) -> Sums {
    let (k, dim) = (centers.k, centers.dim);
    let mut sums = summed(&ColumnSums, group, None, centers);
    let inertia = sums.pop().unwrap_or(0.0);
    Sums {
        vectors: centers.unsorted(&sums[k..], dim),
        columns: centers.unsorted(&sums[..k], 1),
        inertia,
    }
}

/// AᵀG: what a gradient of the soft weight comes to in each centroid after the last step.
pub(in crate::soft) fn centroid_gradient<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
    grad: &[E],
) -> Vec<f64> {
    let sums = summed(&CentroidGradient, group, Some(grad), centers);
    centers.unsorted(&sums, centers.dim)
}

/// The sums of a pass over a whole group.
fn summed<E: SoftElement, P: Pass<E::Real>>(
    pass: &P,
    group: &SoftGroup<'_, E>,
    grad: Option<&[E]>,
    centers: &Centers<E::Real>,
) -> Vec<f64> {
    let needs = pass.needs(centers);
    let scratch = || Scratch::new(group.vectors(), centers, needs);
    let none = &mut [(); 0];
    visit(
        group,
        none,
        needs.slots,
        scratch,
        |scratch, vectors, _, sums| {
            chunk(pass, group, grad, centers, scratch, &vectors, sums);
        },
    )
}

/// Slots: a sum for each cluster, for each coordinate of each, and the inertia.
struct ColumnSums;

impl<R: Real> Pass<R> for ColumnSums {
    fn needs(&self, centers: &Centers<R>) -> Needs {
        Needs {
            slots: centers.k * (centers.dim + 1) + 1,
            inside: 2,
            ..Needs::default()
        }
    }

    #[inline(always)]
    fn tile<const D: usize>(&self, centers: &Centers<R>, scratch: &mut Scratch<R>, tile: Met<R>) {
        let dim = if D == 0 { centers.dim } else { D };
        let Met {
            at,
            valid,
            range,
            attended,
        } = tile;
        let Scratch {
            x,
            rows,
            partial,
            inside,
            ..
        } = scratch;
        let (columns, rest) = partial.split_at_mut(centers.k);
        let (sums, inertia) = rest.split_at_mut(centers.k * dim);
        let mask = mask(valid);
        fold(&mut inertia[0], &masked(attended.least, &mask));
        for (row, j) in rows.iter().zip(range.clone()) {
            let a = masked(floored(row, &attended.inverse, centers.floor), &mask);
            fold(&mut columns[j], &a);
            add_weighted(&mut sums[j * dim..(j + 1) * dim], &a, x, at);
        }
        if centers.windows.is_some() {
            inside[0].add(&range, valid as f64);
            inside[1].add(&range, total(&x.tile(0, at), valid));
        }
    }
}

/// Slots: one for each coordinate of each cluster.
struct CentroidGradient;

impl<R: Real> Pass<R> for CentroidGradient {
    fn needs(&self, centers: &Centers<R>) -> Needs {
        Needs {
            g: true,
            slots: centers.k * centers.dim,
            inside: 1,
            ..Needs::default()
        }
    }

    #[inline(always)]
    fn tile<const D: usize>(&self, centers: &Centers<R>, scratch: &mut Scratch<R>, tile: Met<R>) {
        let dim = if D == 0 { centers.dim } else { D };
        let Met {
            at,
            valid,
            range,
            attended,
        } = tile;
        let Scratch {
            g,
            rows,
            partial,
            inside,
            ..
        } = scratch;
        let mask = mask(valid);
        for (row, j) in rows.iter().zip(range.clone()) {
            let a = masked(floored(row, &attended.inverse, centers.floor), &mask);
            add_weighted(&mut partial[j * dim..(j + 1) * dim], &a, g, at);
        }
        if centers.windows.is_some() {
            inside[0].add(&range, total(&g.tile(0, at), valid));
        }
    }
}
