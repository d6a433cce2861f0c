//! A model palettized: its weights by the pipeline, the weight files and the program rewritten around them.

use crate::Error;
use crate::blob::WeightWriter;
use crate::opset::{self, Opset as _};
use crate::package::Package;
use crate::palettize::emit::Stored;
use crate::palettize::splice::{Replacement, splice};
use crate::palettize::weights::{Site, Weights};
use crate::program::typing::check_written;
use crate::proto::Model;
use crate::rewrite::{Rewriter, Written};
use palettizer_palette::PaletteSpec;
use palettizer_pipeline::budget::{Chosen, Curves};
use palettizer_pipeline::config::{OptimizationConfig, Target};
use palettizer_pipeline::{
    Done, Plan, Progress, Report, check_promise, chosen, curves, execute, forms, go_on, plan,
};
use prost::Message as _;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Seek, Write};
use std::time::Instant;

/// A model palettized.
pub(crate) struct Applied<W> {
    /// The new model.
    pub spec: Model,
    /// Its weight files; `None` if they are as they were.
    pub files: Option<Written<W>>,
    /// What became of every weight.
    pub report: Report,
}

/// Palettizes the weights of `spec` as `config` says. `open` begins a new weight file of a name.
///
/// # Errors
/// What planning, reading the weights or writing the files may give; `Strict` if the
/// configuration is strict and a weight could not be palettized.
pub(crate) fn apply<W: Write + Seek + Send>(
    package: &Package,
    original: &Model,
    config: &OptimizationConfig,
    open: &mut (dyn FnMut(&str) -> Result<WeightWriter<W>, Error> + Send),
    progress: &dyn Progress,
) -> Result<Applied<W>, Error> {
    let start = Instant::now();
    let (spec, changed) = raised(original, config)?;
    let format = Weights::new(package, &spec)?;
    let mut plan = plan(&format, config, progress)?;
    let mut rewriter = Rewriter::new(package, open, progress.stop());
    let done = execute(
        &format,
        &mut plan,
        config,
        |planned, palette| {
            let site = &planned.weight.place;
            let file = site.blob().map(|place| place.file_name.as_str());
            let store =
                |dtype, shape: &[usize], data: &[u8]| rewriter.store(file, dtype, shape, data);
            let stored = Stored::new(palette, site.slot, site.target(), store)?;
            let bytes = stored.bytes + site.kept_bytes(planned.weight.bytes);
            Ok((stored, bytes))
        },
        progress,
    )?;
    let rows = plan.weights.iter().zip(&done);
    let figures = |done: &Option<Done<_>>| done.as_ref().map(|done| done.figures.clone());
    let weights = rows.map(|(planned, done)| planned.report(figures(done)));
    let weights = weights.collect();
    let unmatched = std::mem::take(&mut plan.unmatched);
    let mut written = spec.clone().into_owned();
    let (mut files, mut notes) = (None, Vec::new());
    if changed || done.iter().any(Option::is_some) {
        splice(&mut written, &replacements(&plan, &done), &mut rewriter)?;
        check_written(original, &written)?;
        files = Some(rewriter.finish()?);
        let forms = done.iter().flatten().map(|done| done.stored.written());
        notes = crate::notes::notes(&written, &forms.collect::<Vec<_>>());
        go_on(progress.stop())?;
        progress.finish();
    }
    let weight_bytes = match &files {
        Some(files) => files.values().map(|(_, len)| len).sum(),
        None => package.weights_len(),
    };
    let after = weight_bytes + written.encoded_len() as u64;
    let budget = plan.budget.take();
    check_promise(budget.as_ref(), after)?;
    let mut report = Report::new(package.stored_len(), after, weights, start);
    report = report.with_unmatched(unmatched).with_budget(budget);
    report.target = Some(target_name(&written));
    report.notes = notes;
    Ok(Applied {
        spec: written,
        files,
        report,
    })
}

/// The model with the opset that the configuration asks for, and whether that is another one.
fn raised<'m>(
    original: &'m Model,
    config: &OptimizationConfig,
) -> Result<(Cow<'m, Model>, bool), Error> {
    let mut spec = Cow::Borrowed(original);
    let mut changed = false;
    if let Some(target) = config.minimum_deployment_target() {
        changed = opset::raise(spec.to_mut(), target)?;
    }
    Ok((spec, changed))
}

/// The costs of all forms that a budget chooses from.
pub(crate) fn costs(
    package: &Package,
    original: &Model,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Curves, Error> {
    let (spec, _) = raised(original, config)?;
    curves(&Weights::new(package, &spec)?, config, progress)
}

/// What a budget comes to before anything is palettized.
pub(crate) fn allotted(
    package: &Package,
    original: &Model,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Option<Chosen>, Error> {
    let (spec, _) = raised(original, config)?;
    chosen(&Weights::new(package, &spec)?, config, progress)
}

/// The weights that a budget chooses forms for, with the forms.
pub(crate) fn choices(
    package: &Package,
    original: &Model,
    config: &OptimizationConfig,
) -> Result<Vec<WeightForms>, Error> {
    let (spec, _) = raised(original, config)?;
    let plan = forms(&Weights::new(package, &spec)?, config)?;
    let weights = plan.jobs().map(|(weight, job)| WeightForms {
        name: weight.name().to_owned(),
        bytes: weight.bytes,
        forms: job.forms().to_vec(),
    });
    Ok(weights.collect())
}

/// A weight, and the forms that it may take.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WeightForms {
    /// Its name.
    pub name: String,
    /// Bytes that it takes now.
    pub bytes: u64,
    /// What it may become.
    pub forms: Vec<PaletteSpec>,
}

/// The target of a model's specification version; empty for one that we do not know.
fn target_name(spec: &Model) -> String {
    let version = spec.specification_version;
    let mut targets = Target::ALL.into_iter();
    let target = targets.find(|target| target.specification_version() == version);
    target.map_or_else(String::new, |target| target.to_string())
}

/// What takes the place of each operation that holds a palettized weight, by its ordinal.
fn replacements<'p>(
    plan: &'p Plan<Site<'_>>,
    done: &'p [Option<Done<Stored>>],
) -> HashMap<usize, Replacement<'p>> {
    let done = plan.weights.iter().zip(done);
    let done = done.filter_map(|(planned, done)| Some((planned, done.as_ref()?)));
    let all = done.flat_map(|(planned, done)| {
        planned.places().map(|weight| {
            let replacement = Replacement {
                name: weight.name(),
                data_param: weight.place.slot.data_param(),
                keeps_name: weight.place.is_output,
                stored: &done.stored,
            };
            (weight.place.ordinal, replacement)
        })
    });
    all.collect()
}
