//! Convolutions of few channels, as depthwise ones are: sums of shifted copies of a padded plane.
//!
//! The rows of a piece keep the distance that they have in the strip, so a tap is one long run, with gaps that nobody reads.

use super::geometry::{Geometry, Tile, tiles};
use super::strip::Strip;
use palettizer_kernels::{add_from_shifted, add_to_shifted, shifted_products};
use rayon::prelude::*;

/// Positions worked on at a time, so that all that is read stays in a processor's cache.
const POSITIONS: usize = 1 << 12;
/// Multiplications that are worth a piece of work.
const WORTH: usize = 1 << 16;

/// Whether this is faster than products of matrices.
pub(super) fn is_direct(geometry: &Geometry) -> bool {
    geometry.wide == 1 && geometry.narrow < 8 && !geometry.is_identity() && !geometry.is_whole()
}

/// Strips are made for a piece of a slab, and used for all slabs.
struct Piece<'a> {
    geometry: &'a Geometry,
    tile: &'a Tile,
    strip: Strip,
    /// Where each tap of a plane of the kernel begins.
    starts: Vec<usize>,
    /// The piece on the narrow side, with the strip's pitch; zero in the gaps.
    spaced: Vec<f32>,
}

impl<'a> Piece<'a> {
    fn new(geometry: &'a Geometry, tile: &'a Tile) -> Self {
        let [_, rows, columns] = geometry.axes;
        let strip = Strip::new(&[rows, columns], tile.rows.clone(), tile.columns.clone());
        let taps = 0..rows.kernel * columns.kernel;
        Piece {
            geometry,
            tile,
            starts: taps.map(|tap| strip.start(tap)).collect(),
            spaced: vec![0.0; strip.span()],
            strip,
        }
    }

    /// Each row of a part of a slab, and of the same part with the strip's pitch.
    fn rows<'b>(
        part: &'b [f32],
        spaced: &'b mut [f32],
        columns: usize,
        pitch: usize,
    ) -> impl Iterator<Item = (&'b [f32], &'b mut [f32])> {
        part.chunks(columns).zip(spaced.chunks_mut(pitch))
    }

    /// Takes a part of a slab of the narrow side.
    fn space(&mut self, part: &[f32]) {
        let (columns, pitch) = (self.tile.columns.len(), self.strip.pitch());
        for (row, spaced) in Self::rows(part, &mut self.spaced, columns, pitch) {
            spaced[..columns].copy_from_slice(row);
        }
    }

    /// The plane of a channel of the wide side that a slab reads with the taps of a plane of the kernel.
    fn area(&self, slab: usize, depth: usize) -> Option<std::ops::Range<usize>> {
        let [axis, rows, columns] = self.geometry.axes;
        let (hit, plane) = axis.within(depth * axis.dilation, slab..slab + 1);
        let area = rows.input * columns.input;
        (!hit.is_empty()).then_some(plane * area..(plane + 1) * area)
    }
}

/// Pieces of a slab.
fn pieces(geometry: &Geometry) -> Vec<Tile> {
    tiles(geometry, 0..1, POSITIONS)
}

/// Keeps a piece as long as it is the one that is asked for.
fn kept<'a, 'b>(
    kept: &'b mut Option<(usize, Piece<'a>)>,
    geometry: &'a Geometry,
    pieces: &'a [Tile],
    at: usize,
) -> &'b mut Piece<'a> {
    if kept.as_ref().is_none_or(|(known, _)| *known != at) {
        *kept = None;
    }
    let (_, piece) = kept.get_or_insert_with(|| (at, Piece::new(geometry, &pieces[at])));
    piece
}

/// Adds the convolution of the wide side to `narrow`.
pub(super) fn gather(geometry: &Geometry, wide: &[f32], weight: &[f32], narrow: &mut [f32]) {
    let pieces = pieces(geometry);
    let mut work: Vec<Vec<(usize, usize, &mut [f32])>> = Vec::new();
    work.resize_with(pieces.len(), Vec::new);
    for (at, mut rest) in narrow.chunks_mut(geometry.slab()).enumerate() {
        for (number, (piece, work)) in pieces.iter().zip(&mut work).enumerate() {
            let (part, behind) = rest.split_at_mut(piece.part());
            work.push((number, at, part));
            rest = behind;
        }
    }
    let work: Vec<_> = work.into_iter().flatten().collect();
    let each = geometry.depth() * pieces[0].part();
    let work = work.into_par_iter().with_min_len(WORTH.div_ceil(each));
    let (taps, slabs) = (geometry.taps(), geometry.slabs());
    work.for_each_init(
        || None,
        |state, (number, at, part)| {
            let piece = kept(state, geometry, &pieces, number);
            let (row, slab) = (at / slabs, at % slabs);
            let channels = geometry.groups * geometry.narrow;
            let (image, channel) = (row / channels, row % channels);
            let from = geometry.wide_of(wide, image, channel / geometry.narrow);
            let weights = &weight[channel * geometry.depth()..][..geometry.depth()];
            let planes = from.chunks(geometry.wide_plane());
            piece.spaced.fill(0.0);
            for (from, weights) in planes.zip(weights.chunks(taps)) {
                for (depth, weights) in weights.chunks(piece.starts.len()).enumerate() {
                    let Some(area) = piece.area(slab, depth) else {
                        continue;
                    };
                    piece.strip.load(&from[area]);
                    let starts = piece.starts.iter().copied();
                    let shifts: Vec<_> = starts.zip(weights.iter().copied()).collect();
                    add_from_shifted(&mut piece.spaced, piece.strip.values(), &shifts);
                }
            }
            let (columns, pitch) = (piece.tile.columns.len(), piece.strip.pitch());
            for (out, sums) in part.chunks_mut(columns).zip(piece.spaced.chunks(pitch)) {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        },
    );
}

/// Adds the transposed convolution of the narrow side to `wide`.
pub(super) fn scatter(geometry: &Geometry, narrow: &[f32], weight: &[f32], wide: &mut [f32]) {
    let pieces = pieces(geometry);
    let (taps, slab_size) = (geometry.taps(), geometry.slab());
    let each = geometry.narrow * taps * geometry.narrow_plane();
    let work = wide.par_chunks_mut(geometry.wide_plane()).enumerate();
    let work = work.with_min_len(WORTH.div_ceil(each));
    work.for_each_init(
        || None,
        |state, (at, plane)| {
            let channels = geometry.groups * geometry.wide;
            let (image, channel) = (at / channels, at % channels);
            let (group, channel) = (channel / geometry.wide, channel % geometry.wide);
            let from = geometry.narrow_of(narrow, image, group);
            let weights = geometry.weights_of(weight, group);
            for number in 0..pieces.len() {
                let piece = kept(state, geometry, &pieces, number);
                let (flat, first) = (piece.starts.len(), piece.tile.first(geometry));
                for slab in 0..geometry.slabs() {
                    for depth in 0..taps / flat {
                        let Some(area) = piece.area(slab, depth) else {
                            continue;
                        };
                        piece.strip.values_mut().fill(0.0);
                        for (row, weights) in weights.chunks(geometry.depth()).enumerate() {
                            let start = (row * geometry.slabs() + slab) * slab_size + first;
                            piece.space(&from[start..][..piece.tile.part()]);
                            let weights = &weights[channel * taps + depth * flat..][..flat];
                            let starts = piece.starts.iter().copied();
                            let shifts: Vec<_> = starts.zip(weights.iter().copied()).collect();
                            add_to_shifted(piece.strip.values_mut(), &piece.spaced, &shifts);
                        }
                        piece.strip.fold(&mut plane[area]);
                    }
                }
            }
        },
    );
}

/// Adds the gradient of the weights to `weight`.
pub(super) fn correlate(geometry: &Geometry, wide: &[f32], narrow: &[f32], weight: &mut [f32]) {
    let pieces = pieces(geometry);
    let (taps, slab_size) = (geometry.taps(), geometry.slab());
    let each = geometry.batch * geometry.narrow * taps * geometry.narrow_plane();
    // a channel of the wide side at a time, with all of the narrow side that it goes into
    let work = (0..geometry.groups * geometry.wide).into_par_iter();
    let work = work.with_min_len(WORTH.div_ceil(each));
    let sums = work.map_init(
        || None,
        |state, at| {
            let (group, channel) = (at / geometry.wide, at % geometry.wide);
            let mut sums = vec![0.0; geometry.narrow * taps];
            for number in 0..pieces.len() {
                let piece = kept(state, geometry, &pieces, number);
                let (flat, first) = (piece.starts.len(), piece.tile.first(geometry));
                for at in 0..geometry.batch * geometry.slabs() {
                    let (image, slab) = (at / geometry.slabs(), at % geometry.slabs());
                    let from = geometry.wide_of(wide, image, group);
                    let from = &from[channel * geometry.wide_plane()..];
                    let with = geometry.narrow_of(narrow, image, group);
                    for depth in 0..taps / flat {
                        let Some(area) = piece.area(slab, depth) else {
                            continue;
                        };
                        piece.strip.load(&from[area]);
                        for (row, sums) in sums.chunks_mut(taps).enumerate() {
                            let start = (row * geometry.slabs() + slab) * slab_size + first;
                            piece.space(&with[start..][..piece.tile.part()]);
                            let sums = &mut sums[depth * flat..][..flat];
                            shifted_products(
                                &piece.spaced,
                                piece.strip.values(),
                                &piece.starts,
                                sums,
                            );
                        }
                    }
                }
            }
            sums
        },
    );
    let sums: Vec<Vec<f64>> = sums.collect();
    for (at, sums) in sums.into_iter().enumerate() {
        let (group, channel) = (at / geometry.wide, at % geometry.wide);
        for (row, sums) in sums.chunks(taps).enumerate() {
            let row = group * geometry.narrow + row;
            let into = &mut weight[row * geometry.depth() + channel * taps..][..taps];
            into.iter_mut()
                .zip(sums)
                .for_each(|(into, &sum)| *into += sum as f32);
        }
    }
}
