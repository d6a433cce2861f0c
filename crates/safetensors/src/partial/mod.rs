//! A checkpoint palettized by several runs: each leaves a partial result, and one run assembles them. `docs/distributed.md`
//! says how such a run is resumed.

mod file;
mod origin;

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::compress::{Palettized, spool, write_palettized};
use crate::output;
use crate::weights::Place;
use file::PartialResult;
use origin::Origin;
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{Decision, Plan, Progress, Report, SkipReason, plan};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

impl Checkpoint {
    /// The weights that `config` palettizes, with their bytes, in the order of the checkpoint: what
    /// [`palettize_part`](Self::palettize_part) can make parts of.
    ///
    /// # Errors
    /// As [`palettize_to`](Self::palettize_to), before anything is written.
    pub fn jobs(&self, config: &OptimizationConfig) -> Result<Vec<(&str, u64)>, Error> {
        one_run(config)?;
        let plan = plan(&*self.0, config, &())?;
        let jobs = plan.jobs().map(|(weight, _)| weight);
        Ok(jobs
            .map(|weight| (self.0.items[weight.place].name.as_str(), weight.bytes))
            .collect())
    }

    /// Palettizes some of the weights to a part, a file at `out` that [`assemble`](Self::assemble) takes. The weights are
    /// of those that [`jobs`](Self::jobs) lists.
    ///
    /// # Errors
    /// [`Error::NoJob`] for a weight that is none of those; else as [`palettize_to`](Self::palettize_to). What values
    /// refuse is no error yet: the part says so.
    pub fn palettize_part(
        &self,
        names: &[impl AsRef<str>],
        config: &OptimizationConfig,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let opened = &*self.0;
        one_run(config)?;
        let mut plan = plan(opened, config, progress)?;
        for name in names {
            let name = name.as_ref();
            if let Some(reason) = why_not(&plan, name) {
                let name = name.to_owned();
                return Err(Error::NoJob { name, reason });
            }
        }
        let named = |name: &str| names.iter().any(|own| own.as_ref() == name);
        plan.weights.retain(|planned| named(planned.weight.name()));
        let staged = output::file(out.as_ref(), options)?;
        let origins = plan.weights.iter().map(|planned| {
            let job = planned.job();
            job.map(|job| Origin::new(opened, &planned.weight, job, config.sensitivity()))
                .transpose()
        });
        let origins = staged.named(opened.settle(origins.collect()))?;
        // What values refuse is an error of the run that assembles.
        let config = config.clone().with_strict(false);
        let spooled = spool(opened, &mut plan, &config, &staged, progress);
        let (spooled, file) = staged.named(spooled)?;
        let written = file::write(&staged.built(), &plan, origins, &spooled, &file);
        staged.named(written)?;
        Ok(staged.commit()?)
    }

    /// Puts parts together to the checkpoint that [`palettize_to`](Self::palettize_to) would write, byte for byte.
    ///
    /// # Errors
    /// [`Error::Part`] for a file that is no part, or was made of another weight or by another configuration;
    /// [`Error::MissingParts`]; else as [`palettize_to`](Self::palettize_to).
    pub fn assemble(
        &self,
        config: &OptimizationConfig,
        parts: &[impl AsRef<Path>],
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let start = Instant::now();
        let opened = &*self.0;
        one_run(config)?;
        let mut plan = plan(opened, config, progress)?;
        let staged = output::prepare(opened, out.as_ref(), options)?;
        let mut opened_parts = Vec::with_capacity(parts.len());
        for path in parts {
            let part = PartialResult::open(path.as_ref())?;
            part.belongs(opened, &plan, config.sensitivity())?;
            opened_parts.push(part);
        }
        let mut found: HashMap<&str, _> = HashMap::new();
        for part in &opened_parts {
            for (name, weight) in &part.weights {
                found.entry(name).or_insert((weight, &part.file));
            }
        }
        let names = plan.jobs().map(|(weight, _)| weight.name());
        let missing: Vec<&str> = names.filter(|name| !found.contains_key(name)).collect();
        if let [first, ..] = missing.as_slice() {
            return Err(Error::MissingParts {
                count: missing.len(),
                first: (*first).to_owned(),
            });
        }
        let mut weights: Vec<Option<Palettized<'_>>> = Vec::with_capacity(plan.weights.len());
        for planned in &mut plan.weights {
            let Decision::Compress(job) = &planned.decision else {
                weights.push(None);
                continue;
            };
            let (weight, file) = found[planned.weight.name()];
            match weight {
                Ok(spooled) => {
                    let (nbits, luts, error) = (spooled.nbits, spooled.luts, &spooled.figures);
                    let figures = job.figures(nbits, luts, error, spooled.bytes());
                    weights.push(Some((figures, spooled.clone(), file)));
                }
                Err(reason) => {
                    planned.decision = Decision::Skip(SkipReason::Refused(reason.clone()));
                    weights.push(None);
                }
            }
        }
        plan.check_strict(config)?;
        write_palettized(opened, plan, &weights, staged, progress, start)
    }
}

/// Refuses what a part does not say whether it was made with, and what is decided over all weights at once.
fn one_run(config: &OptimizationConfig) -> Result<(), Error> {
    let given = [
        (config.statistics().is_some(), "statistics"),
        (config.budget().is_some(), "a budget"),
    ];
    match given.iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, what)) => Err(Error::Unsuited {
            what: format!("a run of several parts with {what}"),
            advice: "palettize it in one run",
        }),
    }
}

/// Why no part can be made of a weight; `None` if it can.
fn why_not(plan: &Plan<Place>, name: &str) -> Option<String> {
    let mut weights = plan.weights.iter();
    match weights.find(|planned| planned.weight.name() == name) {
        None => Some("the checkpoint has no such tensor".to_owned()),
        Some(planned) => match &planned.decision {
            Decision::Compress(_) => None,
            Decision::Skip(reason) => Some(reason.to_string()),
        },
    }
}
