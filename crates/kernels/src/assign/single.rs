//! Nearest entries for slices of 32-bit floats.
//!
//! Up to 16 entries, each value is compared with every border and the comparisons are added up. Beyond, a grid of equal
//! cells over the range of the borders tells how many borders lie in the cells before the value's own, and
//! what is left are comparisons with the few borders in its cell. The cell is a rounded product, but rounding is
//! monotone, so a border in an earlier cell is below the value and none is missed.
//!
//! Cost: 0.4 to 1.5 ns a value. Wrong choice: where many borders share a cell (palettes of heavy tails), we search
//! them by bisection.

use rayon::prelude::*;

use super::Borders;
use crate::simd::{dispatch, nearest_whole};

/// Values handled by one task; also the unit in which errors are added up.
const CHUNK: usize = 1 << 17;
/// Values handled together.
const BLOCK: usize = 64;
/// Cells of a grid.
const CELLS: usize = 4096;
/// Borders in one cell that are still compared one after the other.
const CROWD: usize = 3;

/// How indices are found.
enum Search {
    Compare,
    Grid(Grid),
    Bisect,
}

struct Grid {
    origin: f32,
    scale: f32,
    /// Borders in the cells before each.
    before: Vec<u8>,
    /// Most borders in one cell.
    crowd: usize,
}

impl Grid {
    fn new(borders: &[f32]) -> Option<Self> {
        let inner: Vec<f32> = borders
            .iter()
            .copied()
            .filter(|b| b.is_finite() && b.abs() < f32::MAX)
            .collect();
        let (first, last) = (*inner.first()?, *inner.last()?);
        let scale = (CELLS - 2) as f32 / (last - first);
        if !scale.is_finite() || scale <= 0.0 {
            return None;
        }
        let mut grid = Grid {
            origin: first,
            scale,
            before: vec![0; CELLS],
            crowd: 0,
        };
        let mut inside = vec![0_usize; CELLS];
        for &border in borders {
            inside[grid.cell(border)] += 1;
        }
        let mut before = 0;
        for (slot, inside) in grid.before.iter_mut().zip(&inside) {
            *slot = before as u8;
            before += inside;
        }
        grid.crowd = inside.into_iter().max().unwrap_or(0);
        (grid.crowd <= CROWD).then_some(grid)
    }

    /// Rises with `x`.
    #[inline(always)]
    fn cell(&self, x: f32) -> usize {
        let cell = (x - self.origin) * self.scale;
        let cell = if cell > 0.0 { cell } else { 0.0 };
        let cell = if cell < (CELLS - 1) as f32 {
            cell
        } else {
            (CELLS - 1) as f32
        };
        nearest_whole(cell) & (CELLS - 1)
    }
}

/// Fills `indices` and returns the squared error of the finite values.
pub(crate) fn assign(borders: &Borders, values: &[f32], finite: bool, indices: &mut [u8]) -> f64 {
    let search = if borders.borders.len() < 16 {
        Search::Compare
    } else {
        Grid::new(&borders.borders).map_or(Search::Bisect, Search::Grid)
    };
    let run = |values: &[f32], indices: &mut [u8]| {
        if finite {
            clean(borders, &search, values, indices)
        } else {
            ragged(borders, values, indices)
        }
    };
    if values.len() <= CHUNK {
        return run(values, indices);
    }
    let chunks = values.par_chunks(CHUNK).zip(indices.par_chunks_mut(CHUNK));
    let errors: Vec<f64> = chunks
        .map(|(values, indices)| run(values, indices))
        .collect();
    errors.iter().sum()
}

/// Some values are not finite.
fn ragged(borders: &Borders, values: &[f32], indices: &mut [u8]) -> f64 {
    let mut sums = [0.0; 8];
    for (i, (index, &x)) in indices.iter_mut().zip(values).enumerate() {
        *index = borders.index(x);
        sums[i % 8] += borders.error(x, *index);
    }
    total(sums)
}

fn total(sums: [f64; 8]) -> f64 {
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}

dispatch! {
    fn clean(borders: &Borders, search: &Search, values: &[f32], indices: &mut [u8]) -> f64 = clean_body
}

/// All values are finite.
#[inline(always)]
fn clean_body(borders: &Borders, search: &Search, values: &[f32], indices: &mut [u8]) -> f64 {
    let mut entries = [0.0_f32; 256];
    entries[..borders.lut.len()].copy_from_slice(&borders.lut);
    let mut walls: Walls = [f32::INFINITY; 256 + CROWD];
    walls[..borders.borders.len()].copy_from_slice(&borders.borders);
    let mut sums = [0.0; 8];
    for (values, indices) in values.chunks(BLOCK).zip(indices.chunks_mut(BLOCK)) {
        // Whole blocks are copied without a call.
        let x = <[f32; BLOCK]>::try_from(values).unwrap_or_else(|_| {
            let mut x = [0.0; BLOCK];
            x[..values.len()].copy_from_slice(values);
            x
        });
        let mut at = [0_u8; BLOCK];
        match search {
            Search::Compare => compare(&borders.borders, &x, &mut at),
            Search::Grid(grid) => look_up(grid, &walls, &x, &mut at),
            Search::Bisect => bisect(&walls, &x, &mut at),
        }
        let mut error = [0.0_f64; BLOCK];
        for ((error, &x), &at) in error.iter_mut().zip(&x).zip(&at) {
            let d = f64::from(x) - f64::from(entries[usize::from(at)]);
            *error = d * d;
        }
        for slot in &mut error[values.len()..] {
            *slot = 0.0;
        }
        for eight in error.chunks_exact(8) {
            for (sum, error) in sums.iter_mut().zip(eight) {
                *sum += error;
            }
        }
        match <&mut [u8; BLOCK]>::try_from(&mut *indices) {
            Ok(whole) => *whole = at,
            Err(_) => indices.copy_from_slice(&at[..indices.len()]),
        }
    }
    total(sums)
}

/// Borders with nothing but infinity after the last.
type Walls = [f32; 256 + CROWD];

/// By comparing with every border.
#[inline(always)]
fn compare(borders: &[f32], x: &[f32; BLOCK], at: &mut [u8; BLOCK]) {
    let mut above = [0_u32; BLOCK];
    for &border in borders {
        for (above, &x) in above.iter_mut().zip(x) {
            *above += u32::from(x > border);
        }
    }
    for (at, above) in at.iter_mut().zip(above) {
        *at = above as u8;
    }
}

/// By comparing with the borders in the cell of each value.
#[inline(always)]
fn look_up(grid: &Grid, walls: &Walls, x: &[f32; BLOCK], at: &mut [u8; BLOCK]) {
    for (at, &x) in at.iter_mut().zip(x) {
        let mut index = usize::from(grid.before[grid.cell(x)]);
        for _ in 0..grid.crowd {
            index += usize::from(x > walls[index]);
        }
        *at = index as u8;
    }
}

/// By bisection.
#[inline(always)]
fn bisect(walls: &Walls, x: &[f32; BLOCK], at: &mut [u8; BLOCK]) {
    for (at, &x) in at.iter_mut().zip(x) {
        let mut index = 0;
        for step in [128, 64, 32, 16, 8, 4, 2, 1] {
            index += if x > walls[index + step - 1] { step } else { 0 };
        }
        *at = index as u8;
    }
}
