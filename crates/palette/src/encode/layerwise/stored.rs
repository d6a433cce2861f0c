//! Fitted tables and scales as a file holds them, and what the entries come to in each row.

use super::super::entries::{self, Entries};
use super::super::rounding::Rounding;
use super::super::storage::Storage;
use super::super::table::GroupTable;
use super::super::vector;
use super::part::Part;
use super::{Weight, refusal};
use crate::{ErrorFigures, LutDtype, PaletteSpec, Refusal};

/// Tables, scales and indices of all groups of a weight, before they are rounded.
pub(super) struct Fitted {
    /// 2^n entries for each group.
    pub(super) luts: Vec<f32>,
    /// Row by row of the matrix.
    pub(super) indices: Vec<u8>,
    /// One for each row, if there are any.
    pub(super) scales: Vec<f32>,
    pub(super) objective: Vec<f64>,
    /// Of the matrices of each part.
    pub(super) damping: Vec<Vec<f64>>,
    /// Whether indices are as good as they get, as long as nothing is rounded.
    pub(super) settled: bool,
    /// What zeros would cost, if `settled`.
    pub(super) energy: f64,
}

/// A group that has so few values that all of them are entries.
pub(super) struct Listed {
    values: Vec<f32>,
    indices: Vec<u8>,
}

impl Listed {
    /// The distinct values, if there are at most `limit`: one zero and one NaN.
    pub(super) fn of(values: &[f32], limit: usize) -> Option<Self> {
        let one = |&x: &f32| if x.is_nan() { f32::NAN } else { x + 0.0 };
        let few = distinct_at_most(values, limit);
        let all: Vec<f32> = few.then(|| values.iter().map(one).collect())?;
        let mut indices = vec![0; all.len()];
        let values = vector::distinct(&all, 1, limit, &mut indices)?;
        Some(Listed { values, indices })
    }
}

/// A quick look whether there may be so few values: most groups have more in the first few of their elements.
fn distinct_at_most(values: &[f32], limit: usize) -> bool {
    let mut seen: Vec<u32> = values
        .iter()
        .take(8 * limit)
        .map(|x| (x + 0.0).to_bits())
        .collect();
    seen.sort_unstable();
    seen.dedup();
    // NaNs may be many here and are one in the end.
    seen.iter()
        .filter(|&&bits| !f32::from_bits(bits).is_nan())
        .count()
        <= limit
}

/// What a file holds.
pub(super) struct Stored {
    /// Of each group.
    entries: Vec<Entries>,
    /// The factor of each row: its own, or with a folded scale that of its table.
    factors: Option<Vec<f32>>,
    pub(super) indices: Vec<u8>,
    folds: bool,
    rounding: Rounding,
    rows_per_table: usize,
    k: usize,
    /// Whether nothing was rounded.
    pub(super) same: bool,
}

impl Stored {
    /// Whether a group of few values keeps them.
    pub(super) fn may_list(spec: &PaletteSpec) -> bool {
        !spec.per_channel_scale() && spec.lut_dtype() == LutDtype::Float
    }

    /// Rounds.
    pub(super) fn new(
        weight: &Weight<'_>,
        mut fitted: Fitted,
        listed: Vec<Option<Listed>>,
    ) -> Self {
        let rounding = Rounding(weight.dtype);
        let mut storage = Storage::new(weight.dtype, weight.spec);
        let (k, rows_per_table) = (weight.k, weight.rows_per_table());
        let scaled = weight.spec.per_channel_scale();
        if scaled {
            largest_is_one(&mut fitted, k, rows_per_table, rounding);
            if !storage.folds {
                let round = |scale: &mut f32| *scale = stored_scale(*scale, storage, rounding);
                fitted.scales.iter_mut().for_each(round);
            }
            let largest = fitted.scales.iter().fold(0_f32, |a, &b| a.max(b));
            storage = storage.under(largest, rounding);
        }
        let mut stored = Stored {
            entries: Vec::with_capacity(listed.len()),
            factors: None,
            indices: fitted.indices,
            folds: storage.folds,
            rounding,
            rows_per_table,
            k,
            same: fitted.settled && !scaled,
        };
        let group_len = rows_per_table * weight.matrix.columns;
        let pieces = fitted
            .luts
            .chunks(k)
            .zip(stored.indices.chunks_mut(group_len));
        for ((lut, indices), listed) in pieces.zip(listed) {
            if let Some(Listed {
                values,
                indices: own,
            }) = listed
            {
                indices.copy_from_slice(&own);
                let quantized = None;
                stored.entries.push(Entries { values, quantized });
                continue;
            }
            let targets = ascending(lut, indices);
            let entries = entries::vectors(&targets, storage);
            let exact = entries.values.iter().zip(&targets);
            stored.same &= exact.into_iter().all(|(&a, &b)| f64::from(a) == b);
            stored.entries.push(entries);
        }
        stored.factors = scaled.then(|| match storage.folds {
            false => fitted.scales,
            true => stored.folded(&fitted.scales, storage),
        });
        stored
    }

    /// Scales of rows folded into those of their tables: the number that is nearest to the product of both.
    fn folded(&self, scales: &[f32], storage: Storage) -> Vec<f32> {
        let one = |(row, &scale): (usize, &f32)| {
            let quantized = self.entries[row / self.rows_per_table].quantized.as_ref();
            let own = quantized.map_or(1.0, |quantized| quantized.scale);
            let product = f64::from(own) * f64::from(scale);
            let [above, below] = storage.folded(own, scale);
            match f64::from(above) - product <= product - f64::from(below) {
                true => above,
                false => below,
            }
        };
        scales.iter().enumerate().map(one).collect()
    }

    /// What the entries come to in a row.
    fn row(&self, row: usize) -> Vec<f32> {
        let entries = &self.entries[row / self.rows_per_table];
        let Some(factors) = &self.factors else {
            return entries.values.clone();
        };
        let product = |number: f32| self.rounding.product(factors[row], number);
        match &entries.quantized {
            Some(quantized) if self.folds => {
                let integers = quantized.integers.iter();
                integers.map(|&q| product(f32::from(q))).collect()
            }
            _ => entries.values.iter().map(|&entry| product(entry)).collect(),
        }
    }

    /// Whether each row's entries come to something else.
    pub(super) fn per_row(&self) -> bool {
        self.factors.is_some()
    }

    /// The tables from a number on, as many as there are or one; or of each row what they come to. Filled up to 2^n entries
    /// with zeros, which also stand for what is not finite.
    pub(super) fn luts(&self, from: usize, one: bool) -> Vec<f32> {
        let number = match (self.per_row(), one) {
            (true, _) => self.entries.len() * self.rows_per_table,
            (false, true) => from + 1,
            (false, false) => self.entries.len(),
        };
        let mut luts = Vec::with_capacity((number - from) * self.k);
        for at in from..number {
            let row = if self.per_row() {
                at
            } else {
                at * self.rows_per_table
            };
            let finite = |x: f32| if x.is_finite() { x } else { 0.0 };
            luts.extend(self.row(row).into_iter().map(finite));
            luts.resize((at - from + 1) * self.k, 0.0);
        }
        luts
    }

    /// Improves indices for the entries, or only measures if they are those that were fitted. What zeros would cost, and what
    /// is left.
    pub(super) fn improve(
        &mut self,
        parts: &[Part<'_>],
        damping: &[Vec<f64>],
    ) -> Result<(f64, f64), Refusal> {
        let (mut energy, mut error) = (0.0, 0.0);
        for (part, damping) in parts.iter().zip(damping) {
            let luts = self.luts(part.first_table, parts.len() > 1);
            let (per_row, same) = (self.per_row(), self.same);
            let found = part.improve(luts, per_row, same, damping, &mut self.indices);
            let (more_energy, more_error) = found.map_err(refusal)?;
            energy += more_energy;
            error += more_error;
        }
        Ok((energy, error))
    }

    /// The scale of each output channel, unless they are folded.
    pub(super) fn scales(&self) -> Option<&[f32]> {
        self.factors.as_deref().filter(|_| !self.folds)
    }

    /// The tables with their errors, given the values row by row.
    pub(super) fn tables(&self, values: &[f32]) -> Vec<GroupTable> {
        let columns = values.len() / (self.entries.len() * self.rows_per_table);
        let one = |(group, entries): (usize, &Entries)| {
            let rows = group * self.rows_per_table..(group + 1) * self.rows_per_table;
            let mut error = ErrorFigures::default();
            for row in rows.clone() {
                let table = self.row(row);
                let range = row * columns..(row + 1) * columns;
                for (&value, &index) in values[range.clone()].iter().zip(&self.indices[range]) {
                    let found = table[usize::from(index)];
                    if value.is_finite() {
                        error.add(f64::from(value), f64::from(found));
                    }
                }
            }
            let folded = self.factors.as_ref().filter(|_| self.folds);
            GroupTable {
                entries: entries.clone(),
                folded: folded.map_or(Vec::new(), |all| all[rows].to_vec()),
                error,
            }
        };
        self.entries.iter().enumerate().map(one).collect()
    }
}

/// Puts a table into ascending order, and indices with it.
fn ascending(lut: &[f32], indices: &mut [u8]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..lut.len()).collect();
    order.sort_by(|&a, &b| lut[a].total_cmp(&lut[b]));
    let mut ranks = [0; 256];
    for (rank, &at) in order.iter().enumerate() {
        ranks[at] = rank as u8;
    }
    indices
        .iter_mut()
        .for_each(|index| *index = ranks[usize::from(*index)]);
    order.iter().map(|&at| f64::from(lut[at])).collect()
}

/// Moves a factor from tables to scales, so that the largest entry of each table is 1; or less, where scales would be subnormal.
fn largest_is_one(fitted: &mut Fitted, k: usize, rows_per_table: usize, rounding: Rounding) {
    let tables = fitted.luts.chunks_mut(k);
    for (lut, scales) in tables.zip(fitted.scales.chunks_mut(rows_per_table)) {
        let most = lut.iter().fold(0_f32, |a, b| a.max(b.abs()));
        let largest = scales.iter().fold(0_f32, |a, &b| a.max(b));
        let factor = most.max(rounding.smallest_normal() / largest);
        let fits = |&scale: &f32| (scale * factor).is_normal();
        if most > 0.0 && factor.is_finite() && scales.iter().all(fits) {
            lut.iter_mut().for_each(|entry| *entry /= factor);
            scales.iter_mut().for_each(|scale| *scale *= factor);
        }
    }
}

/// A scale that a weight of this dtype can have: neither zero nor infinite, and not so small that a runtime makes it zero.
fn stored_scale(scale: f32, storage: Storage, rounding: Rounding) -> f32 {
    let near = rounding.nearest(f64::from(scale).min(rounding.largest()));
    storage.scale(near.max(rounding.smallest_normal()))
}
