//! Cholesky factors in 64 bits: of large matrices from the last column to the first, in panels, and of small ones.
//!
//! The large one is H = R Rᵀ with an upper triangular R. Panels are finished one after the other, each then taken off all that are
//! before it, which is a matrix product. Cost: n³/6 multiplications. Source: any textbook; right-looking, blocked.

use rayon::prelude::*;

use super::product::{PANEL, add_line, add_product, dot};

/// A pivot that is no larger than this part of the diagonal has been lost to rounding.
const LOST: f64 = 1e-13;

/// Replaces the upper triangle of a matrix, whose diagonal is given (ones after its end), by its factor R. Panel `p` holds the rows up to its last column, with anything below
/// the diagonal, where zeros come out. `None` if the matrix is not positive definite.
pub(super) fn factor(panels: &mut [Vec<f64>], diagonal: &[f64]) -> Option<()> {
    for at in (0..panels.len()).rev() {
        let (before, rest) = panels.split_at_mut(at);
        let panel = &mut rest[0];
        let (above, corner) = panel.split_at_mut(at * PANEL * PANEL);
        let transposed = factor_corner(corner, &diagonal[at * PANEL..])?;
        above
            .par_chunks_mut(PANEL * PANEL)
            .for_each(|rows| solve_rows(&transposed, rows));
        let above = &*above;
        before.par_iter_mut().enumerate().for_each(|(at, earlier)| {
            let block = &above[at * PANEL * PANEL..(at + 1) * PANEL * PANEL];
            let negative = transposed_negative(block);
            add_product(above, PANEL, PANEL, &negative, earlier, PANEL);
        });
    }
    Some(())
}

/// The factor of a diagonal block, in place, and its transpose.
fn factor_corner(corner: &mut [f64], diagonal: &[f64]) -> Option<Vec<f64>> {
    // Symmetric, so that a column can be read as a row.
    let mut block = corner.to_vec();
    for i in 0..PANEL {
        for j in 0..i {
            block[i * PANEL + j] = block[j * PANEL + i];
        }
    }
    for c in (0..PANEL).rev() {
        let (rows, row) = block.split_at_mut(c * PANEL);
        let pivot = row[c];
        let whole = diagonal.get(c).copied().unwrap_or(1.0);
        if !(pivot > LOST * whole && pivot.is_finite()) {
            return None;
        }
        let root = pivot.sqrt();
        row[..c].iter_mut().for_each(|x| *x /= root);
        row[c] = root;
        row[c + 1..PANEL].fill(0.0);
        for (i, line) in rows.chunks_exact_mut(PANEL).enumerate() {
            add_line(-row[i], &row[..c], &mut line[..c]);
        }
    }
    for i in 0..PANEL {
        for j in 0..PANEL {
            corner[j * PANEL + i] = block[i * PANEL + j];
        }
    }
    Some(block)
}

/// Rows x of the factor, from x Rᵀ of the diagonal block.
fn solve_rows(transposed: &[f64], rows: &mut [f64]) {
    for row in rows.chunks_exact_mut(PANEL) {
        for c in (0..PANEL).rev() {
            let line = &transposed[c * PANEL..c * PANEL + c + 1];
            let x = row[c] / line[c];
            add_line(-x, &line[..c], &mut row[..c]);
            row[c] = x;
        }
    }
}

fn transposed_negative(block: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; block.len()];
    for (i, row) in block.chunks_exact(PANEL).enumerate() {
        for (j, x) in row.iter().enumerate() {
            out[j * PANEL + i] = -x;
        }
    }
    out
}

/// Solves `matrix · x = right` for a small symmetric matrix, which is overwritten; `None` if it is not positive definite.
pub(super) fn solve(matrix: &mut [f64], right: &[f64]) -> Option<Vec<f64>> {
    let k = right.len();
    let mut x = right.to_vec();
    for i in 0..k {
        let (before, row) = matrix.split_at_mut(i * k);
        for j in 0..i {
            let line = &before[j * k..(j + 1) * k];
            row[j] = (row[j] - dot(&row[..j], &line[..j])) / line[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if !(pivot > LOST * row[i] && pivot.is_finite()) {
            return None;
        }
        row[i] = pivot.sqrt();
        x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
    }
    for i in (0..k).rev() {
        let row = &matrix[i * k..(i + 1) * k];
        x[i] /= row[i];
        let at = x[i];
        add_line(-at, &row[..i], &mut x[..i]);
    }
    Some(x)
}
