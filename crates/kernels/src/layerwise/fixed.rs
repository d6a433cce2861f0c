//! Better indices for tables that stay as they are: those that a file holds, rounded after they were fitted.

use rayon::prelude::*;

use super::curvature::Curvature;
use super::problem::{LayerwiseError, LayerwiseOptions, LayerwiseProblem, LayerwiseTables, runs};
use super::product::{PANEL, add_product, dot, padded};
use super::tile::{Layer, TILE, Tables, Tile};
use crate::buffer::Buffer;

/// Improves the indices of tables that are fixed, by [`LayerwiseOptions::sweeps`] of coordinate descent (none only measures), and
/// adds to [`LayerwiseTables::objective`] what it comes to. Sets [`LayerwiseTables::energy`].
///
/// H is damped as [`LayerwiseTables::damping`] says, and may be indefinite: nothing is solved here. Tables may hold an entry more than once, and need not ascend.
///
/// ```
/// use palettizer_kernels::{LayerwiseOptions, LayerwiseProblem, LayerwiseTables, layerwise_indices};
///
/// let problem = LayerwiseProblem {
///     weights: &[1.0, 0.4],
///     columns: 2,
///     moments: &[&[1.0, 0.9, 0.9, 1.0]],
///     start_weights: None,
/// };
/// let mut tables = LayerwiseTables {
///     luts: vec![0.0, 1.0],
///     indices: vec![0, 0],
///     scales: None,
///     objective: Vec::new(),
///     energy: 0.0,
///     damping: vec![0.0],
/// };
/// let options = LayerwiseOptions { nbits: 1, ..LayerwiseOptions::default() };
/// layerwise_indices(&problem, &options, &mut tables)?;
/// assert_eq!(tables.indices, [1, 0]);
/// assert!((tables.objective[0] - 0.16).abs() < 1e-6 && (tables.energy - 1.88).abs() < 1e-6);
/// # Ok::<(), palettizer_kernels::LayerwiseError>(())
/// ```
///
/// # Errors
/// If lengths, options or indices make no sense, if anything is not finite, or if it was stopped.
pub fn layerwise_indices(
    problem: &LayerwiseProblem<'_>,
    options: &LayerwiseOptions<'_>,
    tables: &mut LayerwiseTables,
) -> Result<(), LayerwiseError> {
    problem.check(options)?;
    check(problem, options, tables)?;
    let (columns, rows) = (problem.columns, problem.rows());
    let fixed = Tables {
        rows: 0..rows,
        rows_per_table: options.rows_per_table.clamp(1, rows),
        k: options.entries(),
        entries: tables.luts.clone(),
    };
    let same = problem.rows_per_moments();
    let (mut energy, mut error) = (0.0, 0.0);
    for (at, indices) in tables.indices.chunks_mut(same * columns).enumerate() {
        options.stopped()?;
        let curvature = Curvature::damped(problem.moments[at], columns, tables.damping[at]);
        let layer = Layer {
            problem,
            options,
            curvatures: std::slice::from_ref(&curvature),
            first: at,
        };
        let first = at * same;
        let one = |(number, indices): (usize, &mut [u8])| {
            options.stopped()?;
            let start = first + number * TILE;
            let rows = start..start + indices.len() / columns;
            let scales = match &tables.scales {
                Some(scales) => scales[rows.clone()].iter().map(|&s| f64::from(s)).collect(),
                None => vec![1.0; rows.len()],
            };
            let mut tile = Tile::new(rows, columns, scales);
            tile.take(indices, &layer);
            let energy = tile.quadratic(&layer, &tile.originals(&layer));
            if options.sweeps == 0 {
                tile.energies = tile.quadratic(&layer, &tile.errors(&layer, &fixed));
            } else {
                tile.descend(&layer, &fixed);
            }
            tile.give(indices, &layer);
            Ok((
                energy.iter().sum::<f64>(),
                tile.energies.iter().sum::<f64>(),
            ))
        };
        let tiles = indices.par_chunks_mut(TILE * columns).enumerate();
        let sums: Vec<Result<(f64, f64), LayerwiseError>> = tiles.map(one).collect();
        for sum in sums {
            let (more_energy, more_error) = sum?;
            energy += more_energy;
            error += more_error;
        }
    }
    tables.objective.push(error.max(0.0));
    tables.energy = energy;
    Ok(())
}

/// Refuses tables that are not those of the problem.
fn check(
    problem: &LayerwiseProblem<'_>,
    options: &LayerwiseOptions<'_>,
    tables: &LayerwiseTables,
) -> Result<(), LayerwiseError> {
    let (rows, k) = (problem.rows(), options.entries());
    let number = runs(0..rows, options.rows_per_table).count();
    let scales = tables.scales.as_ref();
    let lengths = [
        ("entries", tables.luts.len(), number * k),
        ("indices", tables.indices.len(), problem.weights.len()),
        ("scales", scales.map_or(rows, Vec::len), rows),
        ("dampings", tables.damping.len(), problem.moments.len()),
    ];
    for (what, found, wanted) in lengths {
        if found != wanted {
            return Err(LayerwiseError::Shape {
                what,
                found,
                wanted,
            });
        }
    }
    let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
    if !finite(&tables.luts) || !scales.is_none_or(|scales| finite(scales)) {
        return Err(LayerwiseError::NotFinite("entries and scales"));
    }
    if let Some(&most) = tables
        .indices
        .iter()
        .find(|&&index| usize::from(index) >= k)
    {
        return Err(LayerwiseError::Shape {
            what: "entries, for the largest index",
            found: k,
            wanted: usize::from(most) + 1,
        });
    }
    Ok(())
}

impl Tile {
    /// Takes indices over, which are in the order of the layer.
    fn take(&mut self, indices: &[u8], layer: &Layer<'_>) {
        let order = &layer.curvature(self.rows.start).order;
        let rows = indices.chunks_exact(order.len());
        for (codes, indices) in self.codes.chunks_exact_mut(order.len()).zip(rows) {
            for (code, &column) in codes.iter_mut().zip(order) {
                *code = indices[column as usize];
            }
        }
    }

    /// The other way round.
    fn give(&self, indices: &mut [u8], layer: &Layer<'_>) {
        let order = &layer.curvature(self.rows.start).order;
        let rows = indices.chunks_exact_mut(order.len());
        for (codes, indices) in self.codes.chunks_exact(order.len()).zip(rows) {
            for (&code, &column) in codes.iter().zip(order) {
                indices[column as usize] = code;
            }
        }
    }

    /// xᵀHx of each row: twice what is above the diagonal blocks, and those.
    fn quadratic(&self, layer: &Layer<'_>, x: &Buffer) -> Vec<f64> {
        let stride = padded(layer.problem.columns);
        let mut sums = self.room(PANEL);
        let mut found = vec![0.0; self.rows.len()];
        for (p, panel) in layer.curvature(self.rows.start).panels.iter().enumerate() {
            let at = p * PANEL;
            sums.fill(0.0);
            add_product(x, stride, at, panel, &mut sums, PANEL);
            sums.iter_mut().for_each(|sum| *sum *= 2.0);
            // The diagonal block starts where it does in each row.
            add_product(
                &x[at..],
                stride,
                PANEL,
                &panel[at * PANEL..],
                &mut sums,
                PANEL,
            );
            for (r, (found, sums)) in found.iter_mut().zip(sums.chunks_exact(PANEL)).enumerate() {
                *found += dot(&x[r * stride + at..][..PANEL], sums);
            }
        }
        found
    }
}
