//! A checkpoint palettized in one run, and how a palettized checkpoint is written.

use crate::Error;
use crate::checkpoint::{Checkpoint, Kind, Opened};
use crate::compact::{foreign, metadata};
use crate::output;
use crate::spool::{Spool, Spooled};
use crate::weights::Place;
use crate::write::{self, Piece};
use palettizer_pipeline::budget::{Chosen, Curves};
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::mapped_file::MappedFile;
use palettizer_pipeline::staged_output::{SaveOptions, StagedOutput, disk};
use palettizer_pipeline::{
    Done, Error as PipelineError, Figures, Plan, Progress, Report, check_promise, chosen, curves,
    execute, plan,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

impl Checkpoint {
    /// Palettizes to `out`: a file if the checkpoint is one, or else a folder with shards of the same names and an index.
    ///
    /// Memory does not grow with the checkpoint, and the bytes do not depend on the number of threads. For a while, `out`
    /// takes twice the bytes of the palettized weights.
    ///
    /// # Errors
    /// [`Error::Unsuited`], [`Error::NameTaken`] or [`Error::OutputKind`], and in [`Error::Pipeline`] what a strict
    /// configuration, sensitivities and the output's place may give. Then `out` is as it was before.
    pub fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let start = Instant::now();
        let opened = &*self.0;
        let mut plan = plan(opened, config, progress)?;
        let staged = output::prepare(opened, out.as_ref(), options)?;
        let spooled = spool(opened, &mut plan, config, &staged, progress);
        let (spooled, file) = staged.named(spooled)?;
        let weights = spooled.into_iter().map(|done| {
            let Done { stored, figures } = done?;
            Some((figures, stored, &file))
        });
        let weights: Vec<_> = weights.collect();
        write_palettized(opened, plan, &weights, staged, progress, start)
    }
}

impl Checkpoint {
    /// What each form of each weight costs that a budget chooses from: good for other budgets too, with
    /// [`Budget::with_curves`](palettizer_pipeline::budget::Budget::with_curves).
    ///
    /// # Errors
    /// As [`palettize_to`](Self::palettize_to), before anything is written, but for a budget that cannot be met.
    pub fn curves(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Curves, Error> {
        let opened = &*self.0;
        opened.settle(curves(opened, config, progress))
    }

    /// What the budget of a configuration comes to, before anything is palettized; `None` without one.
    ///
    /// # Errors
    /// As [`palettize_to`](Self::palettize_to), before anything is written.
    pub fn chosen(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Option<Chosen>, Error> {
        let opened = &*self.0;
        opened.settle(chosen(opened, config, progress))
    }
}

/// The palettized weights of a plan, by its weights.
pub(crate) type SpooledWeights = Vec<Option<Done<Spooled>>>;

/// Palettizes the weights of a plan into a file beside an output.
pub(crate) fn spool(
    opened: &Opened,
    plan: &mut Plan<Place>,
    config: &OptimizationConfig,
    staged: &StagedOutput,
    progress: &dyn Progress,
) -> Result<(SpooledWeights, MappedFile), Error> {
    let mut spool = Spool::create(&staged.scratch().join("spool"))?;
    let done = execute(
        opened,
        plan,
        config,
        |planned, palette| {
            let spooled = spool.append(planned.weight.name(), palette)?;
            let bytes = spooled.bytes();
            Ok((spooled, bytes))
        },
        progress,
    );
    let done = opened.settle(done)?;
    progress.finish();
    Ok((done, spool.finish()?))
}

/// A palettized weight with its figures, in a file.
pub(crate) type Palettized<'f> = (Figures, Spooled, &'f MappedFile);

/// Writes the checkpoint of a plan, whose palettized weights are given, and puts it in its place.
pub(crate) fn write_palettized(
    opened: &Opened,
    plan: Plan<Place>,
    weights: &[Option<Palettized<'_>>],
    staged: StagedOutput,
    progress: &dyn Progress,
    start: Instant,
) -> Result<Report, Error> {
    let shards = (0..opened.shards.len()).map(|shard| palettized_shard(opened, shard, weights));
    let built = opened.settle(write_shards(opened, shards, &staged, progress));
    let bytes_after = staged.named(built)?;
    for (_, _, file) in weights.iter().flatten() {
        file.unchanged()?;
    }
    check_promise(plan.budget.as_ref(), bytes_after)?;
    staged.commit()?;
    let figures = |weight: &Option<Palettized<'_>>| weight.as_ref().map(|(f, ..)| f.clone());
    let rows = plan.weights.iter().zip(weights);
    let rows = rows.map(|(planned, weight)| planned.report(figures(weight)));
    let report = Report::new(opened.len(), bytes_after, rows.collect(), start);
    Ok(report
        .with_unmatched(plan.unmatched)
        .with_budget(plan.budget))
}

/// What a shard is written from.
pub(crate) type Pieces<'a> = (BTreeMap<String, String>, Vec<Piece<'a>>);

/// A shard with palettized weights in the places of their tensors. `weights` are by item.
pub(crate) fn palettized_shard<'a>(
    opened: &'a Opened,
    number: usize,
    weights: &'a [Option<Palettized<'_>>],
) -> Result<Pieces<'a>, Error> {
    let shard = &opened.shards[number];
    let mut metas = BTreeMap::new();
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let copy = |entry| Piece::copy(&shard.bytes, entry);
    let own = opened.items.iter().zip(weights);
    for (item, weight) in own.filter(|(item, _)| item.shard == number) {
        let name = item.name.as_str();
        match (&item.kind, weight) {
            (_, Some((_, spooled, file))) => {
                metas.insert(name, spooled.meta.clone());
                pieces.extend(spooled.pieces(file));
            }
            (Kind::Dense(at), None) => pieces.push(copy(&shard.header.tensors[*at])),
            (Kind::Palette(stored), None) => {
                metas.insert(name, stored.meta.clone());
                pieces.extend(stored.entries(shard).map(copy));
            }
        }
    }
    let mut strings: BTreeMap<String, String> = foreign(&shard.header.metadata).collect();
    if !metas.is_empty() {
        strings.extend(metadata(&shard.path, &metas)?);
    }
    Ok((strings, pieces))
}

/// Writes shards, each with its metadata and tensors, and the index if there is one. Gives the bytes of the shards.
pub(crate) fn write_shards<'a>(
    opened: &Opened,
    shards: impl Iterator<Item = Result<Pieces<'a>, Error>>,
    staged: &StagedOutput,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let built = staged.built();
    let Some(index) = &opened.index else {
        let mut bytes = 0;
        for shard in shards {
            let (metadata, pieces) = shard?;
            bytes += write::write(&built, &metadata, pieces, progress)?;
        }
        return Ok(bytes);
    };
    disk::create_folders(&built).map_err(|source| PipelineError::writing(&built, source))?;
    let (mut bytes, mut total_size) = (0, 0);
    let mut files = BTreeMap::new();
    for (shard, pieces) in opened.shards.iter().zip(shards) {
        let (metadata, pieces) = pieces?;
        for piece in &pieces {
            total_size += piece.len as u64;
            files.insert(piece.name.clone(), shard.name());
        }
        bytes += write::write(&built.join(shard.name()), &metadata, pieces, progress)?;
    }
    let path = built.join(index.path.file_name().unwrap_or_default());
    let fail = |source| PipelineError::writing(&path, source);
    let text = index
        .rewritten(&files, total_size)
        .map_err(|error| fail(error.into()))?;
    disk::write(&path, text.as_ref()).map_err(fail)?;
    Ok(bytes)
}
