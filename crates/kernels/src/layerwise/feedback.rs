//! One pass over the columns, each making up for the errors of those before it as well as it can.
//!
//! With H = R Rᵀ the error e costs |Rᵀe|², and Rᵀ is lower triangular: component j is Rⱼⱼeⱼ + Σᵢ Rᵢⱼeᵢ over the columns i before
//! j. So weight j had better be wⱼ − Σᵢ Rᵢⱼeᵢ / Rⱼⱼ, and takes the entry nearest to that. What is left over is its part of the cost. This is GPTQ
//! (whose factor of the inverse is R⁻¹), with sums taken when they are needed rather than weights changed in advance.
//!
//! Columns come in blocks of 64: what the blocks before say is a matrix product, n²/2 multiplications a row in all.

use super::product::{PANEL, add_line, add_product, padded};
use super::tile::{Layer, Product, Tables, Tile};

impl Tile {
    /// Chooses the indices anew, where that is better for a row. Needs energies that are up to date.
    pub(super) fn feed_back(&mut self, layer: &Layer<'_>, tables: &Tables) -> Product {
        let columns = layer.problem.columns;
        let stride = padded(columns);
        let nearest = tables.nearest();
        let curvature = layer.curvature(self.rows.start);
        // Weights, which become errors block by block.
        let mut errors = self.originals(layer);
        let mut root = self.room(stride);
        let mut codes = vec![0; self.codes.len()];
        let mut energies = vec![0.0; self.rows.len()];
        for (p, panel) in curvature.factor.iter().enumerate() {
            let at = p * PANEL;
            add_product(&errors, stride, at, panel, &mut root[at..], stride);
            let corner = &panel[at * PANEL..];
            for (r, energy) in energies.iter_mut().enumerate() {
                let nearest = &nearest[tables.of(self.rows.start + r)];
                let scale = self.scales[r];
                let sums = &mut root[r * stride + at..][..PANEL];
                let width = PANEL.min(columns - at);
                let line = &mut errors[r * stride + at..][..width];
                let codes = &mut codes[r * columns + at..][..width];
                for (c, (slot, code)) in line.iter_mut().zip(codes).enumerate() {
                    let factors = &corner[c * PANEL..(c + 1) * PANEL];
                    let w = *slot;
                    let (chosen, value) = nearest.find((w - sums[c] / factors[c]) / scale);
                    *code = chosen;
                    *slot = scale * value - w;
                    add_line(*slot, &factors[c..], &mut sums[c..]);
                    *energy += sums[c] * sums[c];
                }
            }
        }
        let new = codes.chunks_exact(columns).zip(energies);
        let old = self.codes.chunks_exact_mut(columns).zip(&mut self.energies);
        let mut all = true;
        for ((codes, energy), (new_codes, new_energy)) in old.zip(new) {
            if new_energy < *energy {
                codes.copy_from_slice(new_codes);
                *energy = new_energy;
            } else {
                all = false;
            }
        }
        if !all {
            root = self.root(layer, &self.errors(layer, tables));
        }
        Product::Root(root)
    }
}
