//! Which clusters a value has to be compared with, when values are scalars and clusters are many.
//!
//! The softmax of a cluster whose distance is greater than the least by τ·ln(1/ε) is below ε. With ε the floor, or what rounding does
//! to a sum of k terms if that is less, such a cluster's attention is the floor, whatever it is exactly, and adds nothing to the sum of the
//! row. So of ascending centroids only a run about the value is visited. What the others add is the floor times sums over
//! values or clusters: those come from prefix sums, in one step for a tile.
//!
//! The values of a chunk are sorted by cells first, so that a tile has one narrow run.
//!
//! Cost: some 4 ns a value for sorting and moving there and back. Wrong choice: when runs are nearly as long as the palette; `new` looks.

use std::ops::Range;

use super::chunk::{CHUNK, TILE};
use super::real::Real;

/// Visits that must be saved for each value before sorting pays.
const SAVED: f64 = 16.0;
/// Cells that values are sorted into.
const CELLS: usize = 512;

/// The reach of attention.
#[derive(Clone, Debug)]
pub(super) struct Windows<R> {
    /// How much greater than the least a squared distance may be.
    reach: R,
    origin: R,
    /// Cells for each unit.
    cells: R,
}

impl<R: Real> Windows<R> {
    /// Windows for ascending scalar centroids and a number of values, if they pay. `lowered` is what a distance may be lowered by.
    pub(super) fn new(
        centroids: &[R],
        vectors: usize,
        temperature: f64,
        floor: f64,
        lowered: f64,
    ) -> Option<Self> {
        let (k, values) = (centroids.len(), centroids);
        if (k as f64) <= SAVED || vectors < 4 * TILE {
            return None;
        }
        let rounding = f64::exp2(-f64::from(R::DIGITS)) / k as f64;
        let floor = match floor {
            0.0 => rounding,
            floor => floor.min(rounding),
        };
        let reach = temperature * -floor.ln() + lowered;
        let (first, last) = (values[0].to_f64(), values[k - 1].to_f64());
        let cells = CELLS as f64 / (last - first);
        if !cells.is_finite() || !reach.is_finite() {
            return None;
        }
        let windows = Windows {
            reach: R::from_f64(reach * 1.01),
            origin: values[0],
            cells: R::from_f64(cells),
        };
        let visited: usize = values
            .iter()
            .map(|&c| windows.range(values, c, c).len())
            .sum();
        (k as f64 - visited as f64 / k as f64 > SAVED).then_some(windows)
    }

    /// The clusters that values from `low` to `high` have to be compared with.
    pub(super) fn range(&self, centroids: &[R], low: R, high: R) -> Range<usize> {
        let above = centroids.partition_point(|&c| c < low);
        let far = |j: usize| {
            let d = (centroids[j] - low).to_f64();
            d.abs()
        };
        let near = match above {
            0 => far(0),
            j if j == centroids.len() => far(j - 1),
            j => far(j).min(far(j - 1)),
        };
        let near = near + (high - low).to_f64();
        let radius = R::from_f64((near * near + self.reach.to_f64()).sqrt());
        let start = centroids.partition_point(|&c| c < low - radius);
        let end = centroids.partition_point(|&c| c <= high + radius);
        start..end.max(start + 1).min(centroids.len())
    }

    /// The order in which the values of a chunk rise, cell by cell.
    pub(super) fn sort(&self, values: &[R], order: &mut Vec<u16>) {
        let mut starts = [0_u16; CELLS + 1];
        let mut cells = [0_u16; CHUNK];
        let last = R::from_f64((CELLS - 1) as f64);
        for (cell, &x) in cells.iter_mut().zip(values) {
            let at = (x - self.origin) * self.cells;
            let at = if at > R::ZERO { at } else { R::ZERO };
            let at = if at < last { at } else { last };
            *cell = at.to_f64() as u16;
        }
        for &cell in &cells[..values.len()] {
            starts[usize::from(cell) + 1] += 1;
        }
        for i in 0..CELLS {
            starts[i + 1] += starts[i];
        }
        order.clear();
        order.resize(values.len(), 0);
        for (i, &cell) in cells[..values.len()].iter().enumerate() {
            let place = &mut starts[usize::from(cell)];
            order[usize::from(*place)] = i as u16;
            *place += 1;
        }
    }
}

/// Sums over the tiles of what is inside their runs, for each cluster: differences from one cluster to the next.
#[derive(Debug)]
pub(super) struct Inside {
    differences: Vec<f64>,
    total: f64,
}

impl Inside {
    pub(super) fn new(k: usize) -> Self {
        Inside {
            differences: vec![0.0; k + 1],
            total: 0.0,
        }
    }

    /// Counts a tile whose values come to `sum`.
    pub(super) fn add(&mut self, range: &Range<usize>, sum: f64) {
        self.differences[range.start] += sum;
        self.differences[range.end] -= sum;
        self.total += sum;
    }

    /// Adds `floor` times what was outside of each cluster's runs, and begins again.
    pub(super) fn flush(&mut self, floor: f64, sums: &mut [f64]) {
        let mut inside = 0.0;
        for (sum, difference) in sums.iter_mut().zip(&mut self.differences) {
            inside += *difference;
            *sum += floor * (self.total - inside);
        }
        self.differences.fill(0.0);
        self.total = 0.0;
    }
}

/// Sums of what stands before each cluster, to tell the sum outside of a run.
pub(super) fn prefixes<R: Real>(numbers: &[R]) -> Vec<f64> {
    let mut sums = vec![0.0; numbers.len() + 1];
    for (i, number) in numbers.iter().enumerate() {
        sums[i + 1] = sums[i] + number.to_f64();
    }
    sums
}

/// The sum outside of a run.
pub(super) fn outside(prefixes: &[f64], range: &Range<usize>) -> f64 {
    let all = prefixes[prefixes.len() - 1];
    prefixes[range.start] + (all - prefixes[range.end])
}
