//! The twin: matrices written out, one row after the other, everything worked out anew each time.

use crate::{
    LayerwiseAlgorithm, LayerwiseOptions, LayerwiseProblem, Precision, ValueHistogram, Weights,
};

type Matrix = Vec<Vec<f64>>;

/// H of a row, damped, in the layer's order.
pub(super) fn damped(problem: &LayerwiseProblem<'_>, row: usize, damping: f64) -> Matrix {
    let n = problem.columns;
    let rows = problem.weights.len() / n;
    let h = problem.moments[row / rows.div_ceil(problem.moments.len())];
    let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n as f64;
    let mean = if mean > 0.0 { mean } else { 1.0 };
    let entry = |i: usize, j: usize| {
        let x = f64::from(h[i * n + j]);
        if i == j {
            x.max(1e-6 * mean) + damping * mean
        } else {
            x
        }
    };
    (0..n)
        .map(|i| (0..n).map(|j| entry(i, j)).collect())
        .collect()
}

pub(super) fn energy(h: &Matrix, e: &[f64]) -> f64 {
    let row =
        |(line, x): (&Vec<f64>, &f64)| x * line.iter().zip(e).map(|(a, b)| a * b).sum::<f64>();
    h.iter().zip(e).map(row).sum()
}

/// Solves a symmetric system by elimination.
pub(super) fn solve(mut a: Matrix, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in i + 1..n {
            let factor = a[j][i] / a[i][i];
            let (above, below) = a.split_at_mut(j);
            let pairs = below[0].iter_mut().zip(&above[i]);
            pairs.skip(i).for_each(|(x, y)| *x -= factor * y);
            b[j] -= factor * b[i];
        }
    }
    for i in (0..n).rev() {
        for j in i + 1..n {
            b[i] -= a[i][j] * b[j];
        }
        b[i] /= a[i][i];
    }
    b
}

/// Upper triangular U with UᵀU = H⁻¹.
fn inverse_factor(h: &Matrix) -> Matrix {
    let n = h.len();
    let unit = |i: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    let mut inverse: Matrix = (0..n).map(|i| solve(h.clone(), unit(i))).collect();
    let mut u = vec![vec![0.0; n]; n];
    for i in 0..n {
        let root = inverse[i][i].sqrt();
        for j in i..n {
            u[i][j] = inverse[i][j] / root;
        }
        for a in i + 1..n {
            for b in i + 1..n {
                inverse[a][b] -= u[i][a] * u[i][b];
            }
        }
    }
    u
}

fn nearest(table: &[f32], x: f64) -> usize {
    let distance = |c: usize| (f64::from(table[c]) - x).abs();
    (0..table.len()).fold(0, |best, c| {
        if distance(c) < distance(best) {
            c
        } else {
            best
        }
    })
}

struct Row {
    w: Vec<f64>,
    h: Matrix,
    order: Vec<usize>,
    scale: f64,
    codes: Vec<usize>,
}

impl Row {
    fn errors(&self, table: &[f32]) -> Vec<f64> {
        let pairs = self.codes.iter().zip(&self.w);
        pairs
            .map(|(&c, w)| self.scale * f64::from(table[c]) - w)
            .collect()
    }

    fn energy(&self, table: &[f32]) -> f64 {
        energy(&self.h, &self.errors(table))
    }

    /// GPTQ as it is written down.
    fn feed_back(&mut self, table: &[f32]) {
        let before = self.energy(table);
        let old = self.codes.clone();
        let at = |i: usize| self.order[i];
        let n = self.w.len();
        let ordered: Matrix = (0..n)
            .map(|i| (0..n).map(|j| self.h[at(i)][at(j)]).collect())
            .collect();
        let u = inverse_factor(&ordered);
        let mut w: Vec<f64> = (0..n).map(|i| self.w[at(i)]).collect();
        for j in 0..n {
            let code = nearest(table, w[j] / self.scale);
            self.codes[self.order[j]] = code;
            let error = (w[j] - self.scale * f64::from(table[code])) / u[j][j];
            for i in j + 1..n {
                w[i] -= error * u[j][i];
            }
        }
        if self.energy(table) >= before {
            self.codes = old;
        }
    }

    fn gradient(&self, table: &[f32], j: usize) -> f64 {
        self.h[j]
            .iter()
            .zip(self.errors(table))
            .map(|(a, b)| a * b)
            .sum()
    }

    fn sweep(&mut self, table: &[f32]) {
        for j in self.order.clone() {
            let value = f64::from(table[self.codes[j]]);
            let target = value - self.gradient(table, j) / (self.h[j][j] * self.scale);
            let (before, old) = (self.energy(table), self.codes[j]);
            self.codes[j] = nearest(table, target);
            if self.energy(table) >= before {
                self.codes[j] = old;
            }
        }
    }

    /// PᵀHP, PᵀHe.
    fn moments(&self, table: &[f32]) -> (Matrix, Vec<f64>) {
        let k = table.len();
        let (mut a, mut z) = (vec![vec![0.0; k]; k], vec![0.0; k]);
        for (i, &c) in self.codes.iter().enumerate() {
            z[c] += self.gradient(table, i);
            for (j, &d) in self.codes.iter().enumerate() {
                a[c][d] += self.h[i][j];
            }
        }
        (a, z)
    }
}

/// Tables in a row's place, and what they cost.
fn best_table(rows: &mut [Row], table: &mut [f32], scales: bool) {
    let k = table.len();
    let (mut a, mut right) = (vec![vec![0.0; k]; k], vec![0.0; k]);
    for row in rows.iter_mut() {
        if scales {
            let unit = Row {
                scale: 1.0,
                codes: row.codes.clone(),
                order: Vec::new(),
                h: row.h.clone(),
                w: row.w.clone(),
            };
            let q: Vec<f64> = row.codes.iter().map(|&c| f64::from(table[c])).collect();
            let second = energy(&unit.h, &q);
            let first: f64 = (0..q.len())
                .map(|i| {
                    q[i] * unit.h[i]
                        .iter()
                        .zip(&row.w)
                        .map(|(a, b)| a * b)
                        .sum::<f64>()
                })
                .sum();
            let before = (row.energy(table), row.scale);
            let scale = f64::from((first / second) as f32);
            if scale > 0.0 && scale.is_finite() {
                row.scale = scale;
                if row.energy(table) >= before.0 {
                    row.scale = before.1;
                }
            }
        }
        let (own, z) = row.moments(table);
        for i in 0..k {
            right[i] -= row.scale * z[i];
            for j in 0..k {
                a[i][j] += row.scale * row.scale * own[i][j];
            }
        }
    }
    let mean = (0..k).map(|i| a[i][i]).sum::<f64>() / k as f64;
    (0..k).for_each(|i| a[i][i] += 1e-6 * mean);
    let step = solve(a, right);
    let new: Vec<f32> = table
        .iter()
        .zip(&step)
        .map(|(&c, d)| (f64::from(c) + d) as f32)
        .collect();
    let cost = |table: &[f32]| rows.iter().map(|row| row.energy(table)).sum::<f64>();
    if cost(&new) < cost(table) {
        table.copy_from_slice(&new);
    }
}

fn reseat(rows: &[Row], table: &mut [f32]) {
    for c in 0..table.len() {
        if rows.iter().any(|row| row.codes.contains(&c)) {
            continue;
        }
        let mut most = (0.0, table[c]);
        for row in rows {
            for &i in &row.order {
                let x = row.w[i] / row.scale;
                let error = row.h[i][i]
                    * (row.w[i] - row.scale * f64::from(table[nearest(table, x)])).powi(2);
                if error > most.0 {
                    most = (error, x as f32);
                }
            }
        }
        table[c] = most.1;
    }
}

/// The objective, stage by stage.
pub(super) fn layerwise(
    problem: &LayerwiseProblem<'_>,
    options: &LayerwiseOptions<'_>,
) -> Vec<f64> {
    let n = problem.columns;
    let rows = problem.weights.len() / n;
    let mut total = Vec::new();
    for first in (0..rows).step_by(options.rows_per_table.min(rows)) {
        let range = first..(first + options.rows_per_table.min(rows)).min(rows);
        let stages = one_table(problem, options, range);
        total.resize(stages.len(), 0.0);
        total.iter_mut().zip(stages).for_each(|(sum, x)| *sum += x);
    }
    total
}

fn one_table(
    problem: &LayerwiseProblem<'_>,
    options: &LayerwiseOptions<'_>,
    range: std::ops::Range<usize>,
) -> Vec<f64> {
    let n = problem.columns;
    let (mut values, mut weights): (Vec<f32>, Vec<f32>) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for row in range {
        let w: Vec<f64> = problem.weights[row * n..(row + 1) * n]
            .iter()
            .map(|&w| f64::from(w))
            .collect();
        let h = damped(problem, row, options.damping);
        let mean = w.iter().sum::<f64>() / n as f64;
        let deviation =
            (w.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / n as f64).sqrt() as f32;
        let scale = if options.row_scale {
            f64::from(deviation)
        } else {
            1.0
        };
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| h[b][b].total_cmp(&h[a][a]));
        for i in 0..n {
            values.push((w[i] / scale) as f32);
            let weight = problem
                .start_weights
                .map_or(h[i][i], |f| f64::from(f[row * n + i]));
            weights.push((weight * scale * scale) as f32);
        }
        rows.push(Row {
            w,
            h,
            order,
            scale,
            codes: vec![0; n],
        });
    }
    let histogram = ValueHistogram::new(&values, Weights::Each(&weights), Precision::Exact);
    let mut table: Vec<f32> = histogram
        .cluster(1 << options.nbits)
        .centroids
        .iter()
        .map(|&c| c as f32)
        .collect();
    table.resize(1 << options.nbits, *table.last().unwrap());
    let mut stages = Vec::new();
    let mut note =
        |rows: &[Row], table: &[f32]| stages.push(rows.iter().map(|row| row.energy(table)).sum());
    for row in &mut rows {
        row.codes = row
            .w
            .iter()
            .map(|w| nearest(&table, w / row.scale))
            .collect();
    }
    note(&rows, &table);
    rows.iter_mut().for_each(|row| row.feed_back(&table));
    note(&rows, &table);
    if options.algorithm == LayerwiseAlgorithm::Lnq {
        for _ in 0..options.rounds {
            best_table(&mut rows, &mut table, options.row_scale);
            reseat(&rows, &mut table);
            for row in &mut rows {
                (0..options.sweeps).for_each(|_| row.sweep(&table));
            }
            note(&rows, &table);
        }
    }
    best_table(&mut rows, &mut table, options.row_scale);
    note(&rows, &table);
    stages
}
