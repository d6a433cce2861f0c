//! The soft weight, and the gradient through it.

use palettizer_kernels::{Real, soft_backward, soft_forward};
use rayon::prelude::*;

use super::{Dkm, DkmElement, DkmMode, round_centroids};
use crate::Refusal;
use crate::encode::vector::group_seed;

/// Where a forward writes.
#[derive(Debug)]
pub struct DkmForward<'a, E: DkmElement> {
    /// The soft weight, in the weight's shape.
    pub out: &'a mut [E],
    /// The centroids after the last step: where the next forward starts.
    pub next: &'a mut [E::Real],
    /// What the backward needs.
    pub saved: &'a mut [E::Real],
}

impl Dkm {
    /// Makes the soft weight. `scale` is that of [`channel_scale`](Dkm::channel_scale), `noise` seeds the Gumbel noise.
    ///
    /// Equal centroids are moved apart first.
    ///
    /// # Errors
    /// [`Refusal::Length`].
    pub fn forward<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
        noise: u64,
        forward: DkmForward<'_, E>,
    ) -> Result<(), Refusal> {
        let DkmForward { out, next, saved } = forward;
        self.check(values, scale)?;
        self.demand("centroids", self.centroids_len(), centroids.len())?;
        self.demand("out", values.len(), out.len())?;
        self.demand("next", self.centroids_len(), next.len())?;
        self.demand("saved", self.saved_len(), saved.len())?;
        let round = round_centroids(self.storage::<E>());
        let tables = centroids.par_chunks(self.table_len());
        let places = out
            .par_chunks_mut(self.group_len())
            .zip(next.par_chunks_mut(self.table_len()))
            .zip(saved.par_chunks_mut(self.group_saved_len()));
        let groups = tables.zip(places).enumerate();
        groups.for_each(|(number, (centroids, ((out, next), saved)))| {
            let group = self.group(number, values, scale);
            if number >= self.trained() {
                let mut indices = vec![0; group.vectors()];
                let prune_threshold = self.spec.prune_threshold;
                palettizer_kernels::soft_nearest(&group, centroids, prune_threshold, &mut indices);
                let entry = |row: usize, centroid: E::Real| match group.scale {
                    Some(scale) => scale[row] * centroid,
                    None => centroid,
                };
                self.look_up(&indices, centroids, entry, out);
                next.copy_from_slice(centroids);
                saved.fill(E::Real::ZERO);
                return;
            }
            let mut start = centroids.to_vec();
            self.separate(&mut start);
            let options = self.options(self.noise(noise, number), Some(&round));
            soft_forward(&group, &start, &options, out, next, saved);
        });
        Ok(())
    }

    /// The gradient of the loss for the weight, given `grad`, that for the soft weight. `scale`, `noise` and `saved` are those of the forward.
    ///
    /// # Errors
    /// [`Refusal::Length`].
    pub fn backward<E: DkmElement>(
        &self,
        values: &[E],
        scale: Option<&[E::Real]>,
        noise: u64,
        saved: &[E::Real],
        grad: &[E],
        out: &mut [E],
    ) -> Result<(), Refusal> {
        self.check(values, scale)?;
        self.demand("saved", self.saved_len(), saved.len())?;
        self.demand("grad", values.len(), grad.len())?;
        self.demand("out", values.len(), out.len())?;
        let round = round_centroids(self.storage::<E>());
        let len = self.group_len();
        let groups = out
            .par_chunks_mut(len)
            .zip(grad.par_chunks(len))
            .zip(saved.par_chunks(self.group_saved_len()))
            .enumerate();
        groups.for_each(|(number, ((out, grad), saved))| {
            if number >= self.trained() {
                E::narrow(&vec![E::Real::ZERO; out.len()], out);
                return;
            }
            let group = self.group(number, values, scale);
            let options = self.options(self.noise(noise, number), Some(&round));
            soft_backward(&group, saved, &options, grad, out);
        });
        Ok(())
    }

    /// A seed of the group's own.
    fn noise(&self, noise: u64, group: usize) -> u64 {
        match self.spec.mode {
            DkmMode::Gsm => group_seed(noise, group),
            DkmMode::Dkm | DkmMode::Hard => 0,
        }
    }

    /// Moves equal centroids of a group apart: the first of some that are equal goes half the way to the next greater one, and
    /// of the greatest to the least.
    fn separate<R: Real>(&self, centroids: &mut [R]) {
        let (k, dim) = (self.clusters(), self.spec.cluster_dim);
        let row = |j: usize| &centroids[j * dim..(j + 1) * dim];
        let compare = |a: usize, b: usize| {
            let pairs = row(a).iter().zip(row(b));
            let unequal = pairs.map(|(a, b)| (a.to_f64() + 0.0).total_cmp(&(b.to_f64() + 0.0)));
            unequal.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        };
        let mut order: Vec<usize> = (0..k).collect();
        // Stable: the first of equal ones comes first.
        order.sort_by(|&a, &b| compare(a, b));
        let runs: Vec<&[usize]> = order.chunk_by(|&a, &b| compare(a, b).is_eq()).collect();
        if runs.len() as f64 >= k as f64 * (1.0 - self.spec.cluster_tolerance) {
            return;
        }
        let half = R::from_f64(0.5);
        let mut moves = Vec::new();
        for (at, run) in runs.iter().enumerate().filter(|(_, run)| run.len() > 1) {
            let other = runs[(at + 1) % runs.len()][0];
            let pairs = row(run[0]).iter().zip(row(other));
            moves.push((
                run[0],
                pairs.map(|(&a, &b)| half * (a + b)).collect::<Vec<R>>(),
            ));
        }
        for (j, place) in moves {
            centroids[j * dim..(j + 1) * dim].copy_from_slice(&place);
        }
    }
}
