//! The stages, one after the other, for tables that depend on no others.

use std::ops::Range;

use rayon::prelude::*;

use super::best_tables::Moments;
use super::nearest::ascending;
use super::problem::{LayerwiseAlgorithm, LayerwiseError, runs};
use super::product::dot;
use super::start::row_scale;
use super::tile::{Layer, Product, TILE, Tables, Tile};

/// Most pieces that one table's rows are cut into, each with sums of its own.
const PIECES: usize = 32;

/// What comes of some rows.
pub(super) struct Fitted {
    /// Of the tables, each ascending.
    pub(super) luts: Vec<f32>,
    /// In the order of the layer.
    pub(super) indices: Vec<u8>,
    pub(super) scales: Vec<f32>,
    pub(super) objective: Vec<f64>,
    /// What the objective is if all weights become zero.
    pub(super) energy: f64,
}

/// Rows with tables of their own, in the making.
struct Fit<'a> {
    layer: &'a Layer<'a>,
    tables: Tables,
    /// The rows in order, each piece for one thread at a time.
    pieces: Vec<Vec<Tile>>,
    objective: Vec<f64>,
}

/// Fits the tables of whole `rows`.
pub(super) fn fit(layer: &Layer<'_>, rows: Range<usize>) -> Result<Fitted, LayerwiseError> {
    let options = layer.options;
    let mut fit = Fit::start(layer, rows)?;
    let mut change = fit.improve(|tile, tables| tile.feed_back(layer, tables))?;
    if options.algorithm == LayerwiseAlgorithm::Lnq {
        for _ in 0..options.rounds {
            fit.tables.reseat(layer, fit.pieces.iter().flatten());
            change = fit.improve(|tile, tables| tile.descend(layer, tables))?;
        }
    }
    fit.push(fit.energy() + change);
    Ok(fit.finish())
}

impl<'a> Fit<'a> {
    fn start(layer: &'a Layer<'a>, rows: Range<usize>) -> Result<Self, LayerwiseError> {
        let (options, columns) = (layer.options, layer.problem.columns);
        let scale = |row: usize| match options.row_scale {
            true => row_scale(layer.problem.row(row)),
            false => 1.0,
        };
        let scales: Vec<f64> = rows.clone().map(scale).collect();
        let k = options.entries();
        let rows_per_table = options.rows_per_table.clamp(1, layer.problem.rows());
        let number = rows.len().div_ceil(rows_per_table);
        let mut tables = Tables {
            rows: rows.clone(),
            rows_per_table,
            k,
            entries: vec![0.0; number * k],
        };
        options.stopped()?;
        tables.start(layer, &scales);
        // Tiles end where other second moments begin.
        let same = layer.problem.rows_per_moments();
        let mut tiles = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            let end = (at + TILE).min(rows.end).min((at / same + 1) * same);
            let scales = scales[at - rows.start..end - rows.start].to_vec();
            tiles.push(Tile::new(at..end, columns, scales));
            at = end;
        }
        let share = tiles.len().div_ceil(PIECES);
        let mut tiles = tiles.into_iter();
        let mut pieces = Vec::new();
        while tiles.len() > 0 {
            pieces.push(tiles.by_ref().take(share).collect());
        }
        let mut fit = Fit {
            layer,
            tables,
            pieces,
            objective: Vec::new(),
        };
        let tables = &fit.tables;
        let start = |tile: &mut Tile| {
            layer.options.stopped()?;
            tile.start(layer, tables);
            let root = tile.root(layer, &tile.originals(layer));
            tile.whole = dot(&root, &root);
            Ok(())
        };
        fit.pieces
            .par_iter_mut()
            .try_for_each(|piece| piece.iter_mut().try_for_each(start))?;
        fit.push(fit.energy());
        Ok(fit)
    }

    /// Improves indices, notes the objective, and finds the best tables for them; returns what they add to the objective, beside
    /// what scales changed in energies.
    fn improve(
        &mut self,
        indices: impl Fn(&mut Tile, &Tables) -> Product + Sync,
    ) -> Result<f64, LayerwiseError> {
        let (layer, tables) = (self.layer, &self.tables);
        let number = tables.entries.len() / tables.k;
        let gather = |piece: &mut Vec<Tile>| {
            let mut sums = vec![Moments::new(tables.k); number];
            let mut energy = 0.0;
            for tile in piece {
                layer.options.stopped()?;
                let product = indices(tile, tables);
                energy += tile.energies.iter().sum::<f64>();
                tile.gather(layer, tables, &product, &mut sums);
            }
            Ok((energy, sums))
        };
        let parts: Result<Vec<_>, LayerwiseError> =
            self.pieces.par_iter_mut().map(gather).collect();
        let mut energy = 0.0;
        let mut sums = vec![Moments::new(tables.k); number];
        for (more, part) in parts? {
            energy += more;
            for (sum, part) in sums.iter_mut().zip(&part) {
                sum.add(part, 1.0);
            }
        }
        let improve = |(table, sum): (&mut [f32], &Moments)| sum.improve(table);
        let tables = self.tables.entries.chunks_mut(self.tables.k);
        let change = tables.zip(&sums).map(improve).sum();
        self.push(energy);
        Ok(change)
    }

    /// The sum of the energies.
    fn energy(&self) -> f64 {
        let tiles = self.pieces.iter().flatten();
        tiles.flat_map(|tile| &tile.energies).sum()
    }

    /// Notes the objective, which rounding alone could raise.
    fn push(&mut self, objective: f64) {
        let last = self.objective.last().copied().unwrap_or(f64::INFINITY);
        self.objective.push(objective.max(0.0).min(last));
    }

    fn finish(self) -> Fitted {
        let (layer, tables) = (self.layer, self.tables);
        let columns = layer.problem.columns;
        let orders: Vec<Vec<u8>> = tables.entries.chunks(tables.k).map(ascending).collect();
        let mut fitted = Fitted {
            luts: Vec::with_capacity(tables.entries.len()),
            indices: vec![0; tables.rows.len() * columns],
            scales: Vec::with_capacity(tables.rows.len()),
            objective: self.objective,
            energy: self.pieces.iter().flatten().map(|tile| tile.whole).sum(),
        };
        let mut ranks = vec![0; tables.entries.len()];
        for (table, order) in orders.iter().enumerate() {
            let entries = tables.table(table);
            for (rank, &code) in order.iter().enumerate() {
                fitted.luts.push(entries[usize::from(code)]);
                ranks[table * tables.k + usize::from(code)] = rank as u8;
            }
        }
        for tile in self.pieces.iter().flatten() {
            fitted.scales.extend(tile.scales.iter().map(|&s| s as f32));
            let order = &layer.curvature(tile.rows.start).order;
            for (row, codes) in tile.rows.clone().zip(tile.codes.chunks_exact(columns)) {
                let to = &mut fitted.indices[(row - tables.rows.start) * columns..][..columns];
                let ranks = &ranks[tables.of(row) * tables.k..][..tables.k];
                for (&column, &code) in order.iter().zip(codes) {
                    to[column as usize] = ranks[usize::from(code)];
                }
            }
        }
        fitted
    }
}

/// Rows in groups of whole tables, small tables so many together that they fill a tile.
pub(super) fn groups(rows: Range<usize>, rows_per_table: usize) -> Vec<Range<usize>> {
    let tables = (TILE / rows_per_table.max(1)).max(1);
    runs(rows, rows_per_table.saturating_mul(tables)).collect()
}
