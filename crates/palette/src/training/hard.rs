//! The end of training: every weight at its nearest centroid.

use palettizer_kernels::{Real, soft_nearest};
use rayon::prelude::*;

use super::{Dkm, DkmElement};
use crate::encode::assemble::Encoded;
use crate::encode::entries::{self, Entries, Quantized};
use crate::encode::rounding::Rounding;
use crate::encode::table::{GroupTable, refuse_non_finite};
use crate::{ErrorFigures, Palette, Refusal};

impl Dkm {
    /// The weight with every vector at its nearest centroid, as a file would hold it: what a model computes with once it is finished.
    /// The squared distance to the first centroid counts less by the prune threshold.
    ///
    /// # Errors
    /// [`Refusal::Length`], and [`Refusal::NonFinite`] for centroids that are not.
    pub fn assign<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
        out: &mut [E],
    ) -> Result<(), Refusal> {
        self.check_hard(values, centroids, scale)?;
        self.demand("out", values.len(), out.len())?;
        let groups = out.par_chunks_mut(self.group_len()).enumerate();
        groups.for_each(|(number, out)| {
            let (table, indices) = self.table(number, values, centroids, scale);
            self.fill::<E>(number, &table, &indices, scale, out);
        });
        Ok(())
    }

    /// The palette of the same.
    ///
    /// # Errors
    /// As [`assign`](Dkm::assign).
    pub fn palette<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
    ) -> Result<Palette, Refusal> {
        self.check_hard(values, centroids, scale)?;
        let groups = (0..self.groups()).into_par_iter();
        let encoded: Vec<(GroupTable, Vec<u8>)> = groups
            .map(|number| {
                let (mut table, indices) = self.table(number, values, centroids, scale);
                table.error = self.measure(number, &table, &indices, values, scale);
                (table, indices)
            })
            .collect();
        let (tables, indices): (Vec<_>, Vec<_>) = encoded.into_iter().unzip();
        let rounding = Rounding(E::DTYPE);
        let scales: Option<Vec<f32>> = scale.map(|scale| {
            let factors = scale.iter().map(|factor| rounding.nearest(factor.to_f64()));
            factors.collect()
        });
        let encoded = Encoded {
            dtype: E::DTYPE,
            layout: &self.layout,
            nbits: self.spec.nbits,
            lut_dtype: self.spec.palette_spec().lut_dtype(),
            tables: &tables,
            indices: &indices.concat(),
            scales: scales.as_deref(),
            mask: None,
        };
        Ok(encoded.palette())
    }

    pub(super) fn check_hard<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
    ) -> Result<(), Refusal> {
        self.check(values, scale)?;
        self.demand("centroids", self.centroids_len(), centroids.len())?;
        let non_finite = centroids.iter().filter(|c| !c.to_f64().is_finite()).count();
        refuse_non_finite(non_finite, centroids.len())
    }

    /// The table of a group, not yet measured, and the index of each vector.
    fn table<E: DkmElement>(
        &self,
        number: usize,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
    ) -> (GroupTable, Vec<u8>) {
        let (len, storage) = (self.table_len(), self.storage::<E>());
        let own = &centroids[number * len..(number + 1) * len];
        let targets: Vec<f64> = own.iter().map(|c| c.to_f64()).collect();
        let mut entries = entries::vectors(&targets, storage);
        let stored: Vec<E::Real> = entries
            .values
            .iter()
            .map(|&entry| E::Real::from_f64(f64::from(entry)))
            .collect();
        let group = self.group(number, values, scale);
        let mut indices = vec![0; group.vectors()];
        soft_nearest(&group, &stored, self.spec.lowered_by(), &mut indices);
        if self.spec.cluster_dim == 1 {
            ascend(&mut entries, &mut indices);
        }
        let folded = match (group.scale, &entries.quantized) {
            (Some(scale), Some(quantized)) if storage.folds => scale
                .iter()
                .map(|scale| storage.folded(quantized.scale, scale.to_f64() as f32)[0])
                .collect(),
            _ => Vec::new(),
        };
        let table = GroupTable {
            entries,
            folded,
            error: ErrorFigures::default(),
        };
        (table, indices)
    }

    /// The dense weight of a group.
    fn fill<E: DkmElement>(
        &self,
        number: usize,
        table: &GroupTable,
        indices: &[u8],
        scale: Option<&[E::Real]>,
        out: &mut [E],
    ) {
        let rounding = Rounding(E::DTYPE);
        let rows = scale.map(|scale| &scale[number * self.rows..(number + 1) * self.rows]);
        let integers = table
            .entries
            .quantized
            .as_ref()
            .filter(|_| !table.folded.is_empty());
        let numbers: Vec<f32> = match integers {
            Some(Quantized { integers, .. }) => integers.iter().map(|&q| f32::from(q)).collect(),
            None => table.entries.values.clone(),
        };
        let entry = |row: usize, number: f32| {
            let factor = match (table.folded.get(row), rows) {
                (Some(folded), _) => f64::from(*folded),
                (None, Some(rows)) => f64::from(rounding.nearest(rows[row].to_f64())),
                (None, None) => return E::Real::from_f64(f64::from(number)),
            };
            E::Real::from_f64(f64::from(rounding.nearest(factor * f64::from(number))))
        };
        self.look_up(indices, &numbers, entry, out);
    }

    /// Writes the entries that indices stand for; `entry` makes what a number of the table comes to in a row.
    pub(super) fn look_up<E: DkmElement, N: Copy>(
        &self,
        indices: &[u8],
        numbers: &[N],
        entry: impl Fn(usize, N) -> E::Real,
        out: &mut [E],
    ) {
        let dim = self.spec.cluster_dim;
        let mut line = vec![E::Real::ZERO; self.cols];
        for (row, out) in out.chunks_exact_mut(self.cols).enumerate() {
            let (block, e) = (row / dim, row % dim);
            let column = numbers.iter().skip(e).step_by(dim);
            let made: Vec<E::Real> = column.map(|&number| entry(row, number)).collect();
            let indices = &indices[block * self.cols..(block + 1) * self.cols];
            for (place, &index) in line.iter_mut().zip(indices) {
                *place = made[usize::from(index)];
            }
            E::narrow(&line, out);
        }
    }

    fn measure<E: DkmElement>(
        &self,
        number: usize,
        table: &GroupTable,
        indices: &[u8],
        values: &[E],
        scale: Option<&[E::Real]>,
    ) -> ErrorFigures {
        let group = self.group(number, values, scale);
        let mut dense = group.values.to_vec();
        self.fill::<E>(number, table, indices, scale, &mut dense);
        let wide = |slice: &[E]| {
            let mut reals = vec![E::Real::ZERO; slice.len()];
            E::widen(slice, &mut reals);
            reals
        };
        let mut error = ErrorFigures::default();
        for (&value, &found) in wide(group.values).iter().zip(&wide(&dense)) {
            error.add(value.to_f64(), found.to_f64());
        }
        error
    }
}

/// Puts entries in ascending order, and the indices with them.
fn ascend(entries: &mut Entries, indices: &mut [u8]) {
    let mut order: Vec<usize> = (0..entries.values.len()).collect();
    order.sort_by(|&a, &b| entries.values[a].total_cmp(&entries.values[b]));
    let mut places = vec![0; order.len()];
    for (place, &from) in order.iter().enumerate() {
        places[from] = place as u8;
    }
    for index in indices {
        *index = places[usize::from(*index)];
    }
    entries.values = order.iter().map(|&from| entries.values[from]).collect();
    if let Some(quantized) = &mut entries.quantized {
        quantized.integers = order.iter().map(|&from| quantized.integers[from]).collect();
    }
}
