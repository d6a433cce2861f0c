//! The loops over the tiles of a chunk, one for each pass.
//!
//! Each tile's attention is made and used at once. Sums over vectors are kept in lanes, of which [`Scratch`] has as many as a pass
//! needs.

use std::ops::Range;

use super::centers::Centers;
use super::chunk::{Columns, TILE};
use super::options::Attention;
use super::real::Real;
use super::scratch::Scratch;
use super::tile::{Attended, Partial, Tile, attend, fold};
use super::window::{outside, prefixes};
use crate::simd::dispatch;

/// Numbers for each cluster in the order of the centers, and the sums of what is before each.
pub(super) struct After<R> {
    pub(super) values: Vec<R>,
    pub(super) prefixes: Vec<f64>,
}

impl<R: Real> After<R> {
    pub(super) fn new(centers: &Centers<R>, values: &[R]) -> Self {
        let values = centers.sorted(values, centers.dim);
        let prefixes = match centers.windows {
            Some(_) => prefixes(&values),
            None => Vec::new(),
        };
        After { values, prefixes }
    }

    /// What clusters outside of a run come to, at the floor.
    #[inline(always)]
    fn outside(&self, centers: &Centers<R>, range: &Range<usize>) -> R {
        match centers.windows {
            Some(_) => centers.floor * R::from_f64(outside(&self.prefixes, range)),
            None => R::ZERO,
        }
    }
}

/// What a step's backward is made of, in the order of the centers.
pub(super) struct Back<R> {
    pub(super) sums: After<R>,
    pub(super) columns: Vec<R>,
    pub(super) last: Option<Vec<R>>,
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
    pub(super) fn sum_chunk<R: Real>(centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = sum_body
}
dispatch! {
    pub(super) fn output_chunk<R: Real>(centers: &Centers<R>, after: &After<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = output_body
}
dispatch! {
    pub(super) fn centroid_gradient_chunk<R: Real>(centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = centroid_gradient_body
}
dispatch! {
    pub(super) fn gradient_chunk<R: Real>(centers: &Centers<R>, back: &Back<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = gradient_body
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
fn centroid_gradient_body<R: Real>(
    centers: &Centers<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    by_dim!(centroid_gradient, centers, scratch, vectors);
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
fn mask<R: Real>(len: usize, at: usize) -> Option<Tile<R>> {
    let valid = len - at;
    (valid < TILE).then(|| std::array::from_fn(|l| if l < valid { R::ONE } else { R::ZERO }))
}

#[inline(always)]
fn masked<R: Real>(mut lanes: Tile<R>, mask: &Option<Tile<R>>) -> Tile<R> {
    if let Some(mask) = mask {
        for l in 0..TILE {
            lanes[l] = lanes[l] * mask[l];
        }
    }
    lanes
}

/// The attention itself: divided by its sum, and no less than the floor.
#[inline(always)]
fn floored<R: Real>(row: &Tile<R>, inverse: &Tile<R>, floor: R) -> Tile<R> {
    let mut a = [R::ZERO; TILE];
    for l in 0..TILE {
        let raw = row[l] * inverse[l];
        a[l] = if raw < floor { floor } else { raw };
    }
    a
}

/// The sum of a tile's lanes that are vectors.
#[inline(always)]
fn total<R: Real>(lanes: &Tile<R>, len: usize, at: usize) -> f64 {
    lanes[..TILE.min(len - at)].iter().map(|x| x.to_f64()).sum()
}

/// Attends to the tile that starts at `at`, and says which clusters it was compared with; their attentions are in `rows`.
#[inline(always)]
fn meet<R: Real, const D: usize>(
    centers: &Centers<R>,
    x: &Columns<R>,
    vectors: &Range<usize>,
    at: usize,
    rows: &mut [Tile<R>],
) -> (Range<usize>, Attended<R>) {
    let range = run(centers, x, at);
    let found = attend::<R, D>(centers, range.clone(), x, at, vectors.start + at, rows);
    (range, found)
}

/// Adds vectors, weighted with their attention to a cluster, to the sums of its coordinates.
#[inline(always)]
fn add_weighted<R: Real>(sums: &mut [Partial<R>], a: &Tile<R>, of: &Columns<R>, at: usize) {
    for (e, sum) in sums.iter_mut().enumerate() {
        let mut weighted = of.tile(e, at);
        for l in 0..TILE {
            weighted[l] = a[l] * weighted[l];
        }
        fold(sum, &weighted);
    }
}

/// Where the coordinates of a tile's result are summed: in registers where their number is known, else in memory.
#[inline(always)]
fn begun<'a, R: Real, const D: usize>(
    registers: &'a mut [Tile<R>; 4],
    memory: &'a mut [Tile<R>],
    from: R,
) -> &'a mut [Tile<R>] {
    let place = if D == 0 { memory } else { &mut registers[..D] };
    place.fill([from; TILE]);
    place
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
        let (range, found) = meet::<R, D>(centers, x, &vectors, at, rows);
        let mask = mask(vectors.len(), at);
        fold(&mut inertia[0], &masked(found.least, &mask));
        for (row, j) in rows.iter().zip(range.clone()) {
            let a = masked(floored(row, &found.inverse, centers.floor), &mask);
            fold(&mut columns[j], &a);
            add_weighted(&mut sums[j * dim..(j + 1) * dim], &a, x, at);
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
        let (range, found) = meet::<R, D>(centers, x, &vectors, at, rows);
        let mut registers = [[R::ZERO; TILE]; 4];
        let w = begun::<R, D>(&mut registers, coordinates, after.outside(centers, &range));
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
fn centroid_gradient<R: Real, const D: usize>(
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
        let (range, found) = meet::<R, D>(centers, x, &vectors, at, rows);
        let mask = mask(vectors.len(), at);
        for (row, j) in rows.iter().zip(range.clone()) {
            let a = masked(floored(row, &found.inverse, centers.floor), &mask);
            add_weighted(&mut partial[j * dim..(j + 1) * dim], &a, g, at);
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
    let hard = centers.attention == Attention::Hard;
    let twice = R::from_f64(2.0 / centers.temperature);
    for at in (0..vectors.len()).step_by(TILE) {
        let (range, found) = meet::<R, D>(centers, x, &vectors, at, rows);
        let mask = mask(vectors.len(), at);
        let mut registers = [[R::ZERO; TILE]; 4];
        let rest = back.sums.outside(centers, &range);
        let dx = begun::<R, D>(&mut registers, coordinates, rest);
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
