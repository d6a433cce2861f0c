//! The best tables for given indices, and the best scales for given tables: linear least squares.
//!
//! With P the columns by entries matrix of zeros and ones that the indices are, and e = s P c − w, a table c has the gradient z = Σ s Pᵀ H e and the second
//! derivative A = Σ s² Pᵀ H P over its rows; its best change solves (A + εI) d = −z. A row's own scale has c·z and c·Ac instead.
//! With H = R Rᵀ that is A = BᵀB and z = Bᵀ (Rᵀe), where B = Rᵀ P are sums of R's rows by their codes: R is triangular, so n²/2 additions a row, and
//! n k²/2 multiplications. The pass with feedback knows Rᵀe, and descent even H e, and so z. Where k² is more than n, bucket sums M = Pᵀ H are made
//! instead, n² additions, and z = M e and A = M P. Either is done eight columns at a time, copied to where they lie close together.

use std::ops::Range;

use super::cholesky::solve;
use super::product::{LANES, PANEL, add_line, add_squares, add_sums, dot, padded};
use super::tile::{Layer, Product, Tables, Tile};

/// ε as a part of the mean of A's diagonal.
const RIDGE: f64 = 1e-6;
/// How often ε is raised where A with it is not positive definite.
const TRIES: i32 = 4;

/// A and z.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    a: Vec<f64>,
    z: Vec<f64>,
}

impl Moments {
    pub(super) fn new(k: usize) -> Self {
        Moments {
            a: vec![0.0; k * k],
            z: vec![0.0; k],
        }
    }

    pub(super) fn add(&mut self, other: &Moments, scale: f64) {
        add_line(scale * scale, &other.a, &mut self.a);
        add_line(scale, &other.z, &mut self.z);
    }

    /// A times a vector.
    fn times(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.a.chunks_exact(x.len());
        rows.map(|row| dot(row, x)).collect()
    }

    /// What a change adds to the objective.
    fn change(&self, d: &[f64]) -> f64 {
        2.0 * dot(d, &self.z) + dot(d, &self.times(d))
    }

    /// Moves a table to the optimum, in 32 bits, and returns what that adds to the objective: nothing, or less.
    pub(super) fn improve(&self, table: &mut [f32]) -> f64 {
        let k = table.len();
        let mean = (0..k).map(|i| self.a[i * k + i]).sum::<f64>() / k as f64;
        let right: Vec<f64> = self.z.iter().map(|z| -z).collect();
        let attempt = |power: i32| {
            let ridge = RIDGE * mean * 100_f64.powi(power);
            let mut matrix = self.a.clone();
            (0..k).for_each(|i| matrix[i * k + i] += ridge);
            solve(&mut matrix, &right)
        };
        let Some(step) = (0..TRIES).find_map(attempt) else {
            return 0.0;
        };
        let moved = |(&entry, step): (&f32, &f64)| (f64::from(entry) + step) as f32;
        let new: Vec<f32> = table.iter().zip(&step).map(moved).collect();
        let old = table.iter().map(|&entry| f64::from(entry));
        let d: Vec<f64> = new
            .iter()
            .zip(old)
            .map(|(&new, old)| f64::from(new) - old)
            .collect();
        let change = self.change(&d);
        if change < 0.0 && change.is_finite() {
            table.copy_from_slice(&new);
            change
        } else {
            0.0
        }
    }

    /// Moves the scale of a row to the optimum, in 32 bits, for what it multiplies; returns what that adds to the objective.
    fn improve_scale(&mut self, table: &[f64], scale: &mut f64) -> f64 {
        let product = self.times(table);
        let (gradient, second) = (dot(table, &self.z), dot(table, &product));
        let new = f64::from((*scale - gradient / second) as f32);
        let d = new - *scale;
        let change = 2.0 * d * gradient + d * d * second;
        if !(new > 0.0 && new.is_finite() && change < 0.0) {
            return 0.0;
        }
        *scale = new;
        add_line(d, &product, &mut self.z);
        change
    }
}

impl Tile {
    /// Improves the scales of rows, if they have any, and adds what is to be known of the rows to their tables' moments. Needs
    /// energies that are up to date, and the product that belongs to them.
    pub(super) fn gather(
        &mut self,
        layer: &Layer<'_>,
        tables: &Tables,
        product: &Product,
        moments: &mut [Moments],
    ) {
        let k = tables.k;
        let lines: Vec<Lines> = (0..self.rows.len())
            .map(|r| Lines::new(self.row_codes(layer, r), k))
            .collect();
        let own = if k * k <= layer.problem.columns {
            self.by_factor(layer, k, &lines, product)
        } else {
            self.by_moments(layer, tables, &lines)
        };
        for (r, mut own) in own.into_iter().enumerate() {
            let at = tables.of(self.rows.start + r);
            if layer.options.row_scale {
                let table: Vec<f64> = tables.table(at).iter().map(|&c| f64::from(c)).collect();
                self.energies[r] += own.improve_scale(&table, &mut self.scales[r]);
            }
            moments[at].add(&own, self.scales[r]);
        }
    }

    /// A and z of each row, from sums of rows of R.
    fn by_factor(
        &self,
        layer: &Layer<'_>,
        k: usize,
        lines: &[Lines],
        product: &Product,
    ) -> Vec<Moments> {
        let stride = padded(layer.problem.columns);
        let pairs = k * (k + 1) / 2;
        let mut a = vec![[0.0; LANES]; self.rows.len() * pairs];
        let mut z = vec![[0.0; LANES]; self.rows.len() * k];
        let mut strip = vec![[0.0; LANES]; stride];
        let mut sums = vec![[0.0; LANES]; k];
        for (p, panel) in layer.curvature(self.rows.start).factor.iter().enumerate() {
            let depth = (p + 1) * PANEL;
            let codes: Vec<_> = lines.iter().map(|lines| lines.before(depth)).collect();
            for from in (0..PANEL).step_by(LANES) {
                for (line, row) in strip.iter_mut().zip(panel.chunks_exact(PANEL)) {
                    line.copy_from_slice(&row[from..from + LANES]);
                }
                for (r, lines) in lines.iter().enumerate() {
                    let root = match product {
                        Product::Root(root) => &root[r * stride + p * PANEL + from..][..LANES],
                        Product::Whole(_) => &[0.0; LANES][..],
                    };
                    add_squares(
                        &strip,
                        &lines.lines,
                        &codes[r],
                        root,
                        &mut sums,
                        &mut a[r * pairs..(r + 1) * pairs],
                        &mut z[r * k..(r + 1) * k],
                    );
                }
            }
        }
        let whole = |lanes: &[f64; LANES]| dot(lanes, &[1.0; LANES]);
        let row = |r: usize| {
            let mut own = Moments::new(k);
            let mut triangle = a[r * pairs..(r + 1) * pairs].iter();
            for i in 0..k {
                for (j, lanes) in (0..=i).zip(&mut triangle) {
                    own.a[i * k + j] = whole(lanes);
                    own.a[j * k + i] = own.a[i * k + j];
                }
            }
            match product {
                Product::Root(_) => own.z = z[r * k..(r + 1) * k].iter().map(whole).collect(),
                Product::Whole(gradient) => {
                    let codes = self.row_codes(layer, r).iter();
                    for (&code, gradient) in codes.zip(&gradient[r * stride..]) {
                        own.z[usize::from(code)] += gradient;
                    }
                }
            }
            own
        };
        (0..self.rows.len()).map(row).collect()
    }

    /// A and z of each row, from sums of rows of H.
    fn by_moments(&self, layer: &Layer<'_>, tables: &Tables, lines: &[Lines]) -> Vec<Moments> {
        let errors = self.errors(layer, tables);
        let stride = padded(layer.problem.columns);
        let k = tables.k;
        let mut own = vec![Moments::new(k); self.rows.len()];
        // z of each row, in lanes.
        let mut lanes = vec![[0.0; LANES]; self.rows.len() * k];
        let panels = &layer.curvature(self.rows.start).panels;
        let mut strip = vec![[0.0; LANES]; stride];
        for at in (0..layer.problem.columns).step_by(LANES) {
            // H is symmetric: eight of its rows, which lie together in each panel.
            for (strip, panel) in strip.chunks_exact_mut(PANEL).zip(panels) {
                let rows = panel[at * PANEL..].chunks_exact(PANEL).take(LANES);
                for (lane, row) in rows.enumerate() {
                    for (line, x) in strip.iter_mut().zip(row) {
                        line[lane] = *x;
                    }
                }
            }
            for (r, own) in own.iter_mut().enumerate() {
                let errors = &errors[r * stride + at..][..LANES];
                let Lines { lines, starts } = &lines[r];
                let codes = &self.row_codes(layer, r)[at..];
                let z = &mut lanes[r * k..(r + 1) * k];
                add_sums(&strip, lines, starts, codes, errors, &mut own.a, z);
            }
        }
        for (own, lanes) in own.iter_mut().zip(lanes.chunks_exact(k)) {
            for (z, lanes) in own.z.iter_mut().zip(lanes) {
                *z = dot(lanes, &[1.0; LANES]);
            }
        }
        own
    }

    fn row_codes(&self, layer: &Layer<'_>, r: usize) -> &[u8] {
        let columns = layer.problem.columns;
        &self.codes[r * columns..(r + 1) * columns]
    }
}

/// The columns of a row, by their codes.
struct Lines {
    lines: Vec<u32>,
    /// Where those of each code begin, and where the last end.
    starts: Vec<usize>,
}

impl Lines {
    fn new(codes: &[u8], k: usize) -> Self {
        let mut starts = vec![0; k + 1];
        for &code in codes {
            starts[usize::from(code) + 1] += 1;
        }
        for code in 0..k {
            starts[code + 1] += starts[code];
        }
        let mut next = starts.clone();
        let mut lines = vec![0; codes.len()];
        for (line, &code) in codes.iter().enumerate() {
            let at = &mut next[usize::from(code)];
            lines[*at] = line as u32;
            *at += 1;
        }
        Lines { lines, starts }
    }

    /// Where those of each code lie that are before `line`.
    fn before(&self, line: usize) -> Vec<Range<usize>> {
        let codes = self.starts.windows(2);
        codes
            .map(|code| {
                let lines = &self.lines[code[0]..code[1]];
                code[0]..code[0] + lines.partition_point(|&at| (at as usize) < line)
            })
            .collect()
    }
}
