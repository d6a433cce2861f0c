//! The two sides of a convolution.
//!
//! Windows slide over the *wide* side, and each gives one position of the *narrow* side: that is the input and the output of a
//! convolution, and the output and the input of a transposed one. Weights are `[groups * narrow, wide, kernel]` for both, channels
//! counted within a group. So three functions do for both and their gradients: `gather` (wide to narrow), `scatter` (narrow
//! to wide), and `correlate` (both to weights).

use crate::ops::window::Axis;
use std::ops::Range;

/// Sizes of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group, on the wide side.
    pub wide: usize,
    /// Channels of a group, on the narrow side.
    pub narrow: usize,
    /// Windows over the wide side: `input` is wide, `output` narrow.
    pub axes: [Axis; 3],
}

impl Geometry {
    /// Sizes of a convolution; axes along which nothing is moved become one.
    pub(super) fn new(
        batch: usize,
        groups: usize,
        wide: usize,
        narrow: usize,
        axes: [Axis; 3],
    ) -> Self {
        let mut geometry = Geometry {
            batch,
            groups,
            wide,
            narrow,
            axes,
        };
        if geometry.is_identity() && !geometry.is_empty() {
            let [planes, rows, columns] = &mut geometry.axes;
            columns.input *= rows.input * planes.input;
            columns.output = columns.input;
            for axis in [planes, rows] {
                (axis.input, axis.output) = (1, 1);
            }
        }
        geometry
    }

    /// Whether there is nothing to multiply.
    pub(super) fn is_empty(&self) -> bool {
        let [a, b, c] = self.axes.map(|axis| axis.input.min(axis.output));
        [self.batch, self.groups, self.wide, self.narrow, a, b, c].contains(&0)
    }

    /// Whether each position of the narrow side is made of the same position of the wide side.
    pub(super) fn is_identity(&self) -> bool {
        self.axes.iter().all(Axis::is_identity)
    }

    /// Whether the only window is the whole wide side.
    pub(super) fn is_whole(&self) -> bool {
        self.axes.iter().all(Axis::is_whole)
    }

    /// Elements of a kernel.
    pub(super) fn taps(&self) -> usize {
        product(self.axes.map(|axis| axis.kernel))
    }

    /// Weights for each channel of the narrow side.
    pub(super) fn depth(&self) -> usize {
        self.wide.saturating_mul(self.taps())
    }

    /// Positions of a channel, on the wide side.
    pub(super) fn wide_plane(&self) -> usize {
        product(self.axes.map(|axis| axis.input))
    }

    /// Positions of a channel, on the narrow side.
    pub(super) fn narrow_plane(&self) -> usize {
        product(self.axes.map(|axis| axis.output))
    }

    /// Positions of a slab of the narrow side: along its last two axes.
    pub(super) fn slab(&self) -> usize {
        self.axes[1].output * self.axes[2].output
    }

    /// The slabs of an image.
    pub(super) fn slabs(&self) -> usize {
        self.axes[0].output
    }

    /// Channels of a group of an image, on the wide side.
    pub(super) fn wide_of<'a>(&self, values: &'a [f32], image: usize, group: usize) -> &'a [f32] {
        let each = self.wide * self.wide_plane();
        &values[(image * self.groups + group) * each..][..each]
    }

    /// Channels of a group of an image, on the narrow side.
    pub(super) fn narrow_of<'a>(&self, values: &'a [f32], image: usize, group: usize) -> &'a [f32] {
        let each = self.narrow * self.narrow_plane();
        &values[(image * self.groups + group) * each..][..each]
    }

    /// The weights of a group.
    pub(super) fn weights_of<'a>(&self, weight: &'a [f32], group: usize) -> &'a [f32] {
        let each = self.narrow * self.depth();
        &weight[group * each..][..each]
    }
}

/// The product; too large a one only where another size is zero.
fn product(sizes: [usize; 3]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}

/// Positions of the narrow side: the same part of one or more slabs, counted through all images.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub slabs: Range<usize>,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl Tile {
    /// Positions in each slab; they are contiguous.
    pub(super) fn part(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Positions in all.
    pub(super) fn positions(&self) -> usize {
        self.slabs.len() * self.part()
    }

    /// The first position in each slab.
    pub(super) fn first(&self, geometry: &Geometry) -> usize {
        self.rows.start * geometry.axes[2].output + self.columns.start
    }
}

/// Some slabs, cut into tiles of about as many positions as asked for: whole slabs, or else whole rows, or else parts of rows.
pub(super) fn tiles(geometry: &Geometry, slabs: Range<usize>, positions: usize) -> Vec<Tile> {
    let (rows, columns) = (geometry.axes[1].output, geometry.axes[2].output);
    let (first, count) = (slabs.start, slabs.len());
    let mut found = Vec::new();
    if rows * columns <= positions {
        for slabs in evenly(count, positions / (rows * columns).max(1)) {
            found.push(Tile {
                slabs: slabs.start + first..slabs.end + first,
                rows: 0..rows,
                columns: 0..columns,
            });
        }
        return found;
    }
    for slab in slabs {
        for rows in evenly(rows, positions / columns) {
            for columns in evenly(columns, positions.max(1)) {
                found.push(Tile {
                    slabs: slab..slab + 1,
                    rows: rows.clone(),
                    columns,
                });
            }
        }
    }
    found
}

/// Numbers from 0 to `count`, cut into pieces of much the same size: at most `most`, at least 1.
pub(super) fn evenly(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let pieces = count.div_ceil(most.max(1));
    let (each, more) = (count / pieces.max(1), count % pieces.max(1));
    let start = move |piece: usize| piece * each + piece.min(more);
    (0..pieces).map(move |piece| start(piece)..start(piece + 1))
}
