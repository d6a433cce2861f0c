//! What the kernel gets of a weight: all of its rows, or where H has blocks, the rows of one table with a row for each block.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use palettizer_kernels::{
    LayerwiseAlgorithm as Method, LayerwiseError, LayerwiseOptions, LayerwiseProblem,
    LayerwiseTables, layerwise, layerwise_indices,
};

use super::Weight;
use crate::{Layerwise, LayerwiseAlgorithm, LayerwiseSettings, MomentsShape};

/// A piece of a weight with tables of its own.
pub(super) struct Part<'p> {
    weights: Cow<'p, [f32]>,
    start: Option<Cow<'p, [f32]>>,
    /// Columns of a block.
    columns: usize,
    /// Columns of the weight.
    stride: usize,
    moments: Vec<&'p [f32]>,
    /// Row and block of each row of the piece; `None` for all rows in order.
    members: Option<Vec<(usize, usize)>>,
    /// The tables that are its own, by their numbers.
    pub(super) first_table: usize,
    nbits: u32,
    rows_per_table: usize,
    row_scale: bool,
    settings: LayerwiseSettings,
    stop: Option<&'p AtomicBool>,
}

impl<'p> Part<'p> {
    /// All parts of a weight.
    pub(super) fn all(
        weight: &'p Weight<'p>,
        values: &'p [f32],
        start: Option<&'p [f32]>,
        layerwise: Layerwise<'p>,
    ) -> Vec<Self> {
        let MomentsShape {
            blocks, columns, ..
        } = layerwise.shape;
        let whole = Part {
            weights: Cow::Borrowed(values),
            start: start.map(Cow::Borrowed),
            columns,
            stride: weight.matrix.columns,
            moments: layerwise.moments.chunks_exact(columns * columns).collect(),
            members: None,
            first_table: 0,
            nbits: weight.k.trailing_zeros(),
            rows_per_table: weight.rows_per_table(),
            row_scale: weight.spec.per_channel_scale(),
            settings: layerwise.settings,
            stop: weight.context.stop,
        };
        if blocks == 1 {
            return vec![whole];
        }
        let groups = 0..weight.layout.groups;
        groups
            .map(|group| whole.of_group(group, layerwise.shape))
            .collect()
    }

    /// The rows of one group, with a row for each block: first those of the first run of rows and the first block.
    fn of_group(&self, group: usize, shape: MomentsShape) -> Part<'p> {
        let first = group * self.rows_per_table;
        let each = self.rows_per_table / shape.row_runs;
        let mut members = Vec::with_capacity(self.rows_per_table * shape.blocks);
        for run in 0..shape.row_runs {
            for block in 0..shape.blocks {
                let start = first + run * each;
                members.extend((start..start + each).map(|row| (row, block)));
            }
        }
        let gather = |all: &Cow<'p, [f32]>| -> Cow<'p, [f32]> {
            Cow::Owned(gathered(all, &members, self.stride, self.columns))
        };
        Part {
            weights: gather(&self.weights),
            start: self.start.as_ref().map(gather),
            moments: self.moments.clone(),
            first_table: group,
            rows_per_table: usize::MAX,
            members: Some(members),
            ..*self
        }
    }

    fn problem(&self) -> LayerwiseProblem<'_> {
        LayerwiseProblem {
            weights: &self.weights,
            columns: self.columns,
            moments: &self.moments,
            start_weights: self.start.as_deref(),
        }
    }

    fn options(&self) -> LayerwiseOptions<'_> {
        let LayerwiseSettings {
            algorithm,
            rounds,
            damping,
        } = self.settings;
        LayerwiseOptions {
            nbits: self.nbits,
            rows_per_table: self.rows_per_table,
            row_scale: self.row_scale,
            algorithm: match algorithm {
                LayerwiseAlgorithm::Lnq => Method::Lnq,
                LayerwiseAlgorithm::Gptq => Method::Gptq,
            },
            rounds,
            damping,
            stop: self.stop,
            ..LayerwiseOptions::default()
        }
    }

    /// How many matrices of second moments it has.
    pub(super) fn matrices(&self) -> usize {
        self.moments.len()
    }

    /// Tables and indices.
    pub(super) fn fit(&self) -> Result<LayerwiseTables, LayerwiseError> {
        layerwise(&self.problem(), &self.options())
    }

    /// Improves indices, in the weight's rows, for tables that are stored: one for each row if `per_row`. Only measures if
    /// they are those that were fitted. Returns what zeros would cost, and what is left.
    pub(super) fn improve(
        &self,
        luts: Vec<f32>,
        per_row: bool,
        same: bool,
        damping: &[f64],
        indices: &mut [u8],
    ) -> Result<(f64, f64), LayerwiseError> {
        let mut options = self.options();
        if per_row {
            options.rows_per_table = 1;
        }
        if same {
            options.sweeps = 0;
        }
        let own = match &self.members {
            None => indices.to_vec(),
            Some(members) => gathered(indices, members, self.stride, self.columns),
        };
        let mut tables = LayerwiseTables {
            luts,
            indices: own,
            scales: None,
            objective: Vec::new(),
            energy: 0.0,
            damping: damping.to_vec(),
        };
        layerwise_indices(&self.problem(), &options, &mut tables)?;
        self.scatter(&tables.indices, indices);
        let error = tables.objective.last().copied().unwrap_or_default();
        Ok((tables.energy, error))
    }

    /// Puts indices of the part where they belong in the weight's rows.
    pub(super) fn scatter(&self, own: &[u8], indices: &mut [u8]) {
        let Some(members) = &self.members else {
            indices.copy_from_slice(own);
            return;
        };
        for (&(row, block), own) in members.iter().zip(own.chunks_exact(self.columns)) {
            let start = row * self.stride + block * self.columns;
            indices[start..start + self.columns].copy_from_slice(own);
        }
    }
}

/// The blocks of some rows, one after the other.
fn gathered<T: Copy>(
    all: &[T],
    members: &[(usize, usize)],
    stride: usize,
    columns: usize,
) -> Vec<T> {
    let mut out = Vec::with_capacity(members.len() * columns);
    for &(row, block) in members {
        let start = row * stride + block * columns;
        out.extend_from_slice(&all[start..start + columns]);
    }
    out
}
