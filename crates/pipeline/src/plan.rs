//! What will happen to every weight, and why, decided before anything changes.
//!
//! A plan is read only: it looks at types, shapes, names and users, not at the weights' values, unless a budget has every form of
//! them priced. What only the values can tell (too many distinct ones, NaN) is found while the plan is carried out and ends as a
//! skip in the report too; the model that came in is never touched either way.

use crate::budget::{self, Budget, Chosen, Curves, Specs, allot};
use crate::config::{DEFAULT_WEIGHT_THRESHOLD, OptimizationConfig};
use crate::format::{Format, Source, Weight};
use crate::planned::{Decision, Job, Plan, Planned, SkipReason};
use crate::rules::{Resolution, Rules};
use crate::{FormatError as _, Progress, sensitivity, statistics};
use palettizer_palette::{PaletteSpec, Refusal, layout, suits};
use std::collections::HashMap;

/// Plans what `config` asks of a model, and chooses forms for the weights if that is to fit a budget; only for this does
/// `progress` hear anything, and are values read.
///
/// # Errors
/// [`Budget`](crate::Error::Budget) for one that cannot be met, with what pricing forms may give;
/// [`Pattern`](crate::Error::Pattern) for a key that is neither name nor pattern, [`ConfigConflict`](crate::Error::ConfigConflict) if the users of one weight
/// are configured differently, [`Strict`](crate::Error::Strict) if a weight cannot be palettized and the configuration is strict,
/// [`Sensitivities`](crate::Error::Sensitivities) or [`ForeignStatistics`](crate::Error::ForeignStatistics) if those that were given do not fit; what the format objects to.
pub fn plan<F: Format>(
    format: &F,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Plan<F::Place>, F::Error> {
    let mut plan = forms(format, config)?;
    allot(format, &mut plan, config, progress)?;
    Ok(plan)
}

/// What a budget comes to; `None` without one.
///
/// # Errors
/// As [`plan`](plan()).
pub fn chosen<F: Format>(
    format: &F,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Option<Chosen>, F::Error> {
    let plan = plan(format, config, progress)?;
    let forms = plan.weights.iter().filter_map(|planned| {
        let form = planned.allotted.as_ref()?.form.form.clone();
        Some((planned.weight.name().to_owned(), form))
    });
    let forms = forms.collect();
    Ok(plan.budget.map(|report| Chosen { report, forms }))
}

/// The costs of all forms that a budget chooses from.
///
/// # Errors
/// As [`plan`](plan()), but for a budget that cannot be met.
pub fn curves<F: Format>(
    format: &F,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Curves, F::Error> {
    budget::curves(format, &forms(format, config)?, config, progress)
}

/// The plan before a budget: the forms that each weight may take.
///
/// # Errors
/// As [`plan`](plan()), but for a budget that cannot be met.
pub fn forms<F: Format>(
    format: &F,
    config: &OptimizationConfig,
) -> Result<Plan<F::Place>, F::Error> {
    let weights = format.weights(config)?;
    let known = format.known();
    let budget = config.budget();
    let rules = Rules::new(config, &known)?;
    let mut plan = Plan {
        weights: Vec::new(),
        unmatched: rules.unmatched(&known),
        budget: None,
    };
    let mut sharing: HashMap<usize, Vec<usize>> = HashMap::new();
    for weight in weights {
        let Some(decision) = decide(format, &rules, budget, &weight)? else {
            continue;
        };
        let mut none = Vec::new();
        let same_data = match weight.data {
            Some(data) => sharing.entry(data).or_default(),
            None => &mut none,
        };
        let twin = |at: &usize| is_twin(format, &plan.weights[*at], &weight, &decision);
        match same_data.iter().copied().find(twin) {
            Some(at) => plan.weights[at].twins.push(weight),
            None => {
                same_data.push(plan.weights.len());
                plan.weights.push(Planned {
                    weight,
                    twins: Vec::new(),
                    decision,
                    allotted: None,
                });
            }
        }
    }
    plan.check_strict(config)?;
    if let Some(sensitivities) = config.sensitivity() {
        sensitivity::assign(&mut plan.weights, sensitivities)?;
    }
    if let Some(statistics) = config.statistics() {
        statistics::assign(format, &mut plan.weights, statistics)?;
    }
    Ok(plan)
}

/// Whether two weights in the same data can be palettized once for both.
fn is_twin<F: Format>(
    format: &F,
    planned: &Planned<F::Place>,
    weight: &Weight<F::Place>,
    decision: &Decision,
) -> bool {
    let first = &planned.weight;
    let same = (first.dtype, &first.shape) == (weight.dtype, &weight.shape)
        && planned.decision == *decision;
    match decision {
        Decision::Skip(_) => same,
        Decision::Compress(_) => {
            same && first.output_axis == weight.output_axis
                && format.same_place(&first.place, &weight.place)
        }
    }
}

/// The fate of a weight; `None` if nothing is to be said of one that is so small.
fn decide<F: Format>(
    format: &F,
    rules: &Rules<'_>,
    budget: Option<&Budget>,
    weight: &Weight<F::Place>,
) -> Result<Option<Decision>, F::Error> {
    let resolution = rules.resolve(weight);
    let threshold = match &resolution {
        Ok(Resolution::Config(config)) => config.weight_threshold(),
        Ok(Resolution::Null | Resolution::Leave(_) | Resolution::Unset) => DEFAULT_WEIGHT_THRESHOLD,
        Err(conflict) => conflict.least_threshold,
    };
    let small = weight.elements() <= threshold;
    if small && !F::REPORTS_SMALL {
        return Ok(None);
    }
    let skip = |reason| Ok(Some(Decision::Skip(reason)));
    let source = match &weight.source {
        Ok(source) => *source,
        Err(reason) => return skip(SkipReason::Ineligible(reason.clone())),
    };
    let spec = match resolution.map_err(|conflict| conflict.error)? {
        Resolution::Null => return skip(SkipReason::Null),
        Resolution::Leave(reason) => return skip(SkipReason::Preset(reason)),
        Resolution::Unset => return skip(SkipReason::Unset),
        Resolution::Config(_) if small => return skip(SkipReason::Small { threshold }),
        Resolution::Config(config) => config.spec(),
    };
    let free = budget.filter(|_| rules.is_global(spec));
    match free.and_then(|budget| budget.specs(spec)) {
        Some(choices) => among(format, weight, source, choices?).map(Some),
        None => Ok(Some(match fits(format, weight, source, spec)? {
            Err(refusal) => Decision::Skip(SkipReason::Refused(refusal.to_string())),
            Ok(()) => Decision::Compress(Box::new(Job {
                source,
                spec: spec.clone(),
                choices: Vec::new(),
                sensitivity: None,
                inputs: None,
            })),
        })),
    }
}

/// Whether a weight can be palettized by a spec, and why not.
fn fits<F: Format>(
    format: &F,
    weight: &Weight<F::Place>,
    source: Source,
    spec: &PaletteSpec,
) -> Result<Result<(), Refusal>, F::Error> {
    let fits = suits(source.dtype, source.masked, spec)
        .and_then(|()| layout(&weight.shape, weight.output_axis, spec));
    format.accepts(weight, spec, fits)
}

/// The fate of a weight that a budget has these choices for.
fn among<F: Format>(
    format: &F,
    weight: &Weight<F::Place>,
    source: Source,
    choices: Specs,
) -> Result<Decision, F::Error> {
    let mut refused = None;
    let mut barred = None;
    let mut accepted = Vec::new();
    for spec in choices.specs {
        match fits(format, weight, source, &spec) {
            Ok(Ok(())) => accepted.push(spec),
            Ok(Err(refusal)) => refused = refused.or(Some(refusal.to_string())),
            // what a model has no ops for is no choice, unless somebody asked for it, or there is no other
            Err(error) if choices.usual => match error.common() {
                Ok(error) => return Err(error.into()),
                Err(own) => barred = barred.or(Some(own)),
            },
            Err(error) => return Err(error),
        }
    }
    if let (Some(barred), true) = (barred, accepted.is_empty()) {
        return Err(barred);
    }
    Ok(match accepted.first().cloned() {
        Some(spec) => Decision::Compress(Box::new(Job {
            source,
            spec,
            choices: accepted,
            sensitivity: None,
            inputs: None,
        })),
        None => Decision::Skip(SkipReason::Refused(refused.unwrap_or_default())),
    })
}
