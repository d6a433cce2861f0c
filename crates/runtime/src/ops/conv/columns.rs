//! The matrix of columns of a convolution: for each position of a tile, what the window there holds.
//!
//! A row is a tap of a channel, a column a position: weights times it is the narrow side. It is made in parts that stay in a
//! processor's cache, and never whole: it has as many times the elements of the wide side as a kernel has taps.

use super::geometry::{Geometry, Tile};
use super::strip::Strip;
use std::ops::Range;

/// A tile's strip, and what it is cut from.
pub(super) struct Columns<'a> {
    geometry: &'a Geometry,
    tile: &'a Tile,
    strip: Strip,
}

impl<'a> Columns<'a> {
    /// For a tile.
    pub(super) fn new(geometry: &'a Geometry, tile: &'a Tile) -> Self {
        let [_, rows, columns] = geometry.axes;
        let strip = Strip::new(&[rows, columns], tile.rows.clone(), tile.columns.clone());
        Columns {
            geometry,
            tile,
            strip,
        }
    }

    /// Taps of a plane of the kernel.
    fn flat(&self) -> usize {
        self.geometry.axes[1].kernel * self.geometry.axes[2].kernel
    }

    /// The plane of a channel that a slab reads with the taps of a plane of the kernel, and the image; `None` in the padding.
    fn plane(&self, slab: usize, depth: usize) -> (usize, Option<usize>) {
        let axis = self.geometry.axes[0];
        let (image, at) = (slab / axis.output, slab % axis.output);
        let (hit, plane) = axis.within(depth * axis.dilation, at..at + 1);
        (image, (!hit.is_empty()).then_some(plane))
    }

    /// Rows whose taps lie in one plane of the kernel: the channel, the plane, and the rows.
    fn runs(&self, rows: Range<usize>) -> Vec<(usize, usize, Range<usize>)> {
        let (taps, flat) = (self.geometry.taps(), self.flat());
        let mut runs = Vec::new();
        let mut row = rows.start;
        while row < rows.end {
            let end = (row - row % flat + flat).min(rows.end);
            runs.push((row / taps, row % taps / flat, row..end));
            row = end;
        }
        runs
    }

    /// Writes some rows of the matrix.
    pub(super) fn fill(&mut self, wide: &[f32], group: usize, rows: Range<usize>, out: &mut [f32]) {
        let (geometry, tile) = (self.geometry, self.tile);
        let (positions, part) = (tile.positions(), tile.part());
        let (flat, first) = (self.flat(), rows.start);
        let [_, down, across] = geometry.axes;
        let area = down.input * across.input;
        for (channel, depth, rows) in self.runs(rows) {
            for (slab, at) in tile.slabs.clone().zip((0..).step_by(part)) {
                let (image, plane) = self.plane(slab, depth);
                if let Some(plane) = plane {
                    let channels = geometry.wide_of(wide, image, group);
                    let start = (channel * geometry.axes[0].input + plane) * area;
                    self.strip.load(&channels[start..][..area]);
                }
                for row in rows.clone() {
                    let out = &mut out[(row - first) * positions + at..][..part];
                    match plane {
                        Some(_) => self.strip.read(row % flat, out),
                        None => out.fill(0.0),
                    }
                }
            }
        }
    }

    /// Adds rows of such a matrix to where they were read from: planes of the channels from that of the first row on, of one image.
    pub(super) fn fold(&mut self, rows: Range<usize>, columns: &[f32], wide: &mut [f32]) {
        let (geometry, tile) = (self.geometry, self.tile);
        let (positions, part) = (tile.positions(), tile.part());
        let (flat, first) = (self.flat(), rows.start);
        let lowest = first / geometry.taps();
        let [_, down, across] = geometry.axes;
        let area = down.input * across.input;
        for (channel, depth, rows) in self.runs(rows) {
            for (slab, at) in tile.slabs.clone().zip((0..).step_by(part)) {
                let (_, Some(plane)) = self.plane(slab, depth) else {
                    continue;
                };
                self.strip.values_mut().fill(0.0);
                for row in rows.clone() {
                    let piece = &columns[(row - first) * positions + at..][..part];
                    self.strip.add(row % flat, piece);
                }
                let start = ((channel - lowest) * geometry.axes[0].input + plane) * area;
                self.strip.fold(&mut wide[start..][..area]);
            }
        }
    }
}
