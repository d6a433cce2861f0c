//! Which centroids can be nearest to a box of vectors, and which is nearest to each of sixteen vectors side by side.
//!
//! A centroid is out if another, the nearest to the middle of the box, is nearer even to the corner of the box that
//! lies farthest in its own direction; it is then nearer to all of the box. What is left is compared with the vectors
//! one centroid after the other. Differences are squared and summed in order of the coordinates, in 32 bits; the
//! cheaper form with `|c|² - 2xc` would lose the small distances.
//!
//! Cost: some 3 `dim` operations for a box and eight centroids, and for eight vectors and a centroid.
//! Wrong choice: boxes much larger than the distances of the centroids; nothing is ruled out then.
//! Source: the pruning test of Kanungo et al. 2002.
//! Our deviations: (1) distances are rounded, so a centroid is out only if it is farther by more than rounding.

use crate::simd::dispatch;

/// Vectors side by side.
pub(super) const TILE: usize = 16;

/// Centroids by row.
pub(super) struct Centroids {
    dim: usize,
    rows: Vec<f32>,
    pub(super) all: Shortlist,
}

/// Some of the centroids, in order.
#[derive(Default)]
pub(super) struct Shortlist {
    ids: Vec<u32>,
    /// Their coordinates, 256 entries for each dimension.
    columns: Vec<f32>,
}

impl Centroids {
    pub(super) fn new(rows: &[f32], dim: usize) -> Self {
        let len = (rows.len() / dim).min(256);
        let mut columns = vec![0.0; dim * 256];
        for (c, row) in rows.chunks_exact(dim).take(len).enumerate() {
            for (d, x) in row.iter().enumerate() {
                columns[d * 256 + c] = *x;
            }
        }
        let ids = (0..len as u32).collect();
        Centroids {
            dim,
            rows: rows[..len * dim].to_vec(),
            all: Shortlist { ids, columns },
        }
    }

    pub(super) fn row(&self, c: usize) -> &[f32] {
        &self.rows[c * self.dim..(c + 1) * self.dim]
    }
}

impl Shortlist {
    /// Those of the list that can be nearest to a vector between `lo` and `hi`.
    pub(super) fn shorten(&self, lo: &[f32], hi: &[f32], out: &mut Shortlist, columns: bool) {
        let mut keep = [false; 256];
        let len = self.ids.len();
        rule_out(lo, hi, &self.columns, len, &mut keep);
        let mut places = [0_u8; 256];
        let mut kept = 0;
        for (eight, keep) in keep.as_chunks::<8>().0[..len.div_ceil(8)]
            .iter()
            .enumerate()
        {
            // One bit in each byte that is kept.
            let mut bits = u64::from_le_bytes(keep.map(u8::from));
            while bits != 0 {
                let i = eight * 8 + bits.trailing_zeros() as usize / 8;
                if i < len {
                    places[kept] = i as u8;
                    kept += 1;
                }
                bits &= bits - 1;
            }
        }
        let places = &places[..kept];
        out.ids.clear();
        out.ids
            .extend(places.iter().map(|&i| self.ids[usize::from(i)]));
        if columns {
            out.columns.resize(lo.len() * 256, 0.0);
            for (to, from) in out
                .columns
                .chunks_exact_mut(256)
                .zip(self.columns.chunks_exact(256))
            {
                for (to, &i) in to.iter_mut().zip(places) {
                    *to = from[usize::from(i)];
                }
            }
        }
    }
}

dispatch! {
    fn rule_out(lo: &[f32], hi: &[f32], columns: &[f32], len: usize, keep: &mut [bool; 256]) = rule_out_body
}

/// Marks the first `len` centroids that can be nearest to a vector of the box; eight are looked at side by side.
#[inline(always)]
fn rule_out_body(lo: &[f32], hi: &[f32], columns: &[f32], len: usize, keep: &mut [bool; 256]) {
    const SIDE: usize = 8;
    let eights = || (0..len.min(256)).step_by(SIDE);
    // The centroid nearest to the middle of the box, or about: its place is kept in the last bits of its distance.
    let mut least = [u32::MAX; SIDE];
    for at in eights() {
        let mut distance = [0.0_f32; SIDE];
        for ((column, &lo), &hi) in columns.chunks_exact(256).zip(lo).zip(hi) {
            let center = 0.5 * lo + 0.5 * hi;
            for l in 0..SIDE {
                distance[l] += (column[at + l] - center) * (column[at + l] - center);
            }
        }
        for l in 0..SIDE {
            let place = (distance[l].to_bits() & !0xff) | (at + l) as u32;
            let inside = at + l < len;
            least[l] = if inside && place < least[l] {
                place
            } else {
                least[l]
            };
        }
    }
    let star = least.into_iter().fold(u32::MAX, u32::min) as usize & 0xff;
    // Rounding is far below this part of the square of the greatest distance from it.
    let mut room = 0.0;
    for ((column, &lo), &hi) in columns.chunks_exact(256).zip(lo).zip(hi) {
        let across = (hi - column[star]).max(column[star] - lo);
        room += across * across;
    }
    let room = room * 1e-4 + f32::MIN_POSITIVE;
    for at in eights() {
        // How much farther the corner is from each than from the star.
        let mut farther = [0.0_f32; SIDE];
        for ((column, &lo), &hi) in columns.chunks_exact(256).zip(lo).zip(hi) {
            let best = column[star];
            let (low, high) = (lo - best, hi - best);
            for l in 0..SIDE {
                let step = column[at + l] - best;
                let corner = if step > 0.0 { high } else { low };
                farther[l] += step * (step - 2.0 * corner);
            }
        }
        for l in 0..SIDE {
            // Negated, so that what is not a number stays.
            let out = farther[l] > room;
            keep[at + l] = !out;
        }
    }
}

/// Distances and indices of a tile.
type Out<'a> = (&'a mut [f32; TILE], &'a mut [u8; TILE]);

/// Nearest of the candidates for each vector of a tile; ties go to the first.
#[inline(always)]
pub(super) fn compare(tile: &[f32], centroids: &Centroids, candidates: &Shortlist, out: Out<'_>) {
    compare_rows(tile, centroids.dim, &centroids.rows, &candidates.ids, out);
}

dispatch! {
    fn compare_rows(tile: &[f32], dim: usize, rows: &[f32], candidates: &[u32], out: Out<'_>) = by_dim
}

/// With the length of the vectors as a constant where it is a usual one.
#[inline(always)]
fn by_dim(tile: &[f32], dim: usize, rows: &[f32], candidates: &[u32], out: Out<'_>) {
    match dim {
        1 => compare_body(tile, 1, rows, candidates, out),
        2 => compare_body(tile, 2, rows, candidates, out),
        3 => compare_body(tile, 3, rows, candidates, out),
        4 => compare_body(tile, 4, rows, candidates, out),
        8 => compare_body(tile, 8, rows, candidates, out),
        _ => compare_body(tile, dim, rows, candidates, out),
    }
}

#[inline(always)]
fn compare_body(tile: &[f32], dim: usize, rows: &[f32], candidates: &[u32], out: Out<'_>) {
    let mut least = [f32::INFINITY; TILE];
    let mut which = [0_u32; TILE];
    for &c in candidates {
        let row = &rows[c as usize * dim..][..dim];
        let mut sum = [0.0_f32; TILE];
        for (x, &c) in tile[..TILE * dim].as_chunks::<TILE>().0.iter().zip(row) {
            for l in 0..TILE {
                let difference = x[l] - c;
                sum[l] += difference * difference;
            }
        }
        for l in 0..TILE {
            let nearer = sum[l] < least[l];
            least[l] = if nearer { sum[l] } else { least[l] };
            which[l] = if nearer { c } else { which[l] };
        }
    }
    *out.0 = least;
    *out.1 = which.map(|c| c as u8);
}
