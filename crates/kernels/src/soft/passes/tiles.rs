//! The loop that all passes share: each tile's attention is made, used at once, and dropped.
//!
//! Sums over vectors are kept in lanes, of which [`Scratch`] has as many as a pass needs.

use std::ops::Range;

use crate::simd::dispatch;
use crate::soft::centers::Centers;
use crate::soft::chunk::{Columns, TILE};
use crate::soft::real::Real;
use crate::soft::scratch::{Needs, Scratch};
use crate::soft::tile::{Attended, Partial, Tile, attend, fold};
use crate::soft::window::{outside, prefixes};

/// What is done with attentions.
pub(super) trait Pass<R: Real>: Sync {
    /// What of the scratch it needs.
    fn needs(&self, centers: &Centers<R>) -> Needs;

    /// Makes use of a tile's attention, whose rows are in the scratch. `D` is the length of the vectors where it is known at
    /// compile time, else 0.
    fn tile<const D: usize>(&self, centers: &Centers<R>, scratch: &mut Scratch<R>, tile: Met<R>);
}

/// A tile that has met the clusters near it.
pub(super) struct Met<R> {
    /// Where it starts in the chunk.
    pub(super) at: usize,
    /// Lanes that are vectors; the others are padding.
    pub(super) valid: usize,
    /// The clusters that it was compared with.
    pub(super) range: Range<usize>,
    pub(super) attended: Attended<R>,
}

dispatch! {
    /// Attends to every tile of a chunk, and hands each to the pass.
    pub(super) fn for_tiles<R: Real, P: Pass<R>>(pass: &P, centers: &Centers<R>, scratch: &mut Scratch<R>, vectors: Range<usize>) = by_dim
}

/// With the length of the vectors as a constant where it is a usual one.
#[inline(always)]
fn by_dim<R: Real, P: Pass<R>>(
    pass: &P,
    centers: &Centers<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    match centers.dim {
        1 => of_dim::<R, P, 1>(pass, centers, scratch, vectors),
        2 => of_dim::<R, P, 2>(pass, centers, scratch, vectors),
        4 => of_dim::<R, P, 4>(pass, centers, scratch, vectors),
        _ => of_dim::<R, P, 0>(pass, centers, scratch, vectors),
    }
}

#[inline(always)]
fn of_dim<R: Real, P: Pass<R>, const D: usize>(
    pass: &P,
    centers: &Centers<R>,
    scratch: &mut Scratch<R>,
    vectors: Range<usize>,
) {
    for at in (0..vectors.len()).step_by(TILE) {
        let Scratch { x, rows, .. } = &mut *scratch;
        let range = near(centers, x, at);
        let attended = attend::<R, D>(centers, range.clone(), x, at, vectors.start + at, rows);
        let valid = TILE.min(vectors.len() - at);
        let met = Met {
            at,
            valid,
            range,
            attended,
        };
        pass.tile::<D>(centers, scratch, met);
    }
}

/// The clusters that a tile has to be compared with.
#[inline(always)]
fn near<R: Real>(centers: &Centers<R>, x: &Columns<R>, at: usize) -> Range<usize> {
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
pub(super) fn mask<R: Real>(valid: usize) -> Option<Tile<R>> {
    (valid < TILE).then(|| std::array::from_fn(|l| if l < valid { R::ONE } else { R::ZERO }))
}

#[inline(always)]
pub(super) fn masked<R: Real>(mut lanes: Tile<R>, mask: &Option<Tile<R>>) -> Tile<R> {
    if let Some(mask) = mask {
        for l in 0..TILE {
            lanes[l] = lanes[l] * mask[l];
        }
    }
    lanes
}

/// The attention itself: divided by its sum, and no less than the floor.
#[inline(always)]
pub(super) fn floored<R: Real>(row: &Tile<R>, inverse: &Tile<R>, floor: R) -> Tile<R> {
    let mut a = [R::ZERO; TILE];
    for l in 0..TILE {
        let raw = row[l] * inverse[l];
        a[l] = if raw < floor { floor } else { raw };
    }
    a
}

/// The sum of a tile's lanes that are vectors.
#[inline(always)]
pub(super) fn total<R: Real>(lanes: &Tile<R>, valid: usize) -> f64 {
    lanes[..valid].iter().map(|x| x.to_f64()).sum()
}

/// Adds vectors, weighted with their attention to a cluster, to the sums of its coordinates.
#[inline(always)]
pub(super) fn add_weighted<R: Real>(
    sums: &mut [Partial<R>],
    a: &Tile<R>,
    of: &Columns<R>,
    at: usize,
) {
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
pub(super) fn accumulators<'a, R: Real, const D: usize>(
    registers: &'a mut [Tile<R>; 4],
    memory: &'a mut [Tile<R>],
    from: R,
) -> &'a mut [Tile<R>] {
    let place = if D == 0 { memory } else { &mut registers[..D] };
    place.fill([from; TILE]);
    place
}

/// Numbers for each cluster in the order of the centers, and the sums of what is before each.
pub(super) struct PerCluster<R> {
    pub(super) values: Vec<R>,
    prefixes: Vec<f64>,
}

impl<R: Real> PerCluster<R> {
    pub(super) fn new(centers: &Centers<R>, values: &[R]) -> Self {
        let values = centers.sorted(values, centers.dim);
        let prefixes = match centers.windows {
            Some(_) => prefixes(&values),
            None => Vec::new(),
        };
        PerCluster { values, prefixes }
    }

    /// What clusters outside of a run come to, at the floor.
    #[inline(always)]
    pub(super) fn outside(&self, centers: &Centers<R>, range: &Range<usize>) -> R {
        match centers.windows {
            Some(_) => centers.floor * R::from_f64(outside(&self.prefixes, range)),
            None => R::ZERO,
        }
    }
}
