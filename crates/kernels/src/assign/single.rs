//! Nearest entries for slices of 32-bit floats.
//!
//! Up to 16 entries, each value is compared with every border and the comparisons are added up. Beyond, a grid of cells
//! tells how many borders lie in the cells before the value's own, and what is left are comparisons with the few borders in its cell.
//! The cells are equal parts of the range of the borders, or, for palettes of heavy tails, the leading bits of a float. Either is
//! monotone, so a border in an earlier cell is below the value and none is missed.
//!
//! Cost: 0.4 to 1.5 ns a value. Wrong choice: where many borders share a cell of both grids (tight clumps), or too few values make up
//! for the second grid, we search the borders by bisection.

use rayon::prelude::*;

use super::Borders;
use crate::scalar::radix_sort::key;
use crate::simd::{dispatch, nearest_whole};

/// Values handled by one task; also the unit in which errors are added up.
const CHUNK: usize = 1 << 17;
/// Values handled together.
const BLOCK: usize = 64;
/// Cells of a grid of equal cells.
const CELLS: usize = 4096;
/// Leading bits that make a cell of the other grid: sign, exponent and seven more.
const LEADING: u32 = 16;
/// Fewer values than this are not worth that grid.
const FEW: usize = 1 << 15;
/// Borders in one cell that are still compared one after the other.
const CROWD: usize = 3;

/// How indices are found.
enum Search {
    Compare,
    Equal(EqualCells, Grid),
    Leading(Grid),
    Bisect,
}

impl Search {
    /// For ascending borders and so many values.
    fn new(borders: &[f32], values: usize) -> Self {
        if borders.len() < 16 {
            return Search::Compare;
        }
        let equal = EqualCells::new(borders)
            .and_then(|cells| Some((cells, Grid::new(borders, CELLS, |x| cells.cell(x))?)));
        if let Some((cells, grid)) = equal {
            return Search::Equal(cells, grid);
        }
        let leading = (values >= FEW).then(|| Grid::new(borders, 1 << LEADING, leading));
        leading.flatten().map_or(Search::Bisect, Search::Leading)
    }
}

/// Borders by cells.
struct Grid {
    /// Borders in the cells before each.
    before: Vec<u8>,
    /// Most borders in one cell.
    crowd: usize,
}

impl Grid {
    /// `None` if too many borders share a cell.
    fn new(borders: &[f32], cells: usize, cell: impl Fn(f32) -> usize) -> Option<Self> {
        let mut inside = vec![0_u8; cells];
        // no value is above an infinite border
        for &border in borders.iter().filter(|&&border| border < f32::INFINITY) {
            // a border at -0 is one at +0: neither zero is above it
            inside[cell(border + 0.0)] += 1;
        }
        let crowd = usize::from(inside.iter().copied().max().unwrap_or(0));
        let mut before = 0;
        for slot in &mut inside {
            before += std::mem::replace(slot, before);
        }
        (crowd <= CROWD).then_some(Grid {
            before: inside,
            crowd,
        })
    }
}

/// Equal parts of a range, and what lies beyond it.
#[derive(Clone, Copy)]
struct EqualCells {
    origin: f32,
    scale: f32,
}

impl EqualCells {
    /// Of the range of the borders that are inside of what floats can be.
    fn new(borders: &[f32]) -> Option<Self> {
        let mut inner = borders
            .iter()
            .copied()
            .filter(|b| b.is_finite() && b.abs() < f32::MAX);
        let first = inner.next()?;
        let scale = (CELLS - 2) as f32 / (inner.next_back()? - first);
        (scale.is_finite() && scale > 0.0).then_some(EqualCells {
            origin: first,
            scale,
        })
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

/// Rises with `x`.
#[inline(always)]
fn leading(x: f32) -> usize {
    (key(x) >> (32 - LEADING)) as usize
}

/// Fills `indices` and returns the squared error of the finite values; `finite` is whether all are.
pub(crate) fn assign(borders: &Borders, values: &[f32], finite: bool, indices: &mut [u8]) -> f64 {
    let search = Search::new(&borders.borders, values.len());
    let run = |values: &[f32], indices: &mut [u8]| run(borders, &search, values, finite, indices);
    if values.len() <= CHUNK {
        return run(values, indices);
    }
    let chunks = values.par_chunks(CHUNK).zip(indices.par_chunks_mut(CHUNK));
    let errors: Vec<f64> = chunks
        .map(|(values, indices)| run(values, indices))
        .collect();
    errors.iter().sum()
}

/// Replaces each value by its entry and returns the same error.
///
/// What is found of a chunk is used while the chunk is in a cache.
pub(crate) fn replace(borders: &Borders, values: &mut [f32]) -> f64 {
    let search = Search::new(&borders.borders, values.len());
    let run = |indices: &mut Vec<u8>, values: &mut [f32]| {
        indices.resize(values.len(), 0);
        let finite = values.iter().fold(true, |all, x| all & x.is_finite());
        let error = run(borders, &search, values, finite, indices);
        borders.look_up(indices, values);
        error
    };
    if values.len() <= CHUNK {
        return run(&mut Vec::new(), values);
    }
    let chunks = values.par_chunks_mut(CHUNK);
    let errors: Vec<f64> = chunks.map_init(Vec::new, run).collect();
    errors.iter().sum()
}

fn run(
    borders: &Borders,
    search: &Search,
    values: &[f32],
    finite: bool,
    indices: &mut [u8],
) -> f64 {
    if finite {
        clean(borders, search, values, indices)
    } else {
        ragged(borders, values, indices)
    }
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
            Search::Equal(cells, grid) => look_up(grid, |x| cells.cell(x), &walls, &x, &mut at),
            Search::Leading(grid) => look_up(grid, leading, &walls, &x, &mut at),
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
fn look_up(
    grid: &Grid,
    cell: impl Fn(f32) -> usize,
    walls: &Walls,
    x: &[f32; BLOCK],
    at: &mut [u8; BLOCK],
) {
    for (at, &x) in at.iter_mut().zip(x) {
        let mut index = usize::from(grid.before[cell(x)]);
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
