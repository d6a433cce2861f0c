//! What will happen to every weight, and why, decided before anything changes.
//!
//! A plan is read only: it looks at types, shapes, names and users, not at the weights' values. What only
//! the values can tell (too many distinct ones, NaN) is found while the plan is carried out and ends as a
//! skip in the report too; the model that came in is never touched either way.

use crate::config::{DEFAULT_WEIGHT_THRESHOLD, OptimizationConfig};
use crate::format::{Format, Weight};
use crate::planned::{Decision, Job, Plan, Planned, SkipReason};
use crate::rules::{Resolution, Rules};
use crate::{sensitivity, statistics};
use palettizer_palette::{layout, suits};
use std::collections::HashMap;

/// Plans what `config` asks of a model.
///
/// # Errors
/// [`Pattern`](crate::Error::Pattern) for a key that is neither name nor pattern, [`ConfigConflict`](crate::Error::ConfigConflict) if the users of one weight
/// are configured differently, [`Strict`](crate::Error::Strict) if a weight cannot be palettized and the configuration is strict,
/// [`Sensitivities`](crate::Error::Sensitivities) or [`ForeignStatistics`](crate::Error::ForeignStatistics) if those that were given do not fit; what the format objects to.
pub fn plan<F: Format>(
    format: &F,
    config: &OptimizationConfig,
) -> Result<Plan<F::Place>, F::Error> {
    let weights = format.weights(config)?;
    let known = format.known();
    let rules = Rules::new(config, &known)?;
    let mut plan = Plan {
        weights: Vec::new(),
        unmatched: rules.unmatched(&known),
    };
    let mut sharing: HashMap<usize, Vec<usize>> = HashMap::new();
    for weight in weights {
        let Some(decision) = decide(format, &rules, &weight)? else {
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
    let fits = suits(source.dtype, source.masked, spec)
        .and_then(|()| layout(&weight.shape, weight.output_axis, spec));
    match format.accepts(weight, spec, fits)? {
        Err(refusal) => skip(SkipReason::Refused(refusal.to_string())),
        Ok(()) => Ok(Some(Decision::Compress(Job {
            source,
            spec: spec.clone(),
            sensitivity: None,
            inputs: None,
        }))),
    }
}
