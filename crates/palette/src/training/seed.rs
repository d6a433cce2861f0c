//! Where training starts: the scale of each channel, and the first centroids.

use std::sync::atomic::AtomicBool;

use palettizer_kernels::{
    Precision, Real, ValueHistogram, VectorOptions, Weights, cluster_vectors,
};
use rayon::prelude::*;

use super::{Dkm, DkmElement, ScaleScheme};
use crate::encode::rounding::Rounding;
use crate::encode::table::refuse_non_finite;
use crate::encode::vector::group_seed;
use crate::{Context, Refusal};

impl Dkm {
    /// The scale of each row, if one is asked for: to be found once and kept.
    ///
    /// # Errors
    /// [`Refusal::Length`], and [`Refusal::NonFinite`] for NaN and infinite values.
    pub fn channel_scale<E: DkmElement>(
        &self,
        values: &[E],
    ) -> Result<Option<Vec<E::Real>>, Refusal> {
        self.demand("values", self.elements(), values.len())?;
        let Some(scheme) = self.spec.scale else {
            return Ok(None);
        };
        let storage = self.storage::<E>();
        let least = Rounding(E::DTYPE).smallest_normal();
        let one = |row: &[E]| {
            let mut reals = vec![E::Real::ZERO; row.len()];
            E::widen(row, &mut reals);
            let non_finite = reals.iter().filter(|x| !x.to_f64().is_finite()).count();
            refuse_non_finite(non_finite, row.len())?;
            let ends = (f64::INFINITY, f64::NEG_INFINITY);
            let (low, high) = reals.iter().fold(ends, |(low, high), x| {
                (low.min(x.to_f64()), high.max(x.to_f64()))
            });
            let scale = match scheme {
                ScaleScheme::MinMax => (high - low) / 2.0,
                ScaleScheme::Abs => high.max(-low),
            };
            Ok(E::Real::from_f64(match scale {
                0.0 => 1.0,
                scale => f64::from(storage.scale((scale as f32).clamp(least, f32::MAX))),
            }))
        };
        let scales: Result<Vec<_>, _> = values.par_chunks(self.cols).map(one).collect();
        scales.map(Some)
    }

    /// The centroids to start from: optimal k-means of scalars, the best of many starts of vectors. A group with fewer distinct values
    /// repeats the last of its centroids.
    ///
    /// # Errors
    /// [`Refusal::Length`], [`Refusal::NonFinite`], and [`Refusal::Stopped`] once `stop` is set.
    pub fn seed<E: DkmElement>(
        &self,
        values: &[E],
        scale: Option<&[E::Real]>,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<E::Real>, Refusal> {
        self.check(values, scale)?;
        let groups = (0..self.groups()).into_par_iter();
        let tables: Result<Vec<_>, _> = groups
            .map(|group| self.seed_group(group, values, scale, stop))
            .collect();
        Ok(tables?.concat())
    }

    fn seed_group<E: DkmElement>(
        &self,
        number: usize,
        values: &[E],
        scale: Option<&[E::Real]>,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<E::Real>, Refusal> {
        let context = Context {
            stop,
            ..Context::default()
        };
        context.go_on()?;
        let (k, dim) = (self.clusters(), self.spec.cluster_dim);
        let vectors = self.vectors(number, values, scale);
        let non_finite = vectors.iter().filter(|x| !x.is_finite()).count();
        refuse_non_finite(non_finite, vectors.len())?;
        let mut centroids: Vec<f64> = if dim == 1 {
            let histogram = ValueHistogram::new(&vectors, Weights::Equal, Precision::Refined);
            histogram.with_stop(stop).cluster(k).centroids
        } else {
            let options = VectorOptions {
                seed: group_seed(self.spec.seed, number),
                starts: self.spec.starts,
                stop,
                ..VectorOptions::default()
            };
            let found = cluster_vectors(&vectors, dim, k, None, options);
            found.centroids.iter().map(|&c| f64::from(c)).collect()
        };
        context.go_on()?;
        while centroids.len() < k * dim {
            centroids.extend_from_within(centroids.len() - dim..);
        }
        if self.spec.enforce_zero {
            let norm = |c: &[f64]| c.iter().map(|x| x * x).sum::<f64>();
            let rows = centroids.chunks_exact(dim).enumerate();
            let nearest = rows.min_by(|a, b| norm(a.1).total_cmp(&norm(b.1)));
            let nearest = nearest.map_or(0, |(at, _)| at);
            for e in 0..dim {
                centroids.swap(e, nearest * dim + e);
                centroids[e] = 0.0;
            }
        }
        Ok(centroids.into_iter().map(E::Real::from_f64).collect())
    }

    /// The vectors of a group, one after the other, scaled.
    fn vectors<E: DkmElement>(
        &self,
        number: usize,
        values: &[E],
        scale: Option<&[E::Real]>,
    ) -> Vec<f32> {
        let group = self.group(number, values, scale);
        let mut reals = vec![E::Real::ZERO; group.values.len()];
        E::widen(group.values, &mut reals);
        let scaled = |at: usize| {
            let x = reals[at].to_f64();
            let x = group.scale.map_or(x, |s| x / s[at / self.cols].to_f64());
            x as f32
        };
        let dim = group.dim;
        let element = |at: usize| {
            let (vector, e) = (at / dim, at % dim);
            let (block, col) = (vector / self.cols, vector % self.cols);
            scaled((block * dim + e) * self.cols + col)
        };
        (0..reals.len()).map(element).collect()
    }
}
