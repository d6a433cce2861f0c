//! A plan carried out: weights palettized, weight files written, the program rewritten around them.
//!
//! Weights are worked on in batches of a bounded number of bytes, in parallel inside a batch, while the batch before it is
//! written in the order of the plan. So the memory that is needed does not grow with the model, and the bytes that
//! come out do not depend on the number of threads.

use crate::Error;
use crate::blob::WeightWriter;
use crate::config::{OptimizationConfig, Sensitivities, Unmatched};
use crate::notes::{Note, notes};
use crate::opset;
use crate::package::Package;
use crate::palettize::emit::Stored;
use crate::palettize::plan::{Decision, Job, Plan, Planned, Slot, plan};
use crate::palettize::skip::Skip;
use crate::palettize::splice::{Replacement, splice};
use crate::palettize::units;
use crate::program::constant::{Constant, palette_dtype};
use crate::program::graph::Graph;
use crate::program::mil::{element_count, known_tensor, stored_bytes};
use crate::program::typing::check_written;
use crate::progress::{Progress, go_on};
use crate::proto::Model;
use crate::report::{Status, WeightReport};
use crate::rewrite::{Rewriter, Written};
use palettizer_palette::{Context, Granularity, Mode, Palette, Refusal, Tensor, decode, palettize};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Seek, Write};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// A batch takes about this much memory at most; a weight that needs more has a batch for itself.
const BATCH_BYTES: u64 = 16 << 20;

/// Vectors and scaled weights are clustered as fp32 copies: they take so many times the memory of others.
const COPIED: u64 = 4;

/// Bytes of one sensitivity; a weight that is copied has a copy of its sensitivities too.
const SENSITIVITY: u64 = 4;

/// A model palettized.
pub(crate) struct Applied<W> {
    /// The new model.
    pub spec: Model,
    /// Its weight files; `None` if they are as they were.
    pub files: Option<Written<W>>,
    /// What became of every weight.
    pub weights: Vec<WeightReport>,
    /// Entries of the configuration that fit nothing.
    pub unmatched: Vec<Unmatched>,
    /// What is known of the forms that were written.
    pub notes: Vec<Note>,
}

/// Palettizes the weights of `spec` as `config` says. `open` begins a new weight file of a name.
///
/// # Errors
/// What planning, reading the weights or writing the files may give; [`Error::Strict`] if the
/// configuration is strict and a weight could not be palettized.
pub(crate) fn apply<W: Write + Seek + Send>(
    package: &Package,
    spec: &Model,
    config: &OptimizationConfig,
    open: &mut (dyn FnMut(&str) -> Result<WeightWriter<W>, Error> + Send),
    progress: &dyn Progress,
) -> Result<Applied<W>, Error> {
    let original = spec;
    let mut spec = Cow::Borrowed(spec);
    let mut changed = false;
    if let Some(target) = config.minimum_deployment_target() {
        changed = !opset::raise(spec.to_mut(), target)?.functions.is_empty();
    }
    let graph = Graph::build(&spec)?;
    let Plan {
        mut weights,
        unmatched,
    } = plan(&graph, &spec, config)?;
    check_strict(config, &weights)?;

    let mut rewriter = Rewriter::new(package, open, progress.stop());
    let results = palettize_all(package, config, &mut weights, &mut rewriter, progress)?;
    check_strict(config, &weights)?;

    let reports = weights.iter().zip(&results);
    let reports = reports.map(|(planned, done)| report(planned, done.as_ref()));
    let reports = reports.collect();
    if !changed && results.iter().all(Option::is_none) {
        return Ok(Applied {
            spec: spec.into_owned(),
            files: None,
            weights: reports,
            unmatched,
            notes: Vec::new(),
        });
    }
    let mut replacements = HashMap::new();
    for (planned, done) in weights.iter().zip(&results) {
        if let (Decision::Compress(job), Some(done)) = (&planned.decision, done) {
            for site in &planned.sites {
                let replacement = Replacement {
                    name: &site.name,
                    data_param: data_param(job.slot),
                    keeps_name: site.is_output,
                    stored: &done.stored,
                };
                replacements.insert(site.ordinal, replacement);
            }
        }
    }
    let mut out = spec.clone().into_owned();
    splice(&mut out, &replacements, &mut rewriter)?;
    check_written(original, &out)?;
    let files = rewriter.finish()?;
    let written = results.iter().flatten().map(|done| done.stored.written());
    let notes = notes(&out, &written.collect::<Vec<_>>());
    go_on(progress.stop())?;
    progress.finish();
    Ok(Applied {
        spec: out,
        files: Some(files),
        weights: reports,
        unmatched,
        notes,
    })
}

/// The parameter of the operation that stays which is bound to the palettized data; `None` if the operation
/// goes.
fn data_param(slot: Slot<'_>) -> Option<&'static str> {
    match slot {
        Slot::Const => None,
        Slot::NonzeroData { .. } => Some("nonzero_data"),
        Slot::QuantizedData { .. } => Some("data"),
    }
}

fn check_strict(config: &OptimizationConfig, weights: &[Planned<'_>]) -> Result<(), Error> {
    let failure = |planned: &Planned<'_>| match &planned.decision {
        Decision::Skip(skip) if skip.is_failure() => {
            Some((planned.sites.first()?.name.clone(), skip.to_string()))
        }
        _ => None,
    };
    let skipped: Vec<_> = weights.iter().filter_map(failure).collect();
    if config.strict() && !skipped.is_empty() {
        return Err(Error::Strict { skipped });
    }
    Ok(())
}

/// A weight palettized and stored.
struct Done {
    stored: Stored,
    nbits: u32,
    luts: usize,
    mse: f64,
    snr_db: f64,
    gap: f64,
}

/// Carries out every job. What the values forbid becomes a skip in `weights`.
fn palettize_all<W: Write + Seek + Send>(
    package: &Package,
    config: &OptimizationConfig,
    weights: &mut [Planned<'_>],
    rewriter: &mut Rewriter<'_, W>,
    progress: &dyn Progress,
) -> Result<Vec<Option<Done>>, Error> {
    let compress = |planned: &&Planned<'_>| matches!(planned.decision, Decision::Compress(_));
    let jobs = weights.iter().filter(compress);
    progress.start(
        jobs.clone().count(),
        jobs.map(|planned| planned.bytes).sum(),
    );
    let worker = Worker {
        package,
        sensitivities: config.sensitivity(),
        stop: progress.stop(),
    };
    let mut results = Vec::with_capacity(weights.len());
    let mut made = Vec::new();
    let runs = batches(weights);
    let behind_the_last = weights.len()..weights.len();
    for run in runs.into_iter().chain([behind_the_last]) {
        // While one batch is palettized, the one before it is written.
        let before = &weights[results.len()..][..made.len()];
        let (next, written) = rayon::join(
            || palettize_batch(&worker, &weights[run]),
            || store_batch(before, made, rewriter, progress),
        );
        made = next;
        results.extend(written?);
    }
    let settle = |(planned, result): (&mut Planned<'_>, Option<Result<Done, Skip>>)| match result? {
        Ok(done) => Some(done),
        Err(skip) => {
            planned.decision = Decision::Skip(skip);
            None
        }
    };
    Ok(weights.iter_mut().zip(results).map(settle).collect())
}

/// What came of one weight: nothing if it was not to be palettized; the inner error says why it stays as it is.
type Made = Result<Option<Result<Palette, Skip>>, Error>;

/// What palettizing one weight takes from the run.
struct Worker<'a> {
    package: &'a Package,
    sensitivities: Option<&'a Sensitivities>,
    stop: Option<&'a AtomicBool>,
}

fn palettize_batch(worker: &Worker<'_>, batch: &[Planned<'_>]) -> Vec<Made> {
    let palettes = batch.par_iter().map(|planned| match &planned.decision {
        Decision::Compress(job) => one(worker, planned, job).map(Some),
        Decision::Skip(_) => Ok(None),
    });
    palettes.collect()
}

fn store_batch<W: Write + Seek>(
    batch: &[Planned<'_>],
    made: Vec<Made>,
    rewriter: &mut Rewriter<'_, W>,
    progress: &dyn Progress,
) -> Result<Vec<Option<Result<Done, Skip>>>, Error> {
    let mut results = Vec::with_capacity(batch.len());
    for (planned, made) in batch.iter().zip(made) {
        let (Some(made), Decision::Compress(job)) = (made?, &planned.decision) else {
            results.push(None);
            continue;
        };
        let name = planned.sites.first().map_or("", |site| &site.name);
        progress.advance(name, planned.bytes);
        results.push(Some(match made {
            Ok(palette) => Ok(store(&palette, job, rewriter)?),
            Err(skip) => Err(skip),
        }));
    }
    Ok(results)
}

/// Runs of weights that are worked on together.
fn batches(weights: &[Planned<'_>]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (at, planned) in weights.iter().enumerate() {
        let own = match &planned.decision {
            Decision::Compress(job) => memory(planned, job),
            Decision::Skip(_) => 0,
        };
        if at > start && bytes.saturating_add(own) > BATCH_BYTES {
            batches.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(own);
    }
    batches.push(start..weights.len());
    batches
}

/// About how much memory a weight takes while it is palettized.
fn memory(planned: &Planned<'_>, job: &Job<'_>) -> u64 {
    let copied = job.spec.cluster_dim() > 1 || job.spec.per_channel_scale();
    let times = if copied { COPIED } else { 1 };
    let own = planned.bytes.saturating_mul(times);
    let Some(_) = job.sensitivity else { return own };
    let copies = if copied { 2 } else { 1 };
    let elements = element_count(&planned.shape).unwrap_or(0) as u64;
    own.saturating_add(elements.saturating_mul(SENSITIVITY * copies))
}

/// Palettizes one weight; the inner error says why it stays as it is.
fn one(
    worker: &Worker<'_>,
    planned: &Planned<'_>,
    job: &Job<'_>,
) -> Result<Result<Palette, Skip>, Error> {
    let name = planned.sites.first().map_or("", |site| &site.name);
    let bad = |what: String| Error::BadValue {
        name: name.to_owned(),
        what,
    };
    go_on(worker.stop)?;
    let package = worker.package;
    let data = Constant::read(package, name, job.value)?;
    let dtype = palette_dtype(data.dtype)
        .ok_or_else(|| bad(format!("{} is no type of a weight", data.dtype.name())))?;
    let (bytes, mask) = match job.slot {
        Slot::Const | Slot::QuantizedData { .. } => {
            if data.shape != planned.shape {
                return Err(bad(format!(
                    "its value has the shape {:?}, its output {:?}",
                    data.shape, planned.shape
                )));
            }
            (data.bytes, None)
        }
        Slot::NonzeroData { mask } => {
            let mask = Constant::read_raised(package, name, mask)?;
            let dense = dense_bytes(&data, &mask, dtype.size());
            let dense = dense.map_err(|error| bad(error.to_string()))?;
            (Cow::Owned(dense), Some(mask.bytes))
        }
    };
    let tensor =
        Tensor::new(dtype, &planned.shape, &bytes).map_err(|error| bad(error.to_string()))?;
    let sensitivity = match (worker.sensitivities, &job.sensitivity) {
        (Some(from), Some(name)) => Some(from.read(name, &planned.shape)?),
        _ => None,
    };
    let context = Context {
        output_axis: job.output_axis,
        mask: mask.as_deref(),
        sensitivity: sensitivity.as_deref(),
        stop: worker.stop,
    };
    let mut palette = palettize(&tensor, &job.spec, &context);
    if let (Slot::QuantizedData { op }, Ok(palette)) = (job.slot, &mut palette) {
        palette.error = units::error(package, op, data.dtype, &bytes, palette)?;
    }
    if let Some(place) = &job.value.blob_file {
        crate::program::constant::release(package, place);
    }
    match palette {
        Err(Refusal::Stopped) => Err(Error::Stopped),
        palette => Ok(palette.map_err(Skip::from)),
    }
}

/// The dense bytes of a pruned weight, zeros where the mask has none.
fn dense_bytes(
    data: &Constant<'_>,
    mask: &Constant<'_>,
    size: usize,
) -> Result<Vec<u8>, decode::DenseError> {
    // The elements are moved, not looked into: an element is any `N` bytes.
    fn moved<const N: usize>(
        data: &[u8],
        mask: &Constant<'_>,
    ) -> Result<Vec<u8>, decode::DenseError>
    where
        [u8; N]: Default,
    {
        let (elements, _) = data.as_chunks::<N>();
        Ok(decode::sparse_to_dense(elements, &mask.bytes, &mask.shape)?.concat())
    }
    match size {
        1 => moved::<1>(&data.bytes, mask),
        2 => moved::<2>(&data.bytes, mask),
        _ => moved::<4>(&data.bytes, mask),
    }
}

fn store<W: Write + Seek>(
    palette: &Palette,
    job: &Job<'_>,
    rewriter: &mut Rewriter<'_, W>,
) -> Result<Done, Error> {
    let file = job.value.blob_file.as_ref();
    let file = file.map(|place| place.file_name.as_str());
    let stored = Stored::new(palette, job.slot, job.target, file, rewriter)?;
    Ok(Done {
        stored,
        nbits: palette.nbits.bits(),
        luts: palette.luts(),
        mse: palette.error.mse(),
        snr_db: palette.error.snr_db(),
        gap: palette.error.gap,
    })
}

fn report(planned: &Planned<'_>, done: Option<&Done>) -> WeightReport {
    let mut names = planned.sites.iter().map(|site| site.name.clone());
    let name = names.next().unwrap_or_default();
    let (shape, dtype) = (planned.shape.clone(), planned.dtype.name());
    let mut row = WeightReport {
        shared_with: names.collect(),
        op_types: planned.op_types.clone(),
        op_names: planned.op_names.clone(),
        ..WeightReport::untouched(name, shape, dtype, planned.bytes)
    };
    match (&planned.decision, done) {
        (Decision::Compress(job), Some(done)) => {
            let granularity = job.spec.granularity();
            row.status = Status::Compressed;
            row.nbits = Some(done.nbits);
            row.mode = Some(job.spec.mode().name().to_owned());
            row.granularity = Some(granularity.name().to_owned());
            row.group_size = match granularity {
                Granularity::PerTensor => None,
                Granularity::PerGroupedChannel { group_size, .. } => Some(group_size),
            };
            row.cluster_dim = Some(job.spec.cluster_dim());
            row.sensitivity = Some(job.sensitivity.is_some());
            row.luts = Some(done.luts);
            // Of a pruned weight the mask stays as it is.
            row.bytes_after = done.stored.bytes + kept_bytes(planned, job);
            row.mse = Some(done.mse);
            row.snr_db = Some(done.snr_db).filter(|snr| snr.is_finite());
            let scalar_kmeans =
                matches!(job.spec.mode(), Mode::Kmeans(_)) && job.spec.cluster_dim() == 1;
            row.optimality_gap = scalar_kmeans.then_some(done.gap);
        }
        (Decision::Skip(skip), _) => {
            row.reason = Some(skip.to_string());
            row.refused = skip.is_failure();
        }
        (Decision::Compress(_), None) => {}
    }
    row
}

/// Bytes of a jointly compressed weight that stay: its mask, or the scale of its quantization.
fn kept_bytes(planned: &Planned<'_>, job: &Job<'_>) -> u64 {
    let data = known_tensor(job.value.r#type.as_ref())
        .and_then(|(dtype, shape)| stored_bytes(dtype, element_count(&shape)?));
    match job.slot {
        Slot::Const => 0,
        _ => planned.bytes.saturating_sub(data.unwrap_or(0) as u64),
    }
}
