//! Some rows with the same second moments: what is known of them, and what is worked out again when it is needed.

use std::ops::Range;

use super::curvature::Curvature;
use super::nearest::Nearest;
use super::problem::{LayerwiseOptions, LayerwiseProblem};
use super::product::{PANEL, ROWS, add_product, dot, padded};
use crate::buffer::Buffer;

/// Most rows of a tile: so many share what is read of H.
pub(super) const TILE: usize = 32;

/// What is given.
pub(super) struct Layer<'a> {
    pub(super) problem: &'a LayerwiseProblem<'a>,
    pub(super) options: &'a LayerwiseOptions<'a>,
    /// Some consecutive ones of all.
    pub(super) curvatures: &'a [Curvature],
    /// The number of the first.
    pub(super) first: usize,
}

impl Layer<'_> {
    pub(super) fn curvature(&self, row: usize) -> &Curvature {
        &self.curvatures[row / self.problem.rows_per_moments() - self.first]
    }
}

/// Tables of consecutive rows.
#[derive(Debug)]
pub(super) struct Tables {
    /// The rows.
    pub(super) rows: Range<usize>,
    pub(super) rows_per_table: usize,
    /// Entries of a table.
    pub(super) k: usize,
    pub(super) entries: Vec<f32>,
}

impl Tables {
    /// The table of a row.
    pub(super) fn of(&self, row: usize) -> usize {
        (row - self.rows.start) / self.rows_per_table
    }

    pub(super) fn table(&self, table: usize) -> &[f32] {
        &self.entries[table * self.k..(table + 1) * self.k]
    }

    pub(super) fn nearest(&self) -> Vec<Nearest> {
        self.entries.chunks(self.k).map(Nearest::new).collect()
    }
}

/// What is known of a tile's errors e, row by row, each with zeros up to a whole number of panels.
pub(super) enum Product {
    /// Rᵀe.
    Root(Buffer),
    /// H e.
    Whole(Buffer),
}

/// The state of some rows.
#[derive(Debug)]
pub(super) struct Tile {
    pub(super) rows: Range<usize>,
    /// Row by row, columns in the order of the curvature.
    pub(super) codes: Vec<u8>,
    /// One for each row; 32-bit floats.
    pub(super) scales: Vec<f64>,
    /// What each row has a part in the objective with; not always up to date.
    pub(super) energies: Vec<f64>,
    /// What they would have if all weights became zero; from the start on.
    pub(super) whole: f64,
}

impl Tile {
    pub(super) fn new(rows: Range<usize>, columns: usize, scales: Vec<f64>) -> Self {
        Tile {
            codes: vec![0; rows.len() * columns],
            energies: vec![f64::INFINITY; rows.len()],
            whole: 0.0,
            rows,
            scales,
        }
    }

    /// Room for some numbers for each row, and more rows to a multiple of four.
    pub(super) fn room(&self, numbers: usize) -> Buffer {
        Buffer::zeros(self.rows.len().next_multiple_of(ROWS) * numbers)
    }

    /// The weights of row number `r` of the tile, in the order of the curvature.
    pub(super) fn weights<'l>(
        &self,
        layer: &'l Layer<'_>,
        r: usize,
    ) -> impl Iterator<Item = f64> + 'l {
        let row = self.rows.start + r;
        let weights = layer.problem.row(row);
        let order = layer.curvature(row).order.iter();
        order.map(|&column| f64::from(weights[column as usize]))
    }

    /// What the indices stand for, less the weights; each row with zeros up to a whole number of panels.
    pub(super) fn errors(&self, layer: &Layer<'_>, tables: &Tables) -> Buffer {
        let columns = layer.problem.columns;
        let mut errors = self.room(padded(columns));
        let lines = errors.chunks_exact_mut(padded(columns));
        let rows = lines.zip(self.codes.chunks_exact(columns)).enumerate();
        for (r, (line, codes)) in rows {
            let table = tables.table(tables.of(self.rows.start + r));
            let pairs = codes.iter().zip(self.weights(layer, r));
            for (slot, (&code, w)) in line.iter_mut().zip(pairs) {
                *slot = self.scales[r] * f64::from(table[usize::from(code)]) - w;
            }
        }
        errors
    }

    /// The weights, as errors are laid out.
    pub(super) fn originals(&self, layer: &Layer<'_>) -> Buffer {
        let stride = padded(layer.problem.columns);
        let mut lines = self.room(stride);
        let rows = lines.chunks_exact_mut(stride).take(self.rows.len());
        for (r, line) in rows.enumerate() {
            let weights = line.iter_mut().zip(self.weights(layer, r));
            weights.for_each(|(slot, w)| *slot = w);
        }
        lines
    }

    /// eᵀHe = |Rᵀe|² of each row.
    pub(super) fn measure(&mut self, layer: &Layer<'_>, tables: &Tables) {
        let root = self.root(layer, &self.errors(layer, tables));
        let rows = root.chunks_exact(padded(layer.problem.columns));
        for (energy, row) in self.energies.iter_mut().zip(rows) {
            *energy = dot(row, row);
        }
    }

    /// Rᵀx of each row.
    pub(super) fn root(&self, layer: &Layer<'_>, x: &Buffer) -> Buffer {
        let stride = padded(layer.problem.columns);
        let mut root = self.room(stride);
        for (p, panel) in layer.curvature(self.rows.start).factor.iter().enumerate() {
            let out = &mut root[p * PANEL..];
            add_product(x, stride, (p + 1) * PANEL, panel, out, stride);
        }
        root
    }
}
