//! The four passes over a group: column sums, the soft weight, what a gradient comes to in each cluster, and the gradient.
//!
//! Each makes the attention of its vectors again, tile by tile, and uses it at once. A pass that sums keeps its sums in the
//! lanes of a tile, moves them over to 64 bits after each chunk, and adds those of the tasks in order.

use std::ops::Range;

use super::centers::Centers;
use super::chunk::{Columns, TILE, visit};
use super::options::SoftGroup;
use super::real::{Real, SoftElement};
use super::tile::{Lanes, Partial, attend, flush, fold};
use super::window::{Inside, outside, prefixes};
use crate::simd::dispatch;

/// Memory of one thread.
struct Scratch<R> {
    x: Columns<R>,
    g: Columns<R>,
    y: Columns<R>,
    rows: Vec<Lanes<R>>,
    more: Vec<Lanes<R>>,
    coordinates: Vec<Lanes<R>>,
    partial: Vec<Partial<R>>,
    order: Vec<u16>,
    moved: Vec<R>,
    inside: [Inside; 2],
}

/// What of the scratch a pass needs.
#[derive(Clone, Copy, Default)]
struct Needs {
    g: bool,
    y: bool,
    more: bool,
    slots: usize,
}

impl<R: Real> Scratch<R> {
    fn new(vectors: usize, centers: &Centers<R>, needs: Needs) -> Self {
        let columns = |wanted| Columns::new(if wanted { vectors } else { 0 }, centers.dim);
        let rows = |wanted| vec![[R::ZERO; TILE]; if wanted { centers.k } else { 0 }];
        Scratch {
            x: columns(true),
            g: columns(needs.g),
            y: columns(needs.y),
            rows: rows(true),
            more: rows(needs.more),
            coordinates: vec![[R::ZERO; TILE]; centers.dim],
            partial: vec![[R::ZERO; TILE / 2]; needs.slots],
            order: Vec::new(),
            moved: Vec::new(),
            inside: [Inside::new(centers.k), Inside::new(centers.k)],
        }
    }

    /// Brings the vectors of a chunk, and what the gradient of the output is there, if that is given.
    fn load<E: SoftElement<Real = R>>(
        &mut self,
        group: &SoftGroup<'_, E>,
        grad: Option<&[E]>,
        centers: &Centers<R>,
        vectors: &Range<usize>,
    ) {
        self.x.load(group, group.values, vectors.clone());
        self.x.scale(group, vectors.clone(), true);
        if let Some(windows) = &centers.windows {
            windows.sort(&self.x.values[..vectors.len()], &mut self.order);
            gather(&mut self.x.values, &self.order, &mut self.moved);
        }
        self.x.pad(vectors.len());
        if let Some(grad) = grad {
            self.g.load(group, grad, vectors.clone());
            self.g.scale(group, vectors.clone(), false);
            if centers.windows.is_some() {
                gather(&mut self.g.values, &self.order, &mut self.moved);
            }
            self.g.pad(vectors.len());
        }
    }

    /// Brings the result back into the order of the vectors.
    fn restore(&mut self, centers: &Centers<R>) {
        if centers.windows.is_some() {
            self.moved.clear();
            self.moved
                .extend_from_slice(&self.y.values[..self.order.len()]);
            for (&to, &value) in self.order.iter().zip(&self.moved) {
                self.y.values[usize::from(to)] = value;
            }
        }
    }

    fn flush(&mut self, sums: &mut [f64]) {
        flush(&mut self.partial, sums);
    }
}

fn gather<R: Real>(values: &mut [R], order: &[u16], moved: &mut Vec<R>) {
    moved.clear();
    moved.extend(order.iter().map(|&from| values[usize::from(from)]));
    values[..moved.len()].copy_from_slice(moved);
}

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

/// Numbers for each cluster in the order of the centers, and the sums of what is before each.
struct After<R> {
    values: Vec<R>,
    prefixes: Vec<f64>,
}

impl<R: Real> After<R> {
    fn new(centers: &Centers<R>, values: &[R]) -> Self {
        let values = centers.sorted(values, centers.dim);
        let prefixes = match centers.windows {
            Some(_) => prefixes(&values),
            None => Vec::new(),
        };
        After { values, prefixes }
    }
}

struct Back<R> {
    sums: After<R>,
    columns: Vec<R>,
    last: Option<Vec<R>>,
}

/// Calls a body with the length of the vectors as a constant where it is a usual one.
macro_rules! by_dim {
    ($body:ident, $centers:expr, $($arg:expr),*) => {
        match $centers.dim {
            1 => $body::<R, 1>($centers, $($arg),*),
            2 => $body::<R, 2>($centers, $($arg),*),
            4 => $body::<R, 4>($centers, $($arg),*),
            _ => $body::<R, 0>($centers, $($arg),*),
        }
    };
}

dispatch! {
    fn sum_chunk<R: Real>(centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = sum_body
}
dispatch! {
    fn output_chunk<R: Real>(centers: &Centers<R>, after: &After<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = output_body
}
dispatch! {
    fn pull_chunk<R: Real>(centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = pull_body
}
dispatch! {
    fn gradient_chunk<R: Real>(centers: &Centers<R>, back: &Back<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = gradient_body
}

#[inline(always)]
fn sum_body<R: Real>(centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) {
    by_dim!(sum, centers, scratch, vectors);
}

#[inline(always)]
fn output_body<R: Real>(
    centers: &Centers<R>,
    after: &After<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    by_dim!(soft, centers, after, scratch, vectors);
}

#[inline(always)]
fn pull_body<R: Real>(centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) {
    by_dim!(pull, centers, scratch, vectors);
}

#[inline(always)]
fn gradient_body<R: Real>(
    centers: &Centers<R>,
    back: &Back<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    by_dim!(back_through, centers, back, scratch, vectors);
}

/// The clusters that a tile has to be compared with.
#[inline(always)]
fn run<R: Real>(centers: &Centers<R>, x: &Columns<R>, at: usize) -> Range<usize> {
    let Some(windows) = &centers.windows else {
        return 0..centers.k;
    };
    let x = x.tile(0, at);
    let (mut low, mut high) = (x[0], x[0]);
    for &x in &x {
        low = if x < low { x } else { low };
        high = if x > high { x } else { high };
    }
    windows.range(&centers.values, low, high)
}

/// One for each lane that is a vector, zero for padding; `None` if all are.
#[inline(always)]
fn mask<R: Real>(len: usize, at: usize) -> Option<Lanes<R>> {
    let valid = len - at;
    (valid < TILE).then(|| std::array::from_fn(|l| if l < valid { R::ONE } else { R::ZERO }))
}

#[inline(always)]
fn masked<R: Real>(mut lanes: Lanes<R>, mask: &Option<Lanes<R>>) -> Lanes<R> {
    if let Some(mask) = mask {
        for l in 0..TILE {
            lanes[l] = lanes[l] * mask[l];
        }
    }
    lanes
}

/// The attention itself: divided by its sum, and no less than the floor.
#[inline(always)]
fn floored<R: Real>(row: &Lanes<R>, inverse: &Lanes<R>, floor: R) -> Lanes<R> {
    let mut a = [R::ZERO; TILE];
    for l in 0..TILE {
        let raw = row[l] * inverse[l];
        a[l] = if raw < floor { floor } else { raw };
    }
    a
}

/// The sum of a tile's lanes that are vectors.
#[inline(always)]
fn total<R: Real>(lanes: &Lanes<R>, len: usize, at: usize) -> f64 {
    lanes[..TILE.min(len - at)].iter().map(|x| x.to_f64()).sum()
}

#[inline(always)]
fn sum<R: Real, const D: usize>(
    centers: &Centers<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    let dim = if D == 0 { centers.dim } else { D };
    let Scratch {
        x,
        rows,
        partial,
        inside,
        ..
    } = scratch;
    let (columns, rest) = partial.split_at_mut(centers.k);
    let (sums, inertia) = rest.split_at_mut(centers.k * dim);
    for at in (0..vectors.len()).step_by(TILE) {
        let range = run(centers, x, at);
        let mask = mask(vectors.len(), at);
        let found = attend::<R, D>(centers, range.clone(), x, at, vectors.start + at, rows);
        fold(&mut inertia[0], &masked(found.least, &mask));
        for (row, j) in rows.iter().zip(range.clone()) {
            let a = masked(floored(row, &found.inverse, centers.floor), &mask);
            fold(&mut columns[j], &a);
            for (e, sum) in sums[j * dim..(j + 1) * dim].iter_mut().enumerate() {
                let x = x.tile(e, at);
                let mut ax = a;
                for l in 0..TILE {
                    ax[l] = a[l] * x[l];
                }
                fold(sum, &ax);
            }
        }
        if centers.windows.is_some() {
            inside[0].add(&range, TILE.min(vectors.len() - at) as f64);
            inside[1].add(&range, total(&x.tile(0, at), vectors.len(), at));
        }
    }
}

#[inline(always)]
fn soft<R: Real, const D: usize>(
    centers: &Centers<R>,
    after: &After<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    let dim = if D == 0 { centers.dim } else { D };
    let Scratch {
        x,
        y,
        rows,
        coordinates,
        ..
    } = scratch;
    for at in (0..vectors.len()).step_by(TILE) {
        let range = run(centers, x, at);
        let found = attend::<R, D>(centers, range.clone(), x, at, vectors.start + at, rows);
        let rest = match centers.windows {
            Some(_) => centers.floor * R::from_f64(outside(&after.prefixes, &range)),
            None => R::ZERO,
        };
        let mut local = [[rest; TILE]; 4];
        let w = if D == 0 {
            &mut coordinates[..dim]
        } else {
            &mut local[..dim]
        };
        if D == 0 {
            w.fill([R::ZERO; TILE]);
        }
        for (row, j) in rows.iter().zip(range) {
            let a = floored(row, &found.inverse, centers.floor);
            for (w, &c) in w.iter_mut().zip(&after.values[j * dim..(j + 1) * dim]) {
                for l in 0..TILE {
                    w[l] += a[l] * c;
                }
            }
        }
        for (e, w) in w.iter().enumerate() {
            y.set(e, at, *w);
        }
    }
}

#[inline(always)]
fn pull<R: Real, const D: usize>(
    centers: &Centers<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    let dim = if D == 0 { centers.dim } else { D };
    let Scratch {
        x,
        g,
        rows,
        partial,
        inside,
        ..
    } = scratch;
    for at in (0..vectors.len()).step_by(TILE) {
        let range = run(centers, x, at);
        let mask = mask(vectors.len(), at);
        let found = attend::<R, D>(centers, range.clone(), x, at, vectors.start + at, rows);
        for (row, j) in rows.iter().zip(range.clone()) {
            let a = masked(floored(row, &found.inverse, centers.floor), &mask);
            for (e, sum) in partial[j * dim..(j + 1) * dim].iter_mut().enumerate() {
                let g = g.tile(e, at);
                let mut ag = a;
                for l in 0..TILE {
                    ag[l] = a[l] * g[l];
                }
                fold(sum, &ag);
            }
        }
        if centers.windows.is_some() {
            inside[0].add(&range, total(&g.tile(0, at), vectors.len(), at));
        }
    }
}

#[inline(always)]
fn back_through<R: Real, const D: usize>(
    centers: &Centers<R>,
    back: &Back<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    let dim = if D == 0 { centers.dim } else { D };
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
    let floor = centers.floor;
    let hard = centers.attention == super::options::Attention::Hard;
    let twice = R::from_f64(2.0 / centers.temperature);
    for at in (0..vectors.len()).step_by(TILE) {
        let range = run(centers, x, at);
        let mask = mask(vectors.len(), at);
        let found = attend::<R, D>(centers, range.clone(), x, at, vectors.start + at, rows);
        let rest = match centers.windows {
            Some(_) => floor * R::from_f64(outside(&back.sums.prefixes, &range)),
            None => R::ZERO,
        };
        let mut local = [[rest; TILE]; 4];
        let dx = if D == 0 {
            &mut coordinates[..dim]
        } else {
            &mut local[..dim]
        };
        if D == 0 {
            dx.fill([R::ZERO; TILE]);
        }
        // Through the sums that A is in, and what that makes of A.
        let mut dot = [R::ZERO; TILE];
        for ((row, more), j) in rows.iter_mut().zip(more.iter_mut()).zip(range.clone()) {
            let mut da = [back.columns[j]; TILE];
            let dn = &back.sums.values[j * dim..(j + 1) * dim];
            for (e, &dn) in dn.iter().enumerate() {
                let x = x.tile(e, at);
                for l in 0..TILE {
                    da[l] += dn * x[l];
                }
            }
            if let Some(last) = &back.last {
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
                raw[l] = raw[l] * found.inverse[l];
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
        // Through the softmax, to the distances.
        for ((row, more), j) in rows.iter().zip(more.iter()).zip(range) {
            if hard {
                break;
            }
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
        for (e, dx) in dx.iter().enumerate() {
            y.set(e, at, *dx);
        }
    }
}
