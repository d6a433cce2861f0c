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

use crate::simd::{dispatch, nearest_whole};

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
    ids: Vec<u8>,
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
        let ids = (0..len).map(|c| c as u8).collect();
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
    pub(super) fn shorten(&self, lo: &[f32], hi: &[f32], out: &mut Shortlist) {
        let mut keep = [false; 256];
        let len = self.ids.len();
        rule_out(lo, hi, &self.columns, len, &mut keep);
        let mut places = [0; 256 + 8];
        let places = kept(&keep, len, &mut places);
        out.ids.clear();
        out.ids
            .extend(places.iter().map(|&i| self.ids[usize::from(i)]));
        out.columns.resize(lo.len() * 256, 0.0);
        let columns = self.columns.chunks_exact(256);
        for (to, from) in out.columns.chunks_exact_mut(256).zip(columns) {
            for (to, &i) in to.iter_mut().zip(places) {
                *to = from[usize::from(i)];
            }
        }
    }

    /// The nearest of the list for each vector of a tile, which lie between `lo` and `hi`; ties go to the first.
    pub(super) fn nearest(&self, tile: &[f32], lo: &[f32], hi: &[f32], out: Out<'_>) {
        nearest(tile, (lo, hi), &self.columns, &self.ids, out);
    }
}

/// For each set of bits in a byte, their places in order, a byte for each.
static PLACES: [u64; 256] = {
    let mut table = [0; 256];
    let mut set = 0;
    while set < 256 {
        let (mut bit, mut count) = (0, 0);
        while bit < 8 {
            if set >> bit & 1 == 1 {
                table[set] |= (bit as u64) << (8 * count);
                count += 1;
            }
            bit += 1;
        }
        set += 1;
    }
    table
};

/// The places of the first `len` that are kept. How many there are of eight is hard to guess for the processor: all eight are written.
#[inline(always)]
fn kept<'a>(keep: &[bool; 256], len: usize, places: &'a mut [u8; 256 + 8]) -> &'a [u8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut count = 0;
    for (eight, keep) in keep.as_chunks::<8>().0[..len.div_ceil(8)]
        .iter()
        .enumerate()
    {
        // One bit in each byte that is kept; the product has them side by side in its last byte.
        let bits = u64::from_le_bytes(keep.map(u8::from));
        let set = (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as usize;
        let eight = PLACES[set] + EACH * (8 * eight as u64);
        places[count..count + 8].copy_from_slice(&eight.to_le_bytes());
        count += set.count_ones() as usize;
    }
    &places[..count]
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
            let number = at as u32 + l as u32;
            let place = (distance[l].to_bits() & !0xff) | number;
            let place = if number < len as u32 { place } else { u32::MAX };
            least[l] = if place < least[l] { place } else { least[l] };
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
            keep[at + l] = !out & (at as u32 + (l as u32) < len as u32);
        }
    }
}

/// Distances and indices of a tile.
type Out<'a> = (&'a mut [f32; TILE], &'a mut [u8; TILE]);

dispatch! {
    fn nearest(tile: &[f32], bounds: (&[f32], &[f32]), columns: &[f32], ids: &[u8], out: Out<'_>) = by_dim
}

/// With the length of the vectors as a constant where it is a usual one.
#[inline(always)]
fn by_dim(tile: &[f32], bounds: (&[f32], &[f32]), columns: &[f32], ids: &[u8], out: Out<'_>) {
    match bounds.0.len() {
        1 => nearest_body(tile, 1, bounds, columns, ids, out),
        2 => nearest_body(tile, 2, bounds, columns, ids, out),
        3 => nearest_body(tile, 3, bounds, columns, ids, out),
        4 => nearest_body(tile, 4, bounds, columns, ids, out),
        8 => nearest_body(tile, 8, bounds, columns, ids, out),
        dim => nearest_body(tile, dim, bounds, columns, ids, out),
    }
}

#[inline(always)]
fn nearest_body(
    tile: &[f32],
    dim: usize,
    (lo, hi): (&[f32], &[f32]),
    columns: &[f32],
    ids: &[u8],
    out: Out<'_>,
) {
    let columns = &columns[..dim * 256];
    let mut keep = [false; 256];
    rule_out_body(&lo[..dim], &hi[..dim], columns, ids.len(), &mut keep);
    let mut least = [f32::INFINITY; TILE];
    let mut which = [0.0_f32; TILE];
    let mut places = [0; 256 + 8];
    for &place in kept(&keep, ids.len(), &mut places) {
        let mut sum = [0.0_f32; TILE];
        let rows = tile[..TILE * dim].as_chunks::<TILE>().0.iter();
        for (x, column) in rows.zip(columns.as_chunks::<256>().0) {
            let c = column[usize::from(place)];
            for l in 0..TILE {
                let difference = x[l] - c;
                sum[l] += difference * difference;
            }
        }
        let number = f32::from(place);
        for l in 0..TILE {
            let nearer = sum[l] < least[l];
            least[l] = if nearer { sum[l] } else { least[l] };
            which[l] = if nearer { number } else { which[l] };
        }
    }
    *out.0 = least;
    for (out, which) in out.1.iter_mut().zip(which) {
        *out = ids.get(nearest_whole(which)).copied().unwrap_or(0);
    }
}
