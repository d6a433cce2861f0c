//! The attention of sixteen vectors to some clusters.

use std::ops::Range;

use super::centers::Centers;
use super::chunk::{Columns, TILE};
use super::noise::gumbel;
use super::options::Attention;
use super::real::Real;

/// One number for each vector of a tile.
pub(super) type Tile<R> = [R; TILE];

/// What a tile's attention comes to beside its rows.
pub(super) struct Attended<R> {
    /// What each row is to be multiplied by.
    pub(super) inverse: Tile<R>,
    /// The least distance of each vector.
    pub(super) least: Tile<R>,
}

/// Fills `rows`, one for each cluster of `range`, with attentions that are not divided by their sums yet.
///
/// `D` is the length of the vectors where it is known at compile time, else 0. `vector` is the number of the first of them.
#[inline(always)]
pub(super) fn attend<R: Real, const D: usize>(
    centers: &Centers<R>,
    range: Range<usize>,
    x: &Columns<R>,
    at: usize,
    vector: usize,
    rows: &mut [Tile<R>],
) -> Attended<R> {
    let dim = if D == 0 { centers.dim } else { D };
    let mut least = [R::INFINITY; TILE];
    for (row, j) in rows.iter_mut().zip(range.clone()) {
        let lowered = if j == centers.first {
            -centers.lowered
        } else {
            R::ZERO
        };
        let mut d = [lowered; TILE];
        let c = &centers.values[j * dim..(j + 1) * dim];
        for (e, &c) in c.iter().enumerate() {
            let x = x.tile(e, at);
            for l in 0..TILE {
                let t = x[l] - c;
                d[l] += t * t;
            }
        }
        if let (Some(barred), true) = (centers.barred, j == centers.first) {
            for e in 0..dim {
                let x = x.tile(e, at);
                for l in 0..TILE {
                    d[l] = if x[l] == R::ZERO { d[l] } else { barred };
                }
            }
        }
        for l in 0..TILE {
            least[l] = if d[l] < least[l] { d[l] } else { least[l] };
        }
        *row = d;
    }
    let mut top = least;
    match centers.attention {
        Attention::Softmax => {}
        Attention::Hard => {
            one_hot(rows, range.len(), &least);
            return Attended {
                inverse: [R::ONE; TILE],
                least,
            };
        }
        Attention::Gumbel(seed) => {
            top = [R::INFINITY; TILE];
            for (row, j) in rows.iter_mut().zip(range.clone()) {
                for (l, d) in row.iter_mut().enumerate() {
                    let noise = gumbel(seed, centers.step, vector + l, centers.order[j]);
                    *d = *d - R::from_f64(noise * centers.temperature);
                    top[l] = if *d < top[l] { *d } else { top[l] };
                }
            }
        }
    }
    let sharpness = centers.sharpness;
    let mut sum = [R::ZERO; TILE];
    for row in &mut rows[..range.len()] {
        let mut a = *row;
        for l in 0..TILE {
            a[l] = ((top[l] - a[l]) * sharpness).exp2();
        }
        for l in 0..TILE {
            sum[l] += a[l];
        }
        *row = a;
    }
    let mut inverse = [R::ONE; TILE];
    for l in 0..TILE {
        inverse[l] = R::ONE / sum[l];
    }
    Attended { inverse, least }
}

/// Distances to ones and zeros: one for the first that is least.
#[inline(always)]
fn one_hot<R: Real>(rows: &mut [Tile<R>], count: usize, least: &Tile<R>) {
    let mut free = [R::ONE; TILE];
    for row in &mut rows[..count] {
        for l in 0..TILE {
            let hit = if row[l] <= least[l] { free[l] } else { R::ZERO };
            free[l] = free[l] - hit;
            row[l] = hit;
        }
    }
}

/// Lanes that a sum over vectors is kept in.
pub(super) type Partial<R> = [R; TILE / 2];

/// Adds all lanes of a tile.
#[inline(always)]
pub(super) fn fold<R: Real>(sum: &mut Partial<R>, lanes: &Tile<R>) {
    for l in 0..TILE / 2 {
        sum[l] += lanes[l] + lanes[l + TILE / 2];
    }
}

/// Moves sums over to 64 bits.
#[inline(always)]
pub(super) fn flush<R: Real>(partial: &mut [Partial<R>], sums: &mut [f64]) {
    for (partial, sum) in partial.iter_mut().zip(sums) {
        for lane in partial.iter_mut() {
            *sum += lane.to_f64();
            *lane = R::ZERO;
        }
    }
}
