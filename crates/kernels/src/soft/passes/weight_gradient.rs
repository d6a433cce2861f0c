//! The pass that goes back through a step, to the weights and to the centroids before it.

use std::ops::Range;

use super::chunk;
use super::tiles::{Met, Pass, PerCluster, accumulators, mask, masked};
use crate::soft::centers::Centers;
use crate::soft::chunk::{Columns, TILE, visit};
use crate::soft::options::{Attention, SoftGroup};
use crate::soft::real::{Real, SoftElement};
use crate::soft::scratch::{Needs, Scratch};
use crate::soft::tile::{Partial, Tile, fold};

/// A step that is gone back through: its centers, and in their order ∂L/∂N and ∂L/∂s, and for the last step C besides, since W = A·C.
pub(in crate::soft) struct StepState<R> {
    pub(in crate::soft) centers: Centers<R>,
    sums: PerCluster<R>,
    columns: Vec<R>,
    last: Option<Vec<R>>,
}

impl<R: Real> StepState<R> {
    /// Of `upstream`, the gradient of the centroids that the step made, by their means and column sums; of the last step also with
    /// the centroids after it. With `enforce_zero` nothing passes the first of them.
    pub(in crate::soft) fn new(
        centers: Centers<R>,
        upstream: &[f64],
        (means, columns): (&[R], &[R]),
        after: Option<&[R]>,
        enforce_zero: bool,
    ) -> Self {
        let (sums, columns) = through_means(upstream, means, columns, enforce_zero);
        StepState {
            sums: PerCluster::new(&centers, &sums),
            columns: centers.sorted(&columns, 1),
            last: after.map(|c| centers.sorted(c, centers.dim)),
            centers,
        }
    }

    fn slots(&self) -> usize {
        self.centers.k * self.centers.dim
    }

    fn scratch(&self, vectors: usize) -> Scratch<R> {
        Scratch::new(vectors, &self.centers, self.needs(&self.centers))
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
        let grad = self.last.is_some().then_some(grad);
        chunk(self, group, grad, &self.centers, scratch, vectors, sums);
    }
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

/// Adds what a step's attention passes on to `out`, if that is not empty, and gives what it passes to the centroids before it.
pub(in crate::soft) fn weight_gradient<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    state: &StepState<E::Real>,
    grad: &[E],
    out: &mut [E::Real],
) -> Vec<f64> {
    let slots = state.slots();
    let scratch = || state.scratch(group.vectors());
    let sums = visit(
        group,
        out,
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
    state.centers.unsorted(&sums, group.dim)
}

/// Writes what all steps pass on, added up before it is rounded.
pub(in crate::soft) fn weight_gradient_at_once<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    states: &[StepState<E::Real>],
    grad: &[E],
    out: &mut [E],
) {
    let slots = states.iter().map(|state| state.slots()).max();
    let scratch = || {
        let total = Columns::new(group.vectors(), group.dim);
        let each = states.iter().map(|state| state.scratch(group.vectors()));
        (
            total,
            each.collect::<Vec<_>>(),
            vec![0.0; slots.unwrap_or(0)],
        )
    };
    visit(
        group,
        out,
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

impl<R: Real> Pass<R> for StepState<R> {
    fn needs(&self, _: &Centers<R>) -> Needs {
        Needs {
            g: true,
            y: true,
            more: true,
            slots: self.slots(),
            inside: 0,
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
            g,
            y,
            rows,
            more,
            coordinates,
            partial,
            ..
        } = scratch;
        let (floor, inverse) = (centers.floor, attended.inverse);
        let mut registers = [[R::ZERO; TILE]; 4];
        let rest = self.sums.outside(centers, &range);
        let dx = accumulators::<R, D>(&mut registers, coordinates, rest);
        // Through the sums that A is in, and what that makes of A.
        let mut dot = [R::ZERO; TILE];
        for ((row, more), j) in rows.iter_mut().zip(more.iter_mut()).zip(range.clone()) {
            let mut da = [self.columns[j]; TILE];
            let dn = &self.sums.values[j * dim..(j + 1) * dim];
            for (e, &dn) in dn.iter().enumerate() {
                let x = x.tile(e, at);
                for l in 0..TILE {
                    da[l] += dn * x[l];
                }
            }
            if let Some(last) = &self.last {
                for (e, &c) in last[j * dim..(j + 1) * dim].iter().enumerate() {
                    let g = g.tile(e, at);
                    for l in 0..TILE {
                        da[l] += c * g[l];
                    }
                }
            }
            let mut a = [R::ZERO; TILE];
            let mut raw = *row;
            for l in 0..TILE {
                raw[l] = raw[l] * inverse[l];
                let low = raw[l] < floor;
                a[l] = if low { floor } else { raw[l] };
                da[l] = if low { R::ZERO } else { da[l] };
                dot[l] += raw[l] * da[l];
            }
            for (dx, &dn) in dx.iter_mut().zip(dn) {
                for l in 0..TILE {
                    dx[l] += a[l] * dn;
                }
            }
            *row = raw;
            *more = da;
        }
        if centers.attention != Attention::Hard {
            let attention = rows.iter().zip(more.iter()).zip(range);
            through_softmax::<R, D>(centers, x, (at, valid), attention, &dot, dx, partial);
        }
        for (e, dx) in dx.iter().enumerate() {
            y.set(e, at, *dx);
        }
    }
}

/// Through the softmax and the distances, from A and its gradient to `dx` and to the sums of the centroids.
#[inline(always)]
fn through_softmax<'a, R: Real, const D: usize>(
    centers: &Centers<R>,
    x: &Columns<R>,
    (at, valid): (usize, usize),
    attention: impl Iterator<Item = ((&'a Tile<R>, &'a Tile<R>), usize)>,
    dot: &Tile<R>,
    dx: &mut [Tile<R>],
    partial: &mut [Partial<R>],
) {
    let dim = if D == 0 { centers.dim } else { D };
    let twice = R::from_f64(2.0 / centers.temperature);
    let mask = mask(valid);
    for ((row, more), j) in attention {
        let mut h = [R::ZERO; TILE];
        for l in 0..TILE {
            h[l] = twice * row[l] * (more[l] - dot[l]);
        }
        let h = masked(h, &mask);
        let c = &centers.values[j * dim..(j + 1) * dim];
        let sums = &mut partial[j * dim..(j + 1) * dim];
        for (e, (&c, sum)) in c.iter().zip(sums).enumerate() {
            let x = x.tile(e, at);
            let mut t = [R::ZERO; TILE];
            for l in 0..TILE {
                t[l] = h[l] * (x[l] - c);
                dx[e][l] = dx[e][l] - t[l];
            }
            fold(sum, &t);
        }
    }
}
