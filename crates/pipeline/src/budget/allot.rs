//! The forms of a plan chosen for a budget.

use super::choose::{Candidate, choose};
use super::curves::{Curve, curves};
use super::room::Room;
use crate::Progress;
use crate::config::OptimizationConfig;
use crate::format::Format;
use crate::planned::{Decision, Job, Plan, SkipReason};
use palettizer_palette::PaletteSpec;
use std::collections::VecDeque;

/// Chooses the forms of the weights of a plan, if there is a budget.
///
/// # Errors
/// [`Error::Budget`](crate::Error::Budget) if it cannot be met, and what pricing may give.
pub(crate) fn allot<F: Format>(
    format: &F,
    plan: &mut Plan<F::Place>,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<(), F::Error> {
    let Some(budget) = config.budget() else {
        return Ok(());
    };
    let curves = curves(format, plan, config, progress)?;
    let jobs = plan.weights.iter();
    let jobs = jobs.filter_map(|planned| Some((&planned.weight, planned.job()?)));
    let candidates = jobs.filter_map(|(weight, job)| {
        Some(Candidate {
            forms: job.forms().iter().map(Curve::form).collect(),
            pinned: job.choices.is_empty(),
            ..Candidate::new(
                weight.name(),
                weight.bytes,
                curves.weights.get(weight.name())?,
            )
        })
    });
    let candidates: Vec<Candidate<'_>> = candidates.collect();
    let room = Room::of(format, plan)?;
    let choice = choose(budget, &candidates, &room)?;
    let mut chosen: VecDeque<_> = choice.weights.into();
    plan.budget = Some(choice.report);
    for planned in &mut plan.weights {
        let Decision::Compress(job) = &mut planned.decision else {
            continue;
        };
        match chosen.pop_front() {
            Some(Ok(allotted)) => {
                if let Some(spec) = spec(job, &allotted.form.form) {
                    job.spec = spec;
                }
                planned.allotted = Some(allotted);
            }
            Some(Err(reason)) => {
                planned.decision = Decision::Skip(SkipReason::Refused(reason));
            }
            None => {}
        }
    }
    plan.check_strict(config)?;
    Ok(())
}

/// The form of this name.
fn spec(job: &Job, form: &str) -> Option<PaletteSpec> {
    let mut forms = job.forms().iter();
    forms.find(|spec| Curve::form(spec) == form).cloned()
}
