//! A model palettized: its weights by the pipeline, the weight files and the program rewritten around them.

use crate::Error;
use crate::blob::WeightWriter;
use crate::notes::notes;
use crate::opset;
use crate::package::Package;
use crate::palettize::emit::Stored;
use crate::palettize::splice::{Replacement, splice};
use crate::palettize::weights::{Site, Weights};
use crate::program::graph::Graph;
use crate::program::typing::check_written;
use crate::proto::Model;
use crate::rewrite::{Rewriter, Written};
use palettizer_pipeline::config::{OptimizationConfig, Unmatched};
use palettizer_pipeline::{Done, Note, Plan, Progress, WeightReport, execute, go_on, plan};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Seek, Write};

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
/// What planning, reading the weights or writing the files may give; `Strict` if the
/// configuration is strict and a weight could not be palettized.
pub(crate) fn apply<W: Write + Seek + Send>(
    package: &Package,
    original: &Model,
    config: &OptimizationConfig,
    open: &mut (dyn FnMut(&str) -> Result<WeightWriter<W>, Error> + Send),
    progress: &dyn Progress,
) -> Result<Applied<W>, Error> {
    let mut spec = Cow::Borrowed(original);
    let mut changed = false;
    if let Some(target) = config.minimum_deployment_target() {
        changed = opset::raise(spec.to_mut(), target)?;
    }
    let format = Weights {
        package,
        model: &spec,
        graph: Graph::build(&spec)?,
    };
    let mut plan = plan(&format, config)?;
    let mut rewriter = Rewriter::new(package, open, progress.stop());
    let done = execute(
        &format,
        &mut plan,
        config,
        |planned, palette| {
            let site = &planned.weight.place;
            let file = site.blob().map(|place| place.file_name.as_str());
            let stored = Stored::new(palette, site.slot, site.target(), file, &mut rewriter)?;
            let bytes = stored.bytes + site.kept_bytes(planned.weight.bytes);
            Ok((stored, bytes))
        },
        progress,
    )?;
    let rows = plan.weights.iter().zip(&done);
    let figures = |done: &Option<Done<_>>| done.as_ref().map(|done| done.figures.clone());
    let weights = rows.map(|(planned, done)| planned.report(figures(done)));
    let mut applied = Applied {
        spec: spec.clone().into_owned(),
        files: None,
        weights: weights.collect(),
        unmatched: std::mem::take(&mut plan.unmatched),
        notes: Vec::new(),
    };
    if changed || done.iter().any(Option::is_some) {
        splice(
            &mut applied.spec,
            &replacements(&plan, &done),
            &mut rewriter,
        )?;
        check_written(original, &applied.spec)?;
        applied.files = Some(rewriter.finish()?);
        let written = done.iter().flatten().map(|done| done.stored.written());
        applied.notes = notes(&applied.spec, &written.collect::<Vec<_>>());
        go_on(progress.stop())?;
        progress.finish();
    }
    Ok(applied)
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
