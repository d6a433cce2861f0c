//! The soft weight, and the gradient through it.

use palettizer_kernels::{
    Real, RoundCentroids, SoftGroup, SoftOptions, soft_backward, soft_forward, soft_nearest,
};
use rayon::prelude::*;

use super::{Dkm, DkmElement, DkmMode, round_centroids};
use crate::Refusal;
use crate::encode::vector::group_seed;

/// What a forward and its backward have in common beside the values. Nothing flows back to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DkmConstants<'a, R> {
    /// That of [`channel_scale`](Dkm::channel_scale).
    pub scale: Option<&'a [R]>,
    /// Those of [`temperatures`](Dkm::temperatures).
    pub temperatures: &'a [f32],
    /// The seed of Gumbel noise.
    pub noise: u64,
}

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
    /// Makes the soft weight.
    ///
    /// Equal centroids are moved apart first.
    ///
    /// # Errors
    /// [`Refusal::Length`].
    pub fn forward<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        constants: DkmConstants<'_, E::Real>,
        forward: DkmForward<'_, E>,
    ) -> Result<(), Refusal> {
        let DkmForward { out, next, saved } = forward;
        self.check_constants(values, constants)?;
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
            let group = self.group(number, values, constants.scale);
            if number >= self.trained() {
                self.put_nearest(&group, centroids, out);
                next.copy_from_slice(centroids);
                saved.fill(E::Real::ZERO);
                return;
            }
            let mut start = centroids.to_vec();
            self.separate(&mut start);
            let options = self.step_options(number, constants, &round);
            soft_forward(&group, &start, &options, out, next, saved);
            if self.spec.mode == DkmMode::Ste {
                self.put_nearest(&group, next, out);
            }
        });
        Ok(())
    }

    /// The gradient of the loss for the weight, given `grad`, that for the soft weight. `constants` and `saved` are those of the forward.
    ///
    /// # Errors
    /// [`Refusal::Length`].
    pub fn backward<E: DkmElement>(
        &self,
        values: &[E],
        constants: DkmConstants<'_, E::Real>,
        saved: &[E::Real],
        grad: &[E],
        out: &mut [E],
    ) -> Result<(), Refusal> {
        self.check_constants(values, constants)?;
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
            if self.spec.mode == DkmMode::Ste {
                out.copy_from_slice(grad);
                return;
            }
            let group = self.group(number, values, constants.scale);
            let options = self.step_options(number, constants, &round);
            soft_backward(&group, saved, &options, grad, out);
        });
        Ok(())
    }

    fn check_constants<E: DkmElement>(
        &self,
        values: &[E],
        constants: DkmConstants<'_, E::Real>,
    ) -> Result<(), Refusal> {
        self.check(values, constants.scale)?;
        let needed = match self.spec.finds_temperature() {
            true => self.groups(),
            false => 0,
        };
        self.demand("temperatures", needed, constants.temperatures.len())
    }

    /// What the kernel is asked for in one group.
    fn step_options<'a, R: Real>(
        &self,
        group: usize,
        constants: DkmConstants<'_, R>,
        round: RoundCentroids<'a, R>,
    ) -> SoftOptions<'a, R> {
        let found = constants.temperatures.get(group).copied().map(f64::from);
        // Attention to the nearest alone has no temperature.
        let temperature = self.spec.temperature.or(found).unwrap_or(1.0);
        self.options(temperature, self.noise(constants.noise, group), Some(round))
    }

    /// Every vector of a group at its nearest centroid.
    fn put_nearest<E: DkmElement>(
        &self,
        group: &SoftGroup<'_, E>,
        centroids: &[E::Real],
        out: &mut [E],
    ) {
        let mut indices = vec![0; group.vectors()];
        soft_nearest(group, centroids, self.spec.lowered_by(), &mut indices);
        let entry = |row: usize, centroid: E::Real| match group.scale {
            Some(scale) => scale[row] * centroid,
            None => centroid,
        };
        self.look_up(&indices, centroids, entry, out);
    }

    /// A seed of the group's own.
    fn noise(&self, noise: u64, group: usize) -> u64 {
        match self.spec.mode {
            DkmMode::Gsm => group_seed(noise, group),
            DkmMode::Dkm | DkmMode::Hard | DkmMode::Ste => 0,
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
