//! Entries that no weight uses move to where they are needed most.

use super::tile::{Layer, Tables, Tile};

impl Tables {
    /// Moves each unused entry to the weight that is farthest from all entries, as its column counts. No index changes, so the
    /// objective stays; the descent that follows may take the entry.
    pub(super) fn reseat<'t>(
        &mut self,
        layer: &Layer<'_>,
        tiles: impl Iterator<Item = &'t Tile> + Clone,
    ) {
        let columns = layer.problem.columns;
        let mut used = vec![false; self.entries.len()];
        for tile in tiles.clone() {
            for (row, codes) in tile.rows.clone().zip(tile.codes.chunks_exact(columns)) {
                let used = &mut used[self.of(row) * self.k..][..self.k];
                codes
                    .iter()
                    .for_each(|&code| used[usize::from(code)] = true);
            }
        }
        for at in (0..used.len()).filter(|&at| !used[at]) {
            let table = at / self.k;
            if let Some(value) = self.farthest(layer, tiles.clone(), table) {
                self.entries[at] = value;
            }
        }
    }

    /// The weight, divided by its row's scale, with the largest error; `None` if there is no error.
    fn farthest<'t>(
        &self,
        layer: &Layer<'_>,
        tiles: impl Iterator<Item = &'t Tile>,
        table: usize,
    ) -> Option<f32> {
        let nearest = super::nearest::Nearest::new(self.table(table));
        let mut most = (0.0, None);
        for tile in tiles {
            let diagonal = &layer.curvature(tile.rows.start).diagonal;
            for (r, row) in tile.rows.clone().enumerate() {
                if self.of(row) != table {
                    continue;
                }
                let scale = tile.scales[r];
                for (w, weight) in tile.weights(layer, r).zip(diagonal) {
                    let error = weight * (w - scale * nearest.find(w / scale).1).powi(2);
                    if error > most.0 {
                        most = (error, Some((w / scale) as f32));
                    }
                }
            }
        }
        most.1
    }
}
