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
    let rows = &mut rows[..range.len()];
    let least = distances::<R, D>(centers, range.clone(), x, at, rows);
    let inverse = match centers.attention {
        Attention::Softmax => powers(rows, &least, centers.sharpness),
        Attention::Hard => one_hot(rows, &least),
        Attention::Gumbel(seed) => {
            let least = perturbed(centers, range, seed, vector, rows);
            powers(rows, &least, centers.sharpness)
        }
    };
    Attended { inverse, least }
}

/// Fills `rows` with the squared distances to the clusters of `range`, and gives the least of each vector.
#[inline(always)]
fn distances<R: Real, const D: usize>(
    centers: &Centers<R>,
    range: Range<usize>,
    x: &Columns<R>,
    at: usize,
    rows: &mut [Tile<R>],
) -> Tile<R> {
    let dim = if D == 0 { centers.dim } else { D };
    let mut least = [R::INFINITY; TILE];
    for (row, j) in rows.iter_mut().zip(range) {
        let lowered = match j == centers.first {
            true => -centers.lowered,
            false => R::ZERO,
        };
        let mut d = distance(lowered, &centers.values[j * dim..(j + 1) * dim], x, at);
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
    least
}

/// Squared distances from a centroid, which `from` is added to.
#[inline(always)]
pub(super) fn distance<R: Real>(from: R, centroid: &[R], x: &Columns<R>, at: usize) -> Tile<R> {
    let mut d = [from; TILE];
    for (e, &c) in centroid.iter().enumerate() {
        let x = x.tile(e, at);
        for l in 0..TILE {
            let t = x[l] - c;
            d[l] += t * t;
        }
    }
    d
}

/// Takes Gumbel noise off the distances, and gives the least of each vector.
#[inline(always)]
fn perturbed<R: Real>(
    centers: &Centers<R>,
    range: Range<usize>,
    seed: u64,
    vector: usize,
    rows: &mut [Tile<R>],
) -> Tile<R> {
    let mut least = [R::INFINITY; TILE];
    for (row, j) in rows.iter_mut().zip(range) {
        for (l, d) in row.iter_mut().enumerate() {
            let noise = gumbel(seed, centers.step, vector + l, centers.order[j]);
            *d = *d - R::from_f64(noise * centers.temperature);
            least[l] = if *d < least[l] { *d } else { least[l] };
        }
    }
    least
}

/// Distances to powers of how much they exceed the least; gives one over the sum of each vector's.
#[inline(always)]
fn powers<R: Real>(rows: &mut [Tile<R>], least: &Tile<R>, sharpness: R) -> Tile<R> {
    let mut sum = [R::ZERO; TILE];
    for row in rows {
        let mut a = *row;
        for l in 0..TILE {
            a[l] = ((least[l] - a[l]) * sharpness).exp2();
        }
        for l in 0..TILE {
            sum[l] += a[l];
        }
        *row = a;
    }
    sum.map(|sum| R::ONE / sum)
}

/// Distances to ones and zeros: one for the first that is least. Their sum is one.
#[inline(always)]
fn one_hot<R: Real>(rows: &mut [Tile<R>], least: &Tile<R>) -> Tile<R> {
    let mut free = [R::ONE; TILE];
    for row in rows {
        for l in 0..TILE {
            let hit = if row[l] <= least[l] { free[l] } else { R::ZERO };
            free[l] = free[l] - hit;
            row[l] = hit;
        }
    }
    [R::ONE; TILE]
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
