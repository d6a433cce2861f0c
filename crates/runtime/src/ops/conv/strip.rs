//! The part of a plane that a piece of the other side needs, padded, and laid out so that each tap of a kernel reads a run of it.
//!
//! With a stride of s, taps read every s-th element; those of taps whose distance is a multiple of s are the same elements, moved.
//! So a strip holds a run for each remainder; or one for each tap where that is shorter, as with large dilations. Whatever the
//! stride, dilation and padding, tap (i, j) at row r and column c of the piece is then at `start(i, j) + r * pitch + c`.

use crate::ops::window::Axis;
use std::collections::HashMap;
use std::ops::Range;

/// The runs along one axis.
struct Runs {
    /// Where each run begins, before the stride is counted.
    bases: Vec<usize>,
    /// The run of each tap, and where in it the tap begins.
    taps: Vec<(usize, usize)>,
    /// Elements of a run.
    length: usize,
}

impl Runs {
    fn of(axis: &Axis, count: usize) -> Self {
        let mut bases: Vec<usize> = Vec::new();
        let mut known = HashMap::new();
        let mut taps = Vec::with_capacity(axis.kernel);
        let mut furthest = 0;
        for tap in 0..axis.kernel {
            let base = tap * axis.dilation;
            let (phase, offset) = (base % axis.stride, base / axis.stride);
            let run = *known.entry(phase).or_insert_with(|| {
                bases.push(phase);
                bases.len() - 1
            });
            taps.push((run, offset));
            furthest = furthest.max(offset);
        }
        let shared = (count + furthest).saturating_mul(bases.len());
        if shared <= count * axis.kernel || axis.kernel == 1 {
            return Runs {
                bases,
                taps,
                length: count + furthest,
            };
        }
        Runs {
            bases: (0..axis.kernel).map(|tap| tap * axis.dilation).collect(),
            taps: (0..axis.kernel).map(|tap| (tap, 0)).collect(),
            length: count,
        }
    }
}

/// Elements that a strip and a plane have in common.
struct Segment {
    own: usize,
    plane: usize,
    length: usize,
}

/// A strip: see the [module](self).
pub(super) struct Strip {
    /// Rows and columns of the piece.
    piece: [usize; 2],
    along: [Runs; 2],
    /// The part of each row that is no padding.
    segments: Vec<Segment>,
    /// From one element of a segment to the next, in the plane.
    stride: usize,
    /// Runs of rows, in them runs of columns, in them rows and columns.
    values: Vec<f32>,
}

impl Strip {
    /// A strip of zeros for a piece of a slab.
    pub(super) fn new(axes: &[Axis; 2], rows: Range<usize>, columns: Range<usize>) -> Self {
        let along = [
            Runs::of(&axes[0], rows.len()),
            Runs::of(&axes[1], columns.len()),
        ];
        let [down, across] = &along;
        let mut segments = Vec::new();
        let mut own = 0;
        for &base in &down.bases {
            let (valid, row) = axes[0].within(base, rows.start..rows.start + down.length);
            for &side in &across.bases {
                let every = columns.start..columns.start + across.length;
                let (part, column) = axes[1].within(side, every);
                let mut row = row;
                for at in valid.clone() {
                    let line = own + (at - rows.start) * across.length;
                    segments.push(Segment {
                        own: line + part.start - columns.start,
                        plane: row * axes[1].input + column,
                        length: part.len(),
                    });
                    row += axes[0].stride;
                }
                own += down.length * across.length;
            }
        }
        segments.retain(|segment| segment.length > 0);
        Strip {
            piece: [rows.len(), columns.len()],
            segments,
            stride: axes[1].stride,
            values: vec![0.0; own],
            along,
        }
    }

    /// From one row to the next.
    pub(super) fn pitch(&self) -> usize {
        self.along[1].length
    }

    /// Elements from the first to the last of a piece that has the strip's pitch.
    pub(super) fn span(&self) -> usize {
        self.piece[0].saturating_sub(1) * self.pitch() + self.piece[1]
    }

    /// Where a tap begins, by its place in a kernel's plane.
    pub(super) fn start(&self, tap: usize) -> usize {
        let [down, across] = &self.along;
        let (run, offset) = down.taps[tap / across.taps.len()];
        let (side, shift) = across.taps[tap % across.taps.len()];
        let plane = run * across.bases.len() + side;
        (plane * down.length + offset) * across.length + shift
    }

    /// All elements.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All elements, to be added to.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Takes a plane of the wide side; what is padding stays as it is, zero.
    pub(super) fn load(&mut self, plane: &[f32]) {
        for segment in &self.segments {
            let own = &mut self.values[segment.own..][..segment.length];
            let theirs = &plane[segment.plane..];
            match self.stride {
                1 => own.copy_from_slice(&theirs[..segment.length]),
                stride => {
                    let theirs = theirs.iter().step_by(stride);
                    own.iter_mut().zip(theirs).for_each(|(own, x)| *own = *x);
                }
            }
        }
    }

    /// Adds itself to a plane of the wide side, without what is padding.
    pub(super) fn fold(&self, plane: &mut [f32]) {
        for segment in &self.segments {
            let own = &self.values[segment.own..][..segment.length];
            let theirs = &mut plane[segment.plane..];
            match self.stride {
                1 => {
                    let theirs = theirs[..segment.length].iter_mut();
                    theirs.zip(own).for_each(|(sum, x)| *sum += x);
                }
                stride => {
                    let theirs = theirs.iter_mut().step_by(stride);
                    theirs.zip(own).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }

    /// Writes the piece that a tap reads, without gaps.
    pub(super) fn read(&self, tap: usize, out: &mut [f32]) {
        /// Rows are copied in whole blocks; what is too much is overwritten by the next row.
        const BLOCK: usize = 8;
        let [rows, columns] = self.piece;
        let (start, pitch) = (self.start(tap), self.pitch());
        let blocks = columns.next_multiple_of(BLOCK);
        for row in 0..rows {
            let (from, to) = (start + row * pitch, row * columns);
            let (from, to) = (&self.values[from..], &mut out[to..]);
            if columns <= 4 * BLOCK && blocks <= from.len().min(to.len()) {
                let from = from[..blocks].as_chunks::<BLOCK>().0;
                let to = to[..blocks].as_chunks_mut::<BLOCK>().0;
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            } else {
                to[..columns].copy_from_slice(&from[..columns]);
            }
        }
    }

    /// Adds a piece to what a tap reads.
    pub(super) fn add(&mut self, tap: usize, piece: &[f32]) {
        let [rows, columns] = self.piece;
        let (start, pitch) = (self.start(tap), self.pitch());
        for row in 0..rows {
            let own = &mut self.values[start + row * pitch..][..columns];
            let more = &piece[row * columns..][..columns];
            own.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
        }
    }
}
