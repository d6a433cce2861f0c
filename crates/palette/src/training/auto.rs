//! What is found where a number is not given: the temperature of each group, and two thresholds.
//!
//! # Idea
//! A temperature is a squared distance, so that one number means another thing for weights of every scale: where squared distances
//! between neighbouring centroids are far below it, attention is nearly uniform, and centroids pile up. By deterministic annealing two
//! centroids of a cell fall into one once τ is above twice the variance of the cell that both have together, which is 8 times the mean
//! squared error for values that are even within it, and some 3 times for heavy tails. [`SHARE`] of the error keeps well below. With vectors it is the variance along one direction
//! that counts: the error of an element, not of a vector.
//!
//! Source: Rose, Deterministic annealing for clustering, compression, classification, regression, and related optimization problems,
//! Proceedings of the IEEE 86, 1998.

use palettizer_kernels::{Real, SoftGroup, soft_nearest};
use rayon::prelude::*;

use super::{Dkm, DkmElement, DkmMode, DkmSpec};
use crate::Refusal;
use crate::encode::table::refuse_non_finite;

/// τ for each unit of mean squared error.
const SHARE: f64 = 0.5;
/// τ of a group that has one value alone: coremltools' own, for there is nothing to find it by.
const NO_SPREAD: f64 = 1e-4;
/// Where τ may lie, so that its reciprocal is a single, too.
const RANGE: (f64, f64) = (1e-37, 1e37);
/// An error below this share of the energy is what rounding to singles leaves.
const ROUNDING: f64 = 1.0 / (1_u64 << 48) as f64;
/// The floor of attention that is not given. Attention has no unit, and sums of so little of all values move no centroid by as much as counts.
const FLOOR: f64 = 1e-9;

impl DkmSpec {
    /// Whether temperatures are to be found by the weight.
    pub fn finds_temperature(&self) -> bool {
        self.temperature.is_none() && matches!(self.mode, DkmMode::Dkm | DkmMode::Gsm)
    }

    /// The least attention, given or not.
    pub fn least_attention(&self) -> f64 {
        self.floor.unwrap_or(FLOOR)
    }

    /// What the squared distance to the first centroid is lowered by, given or not.
    ///
    /// Not given, it favours nothing: it is zero; and with a zero that is held the least there is, for exactly zero would
    /// keep all other weights off it.
    pub fn lowered_by(&self) -> f64 {
        let least = if self.enforce_zero {
            f64::from(f32::MIN_POSITIVE)
        } else {
            0.0
        };
        self.prune_threshold.unwrap_or(least)
    }

    /// Whether weights that are not zero keep off a zero that is held.
    fn keeps_zero(&self) -> bool {
        self.enforce_zero && self.lowered_by() == 0.0
    }
}

impl Dkm {
    /// The temperature of each group by its centroids at the start, to be found once and kept; none where the spec has one, or needs none.
    ///
    /// # Errors
    /// [`Refusal::Length`], and [`Refusal::NonFinite`] for values or centroids that are not.
    pub fn temperatures<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
    ) -> Result<Vec<f32>, Refusal> {
        if !self.spec.finds_temperature() {
            return Ok(Vec::new());
        }
        self.check_hard(values, centroids, scale)?;
        let groups = (0..self.groups()).into_par_iter();
        groups
            .map(|number| {
                let own = &centroids[number * self.table_len()..(number + 1) * self.table_len()];
                let spread = self.spread(&self.group(number, values, scale), own)?;
                let (least, most) = RANGE;
                Ok(spread.temperature().clamp(least, most) as f32)
            })
            .collect()
    }

    fn spread<E: DkmElement>(
        &self,
        group: &SoftGroup<'_, E>,
        centroids: &[E::Real],
    ) -> Result<Spread, Refusal> {
        let dim = group.dim;
        let keeps_zero = self.spec.keeps_zero();
        // Zeros have an entry of their own then, and the others have the rest.
        let free = if keeps_zero {
            &centroids[dim..]
        } else {
            centroids
        };
        let mut indices = vec![0; group.vectors()];
        soft_nearest(group, free, 0.0, &mut indices);
        let mut reals = vec![E::Real::ZERO; group.values.len()];
        E::widen(group.values, &mut reals);
        let non_finite = reals.iter().filter(|x| !x.to_f64().is_finite()).count();
        refuse_non_finite(non_finite, reals.len())?;
        let mut spread = Spread::new(free.len() / dim, dim);
        for (vector, &index) in indices.iter().enumerate() {
            let (block, col) = (vector / group.cols, vector % group.cols);
            let places = (0..dim).map(|e| (block * dim + e) * group.cols + col);
            if keeps_zero && places.clone().all(|at| reals[at] == E::Real::ZERO) {
                continue;
            }
            for (at, c) in places.zip(&free[usize::from(index) * dim..]) {
                let scale = group.scale.map_or(1.0, |s| s[at / group.cols].to_f64());
                spread.add(reals[at].to_f64() / scale, c.to_f64());
            }
        }
        Ok(spread)
    }
}

/// How far the values of a group are spread, and how far from their centroids.
struct Spread {
    clusters: usize,
    dim: usize,
    count: f64,
    sum: f64,
    energy: f64,
    squared_error: f64,
}

impl Spread {
    fn new(clusters: usize, dim: usize) -> Self {
        Spread {
            clusters,
            dim,
            count: 0.0,
            sum: 0.0,
            energy: 0.0,
            squared_error: 0.0,
        }
    }

    fn add(&mut self, x: f64, centroid: f64) {
        self.count += 1.0;
        self.sum += x;
        self.energy += x * x;
        self.squared_error += (x - centroid) * (x - centroid);
    }

    /// A share of the mean squared error. Where there is none, for values are no more than centroids, it is of the error that as many
    /// even cells would leave of the variance: values will move.
    fn temperature(&self) -> f64 {
        if self.squared_error > ROUNDING * self.energy {
            return SHARE * self.squared_error / self.count;
        }
        let variance = self.energy / self.count - (self.sum / self.count).powi(2);
        if variance > ROUNDING * self.energy / self.count {
            let cells = (self.clusters as f64).powf(2.0 / self.dim as f64);
            return SHARE * variance / cells;
        }
        NO_SPREAD
    }
}
