//! Where it starts: the best clusters of each table's values, weighted, with the scales of rows.

use super::problem::runs;
use super::tile::{Layer, Tables, Tile};
use crate::{Precision, ValueHistogram, Weights};

/// The scale that a row starts with: its standard deviation.
pub(super) fn row_scale(row: &[f32]) -> f64 {
    let n = row.len() as f64;
    let mean = row.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
    let spread = |&w: &f32| (f64::from(w) - mean).powi(2);
    let deviation = (row.iter().map(spread).sum::<f64>() / n).sqrt() as f32;
    let constant = mean.abs() as f32;
    // A constant row is its constant, as far as rounding tells.
    let candidates = [deviation, constant];
    let normal = candidates
        .into_iter()
        .find(|&s| s > 1e-6 * constant && s.is_normal());
    f64::from(normal.unwrap_or(1.0))
}

impl Tables {
    /// The best tables for the values alone; `scales` has one for each row.
    pub(super) fn start(&mut self, layer: &Layer<'_>, scales: &[f64]) {
        let first = self.rows.start;
        let all = runs(self.rows.clone(), self.rows_per_table);
        for (rows, table) in all.zip(self.entries.chunks_mut(self.k)) {
            let mut values = Vec::with_capacity(rows.len() * layer.problem.columns);
            let mut weights: Vec<f64> = Vec::with_capacity(values.capacity());
            for row in rows {
                let scale = scales[row - first];
                let row_weights = layer.problem.row(row).iter();
                values.extend(row_weights.map(|&w| (f64::from(w) / scale) as f32));
                weights.extend(importance(layer, row).map(|weight| weight * scale * scale));
            }
            // Relative to the largest, so that the range of a 32-bit float is enough.
            let finite = weights.iter().copied().filter(|w| w.is_finite());
            let most = finite.fold(0.0, f64::max);
            let weights: Vec<f32> = weights.iter().map(|&w| (w / most) as f32).collect();
            let histogram =
                ValueHistogram::new(&values, Weights::Each(&weights), Precision::Refined);
            let histogram = histogram.with_stop(layer.options.stop);
            let centroids = histogram.cluster(table.len()).centroids;
            // Where there are fewer values than entries, the last is there more than once, and the others may find a use for it.
            let last = centroids.last().copied().unwrap_or(0.0);
            let padded = centroids.into_iter().chain(std::iter::repeat(last));
            for (entry, centroid) in table.iter_mut().zip(padded) {
                *entry = centroid as f32;
            }
        }
    }
}

/// How much each weight of a row counts, in the order of the layer.
fn importance<'l>(layer: &'l Layer<'_>, row: usize) -> Box<dyn Iterator<Item = f64> + 'l> {
    let columns = layer.problem.columns;
    match layer.problem.start_weights {
        Some(start) => {
            let start = start[row * columns..(row + 1) * columns].iter();
            Box::new(start.map(|&weight| f64::from(weight)))
        }
        None => {
            let curvature = layer.curvature(row);
            let mut diagonal = vec![0.0; columns];
            for (&column, &weight) in curvature.order.iter().zip(&curvature.diagonal) {
                diagonal[column as usize] = weight;
            }
            Box::new(diagonal.into_iter())
        }
    }
}

impl Tile {
    /// The nearest entry for each weight.
    pub(super) fn start(&mut self, layer: &Layer<'_>, tables: &Tables) {
        let nearest = tables.nearest();
        let columns = layer.problem.columns;
        let mut codes = std::mem::take(&mut self.codes);
        for (r, codes) in codes.chunks_exact_mut(columns).enumerate() {
            let nearest = &nearest[tables.of(self.rows.start + r)];
            for (code, w) in codes.iter_mut().zip(self.weights(layer, r)) {
                *code = nearest.find(w / self.scales[r]).0;
            }
        }
        self.codes = codes;
        self.measure(layer, tables);
    }
}
