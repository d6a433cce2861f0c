//! Convolutions as products of matrices, in tiles whose columns stay in a processor's cache.
//!
//! Work is cut by sizes alone. Where that gives enough pieces they are done side by side, each alone; else one after the other,
//! and each product works on all threads: the results are the same.

use super::columns::Columns;
use super::geometry::{Geometry, Tile, evenly, tiles};
use palettizer_kernels::{Matrix, product, product_alone};
use rayon::prelude::*;
use std::ops::Range;

/// Elements of a matrix of columns that are worked on at a time.
const CACHED: usize = 1 << 17;
/// Positions of a tile, where the matrix has many rows.
const POSITIONS: usize = 512;
/// Rows of a matrix of columns that are worth a piece of work.
const ROWS: usize = 64;
/// Pieces of work that are enough for many threads.
const PIECES: usize = 16;

/// What each piece of work gives: side by side if there are enough, else each on all threads; it is told which.
fn all<T: Send, R: Send>(work: Vec<T>, run: impl Fn(T, bool) -> R + Sync) -> Vec<R> {
    if work.len() >= 2 * rayon::current_num_threads() {
        work.into_par_iter().map(|piece| run(piece, true)).collect()
    } else {
        work.into_iter().map(|piece| run(piece, false)).collect()
    }
}

/// A product of matrices on this thread alone, or on all.
fn multiply(
    alone: bool,
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    row_stride: usize,
    add: bool,
) {
    match alone {
        true => product_alone(a, b, out, row_stride, add),
        false => product(a, b, out, row_stride, add),
    }
}

/// Tiles of the narrow side whose columns are as many as fit, for matrices of this many rows.
fn tiles_for(geometry: &Geometry, slabs: Range<usize>, rows: usize) -> Vec<Tile> {
    tiles(geometry, slabs, POSITIONS.max(CACHED / rows))
}

/// Rows of the matrix of columns that are worked on at a time.
fn rows_for(geometry: &Geometry, positions: usize) -> usize {
    let (taps, most) = (geometry.taps(), (CACHED / positions).max(1));
    // whole channels, if possible
    if most >= taps {
        most / taps * taps
    } else {
        most
    }
}

/// Adds the convolution of the wide side to `narrow`, which holds the bias, or zeros if `biased` is not set.
pub(super) fn gather(
    geometry: &Geometry,
    wide: &[f32],
    weight: &[f32],
    biased: bool,
    narrow: &mut [f32],
) {
    let (depth, plane) = (geometry.depth(), geometry.narrow_plane());
    let matrix = |group| Matrix::new(geometry.weights_of(weight, group), geometry.narrow, depth);
    if geometry.is_whole() {
        let (all, row) = (geometry.groups * depth, geometry.groups * geometry.narrow);
        for group in 0..geometry.groups {
            let x = Matrix::strided(&wide[group * depth..], geometry.batch, depth, all, 1);
            let out = &mut narrow[group * geometry.narrow..];
            product(x, matrix(group).transposed(), out, row, biased);
        }
        return;
    }
    if geometry.is_identity() {
        let work: Vec<_> = narrow
            .chunks_mut(geometry.narrow * plane)
            .enumerate()
            .collect();
        all(work, |(at, narrow), alone| {
            let (image, group) = (at / geometry.groups, at % geometry.groups);
            let x = Matrix::new(geometry.wide_of(wide, image, group), geometry.wide, plane);
            multiply(alone, matrix(group), x, narrow, plane, biased);
        });
        return;
    }
    let slabs = geometry.batch * geometry.slabs();
    let tiles = tiles_for(geometry, 0..slabs, depth);
    let work: Vec<_> = parts(geometry, &tiles, narrow)
        .into_iter()
        .enumerate()
        .map(|(at, part)| (at / tiles.len(), &tiles[at % tiles.len()], part))
        .collect();
    all(work, |(group, tile, part), alone| {
        let positions = tile.positions();
        let mut sums = vec![0.0; geometry.narrow * positions];
        let rows = rows_for(geometry, positions);
        let mut columns = Columns::new(geometry, tile);
        let mut matrix = vec![0.0; rows.min(depth) * positions];
        for rows in evenly(depth, rows) {
            let matrix = &mut matrix[..rows.len() * positions];
            columns.fill(wide, group, rows.clone(), matrix);
            let weights = &geometry.weights_of(weight, group)[rows.start..];
            let a = Matrix::strided(weights, geometry.narrow, rows.len(), depth, 1);
            let b = Matrix::new(matrix, rows.len(), positions);
            multiply(alone, a, b, &mut sums, positions, rows.start > 0);
        }
        for (at, out) in part {
            let sums = &sums[at..][..out.len()];
            match biased {
                true => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
                false => out.copy_from_slice(sums),
            }
        }
    });
}

/// For each group and tile: the parts of the narrow side, and where each begins in a matrix of channels by positions.
fn parts<'a>(
    geometry: &Geometry,
    tiles: &[Tile],
    narrow: &'a mut [f32],
) -> Vec<Vec<(usize, &'a mut [f32])>> {
    let mut of_slab: Vec<Vec<usize>> = vec![Vec::new(); geometry.batch * geometry.slabs()];
    for (at, tile) in tiles.iter().enumerate() {
        tile.slabs.clone().for_each(|slab| of_slab[slab].push(at));
    }
    let mut found = Vec::new();
    found.resize_with(geometry.groups * tiles.len(), Vec::new);
    for (at, mut rest) in narrow.chunks_mut(geometry.slab()).enumerate() {
        let (row, depth) = (at / geometry.slabs(), at % geometry.slabs());
        let channels = geometry.groups * geometry.narrow;
        let (image, channel) = (row / channels, row % channels);
        let slab = image * geometry.slabs() + depth;
        for &tile in &of_slab[slab] {
            let of = &tiles[tile];
            let (part, behind) = rest.split_at_mut(of.part());
            let (group, row) = (channel / geometry.narrow, channel % geometry.narrow);
            let start = row * of.positions() + (slab - of.slabs.start) * of.part();
            found[group * tiles.len() + tile].push((start, part));
            rest = behind;
        }
    }
    found
}

/// Adds the transposed convolution of the narrow side to `wide`.
pub(super) fn scatter(geometry: &Geometry, narrow: &[f32], weight: &[f32], wide: &mut [f32]) {
    let (depth, taps) = (geometry.depth(), geometry.taps());
    let (plane, wide_plane) = (geometry.narrow_plane(), geometry.wide_plane());
    if geometry.is_whole() {
        let (all, row) = (geometry.groups * geometry.narrow, geometry.groups * depth);
        for group in 0..geometry.groups {
            let weights = Matrix::new(geometry.weights_of(weight, group), geometry.narrow, depth);
            let from = &narrow[group * geometry.narrow..];
            let y = Matrix::strided(from, geometry.batch, geometry.narrow, all, 1);
            product(y, weights, &mut wide[group * depth..], row, true);
        }
        return;
    }
    if geometry.is_identity() {
        let work: Vec<_> = wide.chunks_mut(geometry.wide * plane).enumerate().collect();
        all(work, |(at, wide), alone| {
            let (image, group) = (at / geometry.groups, at % geometry.groups);
            let weights = Matrix::new(geometry.weights_of(weight, group), geometry.narrow, depth);
            let from = geometry.narrow_of(narrow, image, group);
            let y = Matrix::new(from, geometry.narrow, plane);
            multiply(alone, weights.transposed(), y, wide, plane, true);
        });
        return;
    }
    let slabs = geometry.slabs();
    let most = POSITIONS.max(CACHED / depth.min(8 * ROWS));
    let sizes = tiles(geometry, 0..slabs, most);
    let positions = sizes.iter().map(Tile::positions).max().unwrap_or(1);
    let channels = (CACHED / positions / taps).min(geometry.wide.div_ceil(PIECES / 2));
    let channels = channels.max(ROWS.div_ceil(taps)).min(geometry.wide);
    let mut work = Vec::new();
    for (at, mut rest) in wide.chunks_mut(geometry.wide * wide_plane).enumerate() {
        for channels in evenly(geometry.wide, channels) {
            let (planes, behind) = rest.split_at_mut(channels.len() * wide_plane);
            work.push((at / geometry.groups, at % geometry.groups, channels, planes));
            rest = behind;
        }
    }
    all(work, |(image, group, channels, planes), alone| {
        let rows = rows_for(geometry, positions);
        let mut matrix = vec![0.0; rows.min(channels.len() * taps) * positions];
        let mut gathered = Vec::new();
        for tile in tiles(geometry, image * slabs..(image + 1) * slabs, most) {
            let positions = tile.positions();
            let mut columns = Columns::new(geometry, &tile);
            for part in evenly(channels.len() * taps, rows) {
                let matrix = &mut matrix[..part.len() * positions];
                let rows = channels.start * taps + part.start..channels.start * taps + part.end;
                let weights = &geometry.weights_of(weight, group)[rows.start..];
                let a = Matrix::strided(weights, geometry.narrow, rows.len(), depth, 1);
                let b = narrow_matrix(geometry, &tile, group, narrow, &mut gathered);
                multiply(alone, a.transposed(), b, matrix, positions, false);
                let lowest = rows.start / taps - channels.start;
                columns.fold(rows, matrix, &mut planes[lowest * wide_plane..]);
            }
        }
    });
}

/// The gradient of the weights.
pub(super) fn correlate(geometry: &Geometry, wide: &[f32], narrow: &[f32], weight: &mut [f32]) {
    let (depth, plane) = (geometry.depth(), geometry.narrow_plane());
    if geometry.is_whole() {
        let (row, all) = (geometry.groups * geometry.narrow, geometry.groups * depth);
        for (group, weight) in weight.chunks_mut(geometry.narrow * depth).enumerate() {
            let from = &narrow[group * geometry.narrow..];
            let y = Matrix::strided(from, geometry.batch, geometry.narrow, row, 1);
            let x = Matrix::strided(&wide[group * depth..], geometry.batch, depth, all, 1);
            product(y.transposed(), x, weight, depth, false);
        }
        return;
    }
    let slabs = geometry.batch * geometry.slabs();
    let identity = geometry.is_identity();
    let tiles = match identity {
        true => tiles(geometry, 0..slabs, plane),
        false => tiles(geometry, 0..slabs, POSITIONS),
    };
    let most = depth.div_ceil(PIECES / 2).min(CACHED / POSITIONS);
    let blocks: Vec<Range<usize>> = evenly(depth, most.max(ROWS)).collect();
    // few rows, many positions: partial sums, put together in order
    let shares = (PIECES / 2 / blocks.len() / geometry.groups).clamp(1, tiles.len());
    let mut work = Vec::new();
    for group in 0..geometry.groups {
        for rows in &blocks {
            let shares = evenly(tiles.len(), tiles.len().div_ceil(shares));
            work.extend(shares.map(|share| (group, rows.clone(), share)));
        }
    }
    let sums = all(work.clone(), |(group, rows, share), alone| {
        let mut sums = vec![0.0; geometry.narrow * rows.len()];
        let (mut matrix, mut gathered) = (Vec::new(), Vec::new());
        for tile in &tiles[share] {
            let positions = tile.positions();
            let y = narrow_matrix(geometry, tile, group, narrow, &mut gathered);
            let x = if identity {
                let from = geometry.wide_of(wide, tile.slabs.start, group);
                Matrix::new(&from[rows.start * plane..], rows.len(), plane)
            } else {
                matrix.resize(rows.len() * positions, 0.0);
                Columns::new(geometry, tile).fill(wide, group, rows.clone(), &mut matrix);
                Matrix::new(&matrix, rows.len(), positions)
            };
            multiply(alone, y, x.transposed(), &mut sums, rows.len(), true);
        }
        sums
    });
    for ((group, rows, _), sums) in work.into_iter().zip(sums) {
        let weight = &mut weight[group * geometry.narrow * depth..];
        let into = weight.chunks_mut(depth).zip(sums.chunks(rows.len()));
        for (into, sums) in into {
            let into = into[rows.clone()].iter_mut();
            into.zip(sums).for_each(|(into, sum)| *into += sum);
        }
    }
}

/// The narrow side's channels of a group at the positions of a tile: where they lie, or gathered from several slabs.
fn narrow_matrix<'a>(
    geometry: &Geometry,
    tile: &Tile,
    group: usize,
    narrow: &'a [f32],
    gathered: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let (plane, slab, slabs) = (geometry.narrow_plane(), geometry.slab(), geometry.slabs());
    let positions = tile.positions();
    let of = |at: usize| {
        let values = geometry.narrow_of(narrow, at / slabs, group);
        &values[at % slabs * slab + tile.first(geometry)..]
    };
    if tile.slabs.len() == 1 {
        return Matrix::strided(of(tile.slabs.start), geometry.narrow, positions, plane, 1);
    }
    gathered.resize(geometry.narrow * positions, 0.0);
    for (channel, row) in gathered.chunks_mut(positions).enumerate() {
        for (at, part) in tile.slabs.clone().zip(row.chunks_mut(tile.part())) {
            part.copy_from_slice(&of(at)[channel * plane..][..tile.part()]);
        }
    }
    Matrix::new(gathered, geometry.narrow, positions)
}
