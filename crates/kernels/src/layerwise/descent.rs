//! Coordinate descent over indices: column after column, each weight takes the entry that is best while all others stay.
//!
//! With g = H e, which is a matrix product, the best value of weight j is qⱼ − gⱼ / Hⱼⱼ, and the best entry the nearest to it.
//! A weight that changes by δ adds δ Hⱼ to g, n multiplications; few do, so that the product is most of the work.

use super::nearest::Nearest;
use super::product::{PANEL, add_line, add_product, dot, padded};
use super::tile::{Layer, Product, Tables, Tile};
use crate::buffer::Buffer;

impl Tile {
    /// Sweeps over the columns, until no row changes or the options say; brings energies up to date.
    pub(super) fn descend(&mut self, layer: &Layer<'_>, tables: &Tables) -> Product {
        let stride = padded(layer.problem.columns);
        let mut errors = self.errors(layer, tables);
        let mut gradients = self.room(stride);
        for (p, panel) in layer.curvature(self.rows.start).panels.iter().enumerate() {
            let out = &mut gradients[p * PANEL..];
            add_product(&errors, stride, layer.problem.columns, panel, out, stride);
        }
        let nearest = tables.nearest();
        let mut moving = vec![true; self.rows.len()];
        for _ in 0..layer.options.sweeps {
            self.sweep(
                layer,
                tables,
                &nearest,
                &mut errors,
                &mut gradients,
                &mut moving,
            );
            if !moving.contains(&true) {
                break;
            }
        }
        let pairs = errors
            .chunks_exact(stride)
            .zip(gradients.chunks_exact(stride));
        for (energy, (errors, gradients)) in self.energies.iter_mut().zip(pairs) {
            *energy = dot(errors, gradients);
        }
        Product::Whole(gradients)
    }

    /// One sweep over the rows that are `moving`, which tells the rows that moved.
    fn sweep(
        &mut self,
        layer: &Layer<'_>,
        tables: &Tables,
        nearest: &[Nearest],
        errors: &mut Buffer,
        gradients: &mut Buffer,
        moving: &mut [bool],
    ) {
        let columns = layer.problem.columns;
        let stride = padded(columns);
        let curvature = layer.curvature(self.rows.start);
        let rows: Vec<usize> = (0..moving.len()).filter(|&r| moving[r]).collect();
        moving.fill(false);
        for (j, &second) in curvature.diagonal.iter().enumerate() {
            for &r in &rows {
                let table = tables.of(self.rows.start + r);
                let scale = self.scales[r];
                let code = &mut self.codes[r * columns + j];
                let value = f64::from(tables.table(table)[usize::from(*code)]);
                let gradient = gradients[r * stride + j];
                let (chosen, best) = nearest[table].find(value - gradient / (second * scale));
                let step = scale * (best - value);
                if chosen == *code || 2.0 * step * gradient + step * step * second >= 0.0 {
                    continue;
                }
                *code = chosen;
                moving[r] = true;
                errors[r * stride + j] += step;
                let row = gradients[r * stride..(r + 1) * stride].chunks_exact_mut(PANEL);
                for (out, panel) in row.zip(&curvature.panels) {
                    add_line(step, &panel[j * PANEL..(j + 1) * PANEL], out);
                }
            }
        }
    }
}
