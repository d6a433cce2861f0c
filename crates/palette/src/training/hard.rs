//! The end of training: every weight at its nearest centroid.

use palettizer_kernels::{Real, soft_nearest};
use rayon::prelude::*;

use super::{Dkm, DkmElement};
use crate::encode::entries::{self, Entries, Quantized, ZERO_POINT};
use crate::palette::packed;
use crate::{ChannelScale, Dtype, ErrorFigures, Lut, LutDtype, Palette, Refusal};

/// One group at its end.
struct Table {
    /// Ascending, if they are scalars.
    entries: Entries,
    /// One for each vector.
    indices: Vec<u8>,
    /// With a scale that is folded into integer tables: that of each row.
    folded: Vec<f32>,
}

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
            let table = self.table(number, values, centroids, scale);
            self.fill::<E>(number, &table, scale, out);
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
        let measured: Vec<(Table, ErrorFigures)> = groups
            .map(|number| {
                let table = self.table(number, values, centroids, scale);
                let error = self.measure(number, &table, values, scale);
                (table, error)
            })
            .collect();
        let mut error = ErrorFigures {
            elements: values.len(),
            ..ErrorFigures::default()
        };
        let mut indices = Vec::with_capacity(values.len() / self.spec.cluster_dim);
        for (table, figures) in &measured {
            error.squared_error += figures.squared_error;
            error.energy += figures.energy;
            indices.extend_from_slice(&table.indices);
        }
        let tables: Vec<&Table> = measured.iter().map(|(table, _)| table).collect();
        let nbits = self.spec.nbits;
        Ok(Palette {
            dtype: E::DTYPE,
            shape: self.layout.shape.clone(),
            nbits,
            index_shape: self.layout.index_shape.clone(),
            indices: packed(&indices, nbits),
            lut: self.lut::<E>(&tables),
            lut_shape: self.layout.lut_shape(nbits),
            vector_axis: self.layout.vector_axis,
            scale: self.final_scale::<E>(scale),
            mask: None,
            error,
        })
    }

    fn check_hard<E: DkmElement>(
        &self,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
    ) -> Result<(), Refusal> {
        self.check(values, scale)?;
        self.demand("centroids", self.centroids_len(), centroids.len())?;
        let count = centroids.iter().filter(|c| !c.to_f64().is_finite()).count();
        match count {
            0 => Ok(()),
            count => Err(Refusal::NonFinite {
                count,
                elements: centroids.len(),
            }),
        }
    }

    fn table<E: DkmElement>(
        &self,
        number: usize,
        values: &[E],
        centroids: &[E::Real],
        scale: Option<&[E::Real]>,
    ) -> Table {
        let (len, storage) = (self.table_len(), self.storage::<E>());
        let own = &centroids[number * len..(number + 1) * len];
        let wishes: Vec<f64> = own.iter().map(|c| c.to_f64()).collect();
        let mut entries = entries::vectors(&wishes, storage);
        let stored: Vec<E::Real> = entries
            .values
            .iter()
            .map(|&entry| E::Real::from_f64(f64::from(entry)))
            .collect();
        let group = self.group(number, values, scale);
        let mut indices = vec![0; group.vectors()];
        soft_nearest(&group, &stored, self.spec.prune_threshold, &mut indices);
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
        Table {
            entries,
            indices,
            folded,
        }
    }

    /// The dense weight of a group.
    fn fill<E: DkmElement>(
        &self,
        number: usize,
        table: &Table,
        scale: Option<&[E::Real]>,
        out: &mut [E],
    ) {
        let rounding = crate::encode::entries::Rounding(E::DTYPE);
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
            let product = rounding.nearest(factor * f64::from(number));
            E::Real::from_f64(f64::from(product))
        };
        self.look_up(&table.indices, &numbers, entry, out);
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
        table: &Table,
        values: &[E],
        scale: Option<&[E::Real]>,
    ) -> ErrorFigures {
        let group = self.group(number, values, scale);
        let mut dense = group.values.to_vec();
        self.fill::<E>(number, table, scale, &mut dense);
        let wide = |slice: &[E]| {
            let mut reals = vec![E::Real::ZERO; slice.len()];
            E::widen(slice, &mut reals);
            reals
        };
        let mut error = ErrorFigures::default();
        for (&value, &found) in wide(group.values).iter().zip(&wide(&dense)) {
            let (value, found) = (value.to_f64(), found.to_f64());
            error.squared_error += (value - found) * (value - found);
            error.energy += value * value;
        }
        error
    }

    /// The tables in the order of the file.
    fn lut<E: DkmElement>(&self, tables: &[&Table]) -> Lut {
        let rounding = crate::encode::entries::Rounding(E::DTYPE);
        let lut_dtype = self.spec.palette_spec().lut_dtype();
        if lut_dtype == LutDtype::Float {
            let mut bytes = Vec::new();
            for &value in tables.iter().flat_map(|table| &table.entries.values) {
                rounding.push(value, &mut bytes);
            }
            return Lut::Float(bytes);
        }
        let unsigned = lut_dtype == LutDtype::Uint8;
        let shift = if unsigned { ZERO_POINT } else { 0 };
        let (mut data, mut scale, mut count) = (Vec::new(), Vec::new(), 0);
        for table in tables {
            let Some(quantized) = &table.entries.quantized else {
                continue;
            };
            let own = [quantized.scale];
            // A folded scale gives each output channel a table of its own.
            let factors = match table.folded.is_empty() {
                true => own.as_slice(),
                false => table.folded.as_slice(),
            };
            for &factor in factors {
                let integers = quantized.integers.iter();
                data.extend(integers.map(|&q| (q as u8).wrapping_add(shift)));
                rounding.push(factor, &mut scale);
                count += 1;
            }
        }
        Lut::Quantized {
            dtype: if unsigned { Dtype::U8 } else { Dtype::I8 },
            data,
            scale,
            scale_shape: self.layout.lut_scale_shape(),
            offset: unsigned.then(|| vec![ZERO_POINT; count]),
        }
    }

    fn final_scale<E: DkmElement>(&self, scale: Option<&[E::Real]>) -> Option<ChannelScale> {
        let (scale, shape) = (scale?, self.layout.scale_shape()?);
        let rounding = crate::encode::entries::Rounding(E::DTYPE);
        let mut bytes = Vec::new();
        for factor in scale {
            rounding.push(rounding.nearest(factor.to_f64()), &mut bytes);
        }
        Some(ChannelScale { shape, bytes })
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
