//! The second moments of a layer's inputs, made ready: damped, in descending order of the diagonal, in panels, with their factor.

use rayon::prelude::*;

use super::cholesky::factor;
use super::problem::LayerwiseError;
use super::product::{PANEL, padded};

/// A column whose diagonal is below this part of the mean is dead: no input of the samples reached it. It is raised to that.
const FLOOR: f64 = 1e-6;
/// The damping that is tried after none.
const FIRST: f64 = 1e-6;
/// How much the damping is raised each time.
const STEP: f64 = 10.0;
/// No more damping than this is tried; with it the diagonal alone decides.
const MOST: f64 = 100.0;

/// A damped H in its own order of columns, with zeros (and ones on the diagonal) up to a whole number of panels.
pub(super) struct Curvature {
    /// The column of the layer that comes at each place, the most important first.
    pub(super) order: Vec<u32>,
    /// All of H, panel by panel.
    pub(super) panels: Vec<Vec<f64>>,
    /// Its diagonal.
    pub(super) diagonal: Vec<f64>,
    /// R of H = R Rᵀ, upper triangular; a panel has the rows up to its last column.
    pub(super) factor: Vec<Vec<f64>>,
    /// The damping that it took.
    pub(super) damping: f64,
}

impl Curvature {
    /// From matrix number `matrix`, damped so that it is positive definite.
    pub(super) fn new(
        moments: &[f32],
        columns: usize,
        damping: f64,
        matrix: usize,
    ) -> Result<Self, LayerwiseError> {
        let (mut curvature, raw, mean) = Self::raw(moments, columns, damping);
        loop {
            curvature.damp(&raw, mean);
            curvature.factor = curvature.upper();
            if factor(&mut curvature.factor, &curvature.diagonal).is_some() {
                return Ok(curvature);
            }
            let damping = curvature.damping;
            if damping >= MOST {
                return Err(LayerwiseError::Indefinite { matrix, damping });
            }
            curvature.damping = (damping * STEP).clamp(FIRST, MOST);
        }
    }

    /// Without the factor, whatever becomes of it.
    pub(super) fn damped(moments: &[f32], columns: usize, damping: f64) -> Self {
        let (mut curvature, raw, mean) = Self::raw(moments, columns, damping);
        curvature.damp(&raw, mean);
        curvature
    }

    /// Not damped yet; also the diagonal as it is given, and its mean.
    fn raw(moments: &[f32], columns: usize, damping: f64) -> (Self, Vec<f64>, f64) {
        let raw: Vec<f64> = (0..columns)
            .map(|i| f64::from(moments[i * columns + i]).max(0.0))
            .collect();
        let mean = raw.iter().sum::<f64>() / columns as f64;
        // Where nothing counts, everything counts alike.
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let mut order: Vec<u32> = (0..columns as u32).collect();
        order.sort_by(|&a, &b| raw[b as usize].total_cmp(&raw[a as usize]));
        let curvature = Curvature {
            panels: panels(moments, columns, &order),
            order,
            diagonal: Vec::new(),
            factor: Vec::new(),
            damping,
        };
        (curvature, raw, mean)
    }

    /// Sets the diagonal.
    fn damp(&mut self, raw: &[f64], mean: f64) {
        self.diagonal.clear();
        for (i, &column) in self.order.iter().enumerate() {
            let damped = raw[column as usize].max(FLOOR * mean) + self.damping * mean;
            self.panels[i / PANEL][i * PANEL + i % PANEL] = damped;
            self.diagonal.push(damped);
        }
        for i in self.order.len()..padded(self.order.len()) {
            self.panels[i / PANEL][i * PANEL + i % PANEL] = 1.0;
        }
    }

    /// The rows of each panel up to its last column.
    fn upper(&self) -> Vec<Vec<f64>> {
        let upper = |(p, panel): (usize, &Vec<f64>)| panel[..(p + 1) * PANEL * PANEL].to_vec();
        self.panels.iter().enumerate().map(upper).collect()
    }
}

/// The upper triangle of a matrix as a whole one, in an order.
fn panels(moments: &[f32], columns: usize, order: &[u32]) -> Vec<Vec<f64>> {
    let rows = padded(columns);
    let panel = |p: usize| {
        let mut panel = vec![0.0; rows * PANEL];
        let to = order[p * PANEL..].iter().take(PANEL);
        for (line, &a) in panel.chunks_exact_mut(PANEL).zip(order) {
            for (slot, &b) in line.iter_mut().zip(to.clone()) {
                let at = a.min(b) as usize * columns + a.max(b) as usize;
                *slot = f64::from(moments[at]);
            }
        }
        panel
    };
    (0..rows / PANEL).into_par_iter().map(panel).collect()
}
