//! What will happen to every weight, and why, decided before anything changes.
//!
//! The plan is read only: it looks at types, shapes, names and users, not at the weights' values. What only
//! the values can tell (too many distinct ones, NaN) is found while the plan is carried out and ends as a
//! skip in the report too; the model that came in is never touched either way.

use crate::Error;
use crate::config::{DEFAULT_WEIGHT_THRESHOLD, OptimizationConfig, Unmatched};
use crate::format::{Format, Source, Weight};
use crate::report::{Fate, Figures, WeightReport};
use crate::rules::{Resolution, Rules};
use crate::sensitivity;
use palettizer_palette::{ErrorFigures, PaletteSpec, layout, suits};
use std::collections::HashMap;

/// The plan of a whole model.
#[derive(Debug)]
pub struct Plan<P> {
    /// Every weight, in the order of the model.
    pub weights: Vec<Planned<P>>,
    /// Op types and names of the configuration that fit nothing in the model.
    pub unmatched: Vec<Unmatched>,
}

/// What will happen to one weight.
#[derive(Debug)]
pub struct Planned<P> {
    /// The weight.
    pub weight: Weight<P>,
    /// Others that share its data and its fate.
    pub twins: Vec<Weight<P>>,
    /// Its fate.
    pub decision: Decision,
}

/// The fate of a weight.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is palettized.
    Compress(Job),
    /// It is left alone.
    Skip(SkipReason),
}

/// How a weight is palettized.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// From this.
    pub source: Source,
    /// By this.
    pub spec: PaletteSpec,
    /// What its sensitivities are called, if it has any.
    pub sensitivity: Option<String>,
}

/// Why a weight is left alone; its text stands in the report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SkipReason {
    /// The configuration says so.
    #[error("the configuration skips it")]
    Null,
    /// The preset says so.
    #[error("{0}")]
    Preset(&'static str),
    /// The configuration says nothing.
    #[error("no configuration applies to it")]
    Unset,
    /// It is no weight that could be palettized; the format says why.
    #[error("{0}")]
    Ineligible(String),
    /// It is too small.
    #[error("no more elements than the weight_threshold of {threshold}")]
    Small {
        /// The elements that a weight must exceed.
        threshold: usize,
    },
    /// It cannot be palettized as asked.
    #[error("{0}")]
    Refused(String),
}

impl SkipReason {
    /// Whether the weight was to be palettized and could not be: what strict mode objects to. A constant
    /// that is no palettizable weight, and one that is compressed already, are no failures.
    pub fn is_failure(&self) -> bool {
        matches!(self, SkipReason::Refused(_))
    }
}

/// Plans what `config` asks of a model.
///
/// # Errors
/// [`Error::Pattern`] for a key that is neither name nor pattern, [`Error::ConfigConflict`] if the users of one weight
/// are configured differently, [`Error::Strict`] if a weight cannot be palettized and the configuration is strict,
/// [`Error::Sensitivities`] if those that were given do not fit; what the format objects to.
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
        }))),
    }
}

impl<P> Plan<P> {
    /// Refuses, if the configuration is strict, the skips that nobody asked for.
    ///
    /// # Errors
    /// [`Error::Strict`] with all of them.
    pub fn check_strict(&self, config: &OptimizationConfig) -> Result<(), Error> {
        let failure = |planned: &Planned<P>| match &planned.decision {
            Decision::Skip(reason) if reason.is_failure() => {
                Some((planned.weight.name().to_owned(), reason.to_string()))
            }
            _ => None,
        };
        let skipped: Vec<_> = self.weights.iter().filter_map(failure).collect();
        match config.strict() && !skipped.is_empty() {
            true => Err(Error::Strict { skipped }),
            false => Ok(()),
        }
    }
}

impl<P> Planned<P> {
    /// How it is palettized, if it is.
    pub fn job(&self) -> Option<&Job> {
        match &self.decision {
            Decision::Compress(job) => Some(job),
            Decision::Skip(_) => None,
        }
    }

    /// The weight, and all that go with it.
    pub fn places(&self) -> impl Iterator<Item = &Weight<P>> {
        std::iter::once(&self.weight).chain(&self.twins)
    }

    /// Its row of the report; `figures` are those of its palette.
    pub fn report(&self, figures: Option<Figures>) -> WeightReport {
        let weight = &self.weight;
        let fate = match (figures, &self.decision) {
            (Some(figures), _) => Fate::Compressed(figures),
            (None, Decision::Skip(reason)) => Fate::Skipped {
                reason: reason.to_string(),
                refused: reason.is_failure(),
            },
            (None, Decision::Compress(_)) => Fate::Skipped {
                reason: "it was not worked on".to_owned(),
                refused: true,
            },
        };
        let mut row = WeightReport::new(
            weight.name(),
            &weight.shape,
            weight.dtype,
            weight.bytes,
            fate,
        );
        let twins = self.twins.iter().map(|twin| twin.name().to_owned());
        row.shared_with.extend(twins);
        for user in self
            .places()
            .flat_map(|weight| weight.users.iter().flatten())
        {
            if !row.op_types.contains(&user.op_type) {
                row.op_types.push(user.op_type.clone());
            }
            if !row.op_names.contains(&user.name) {
                row.op_names.push(user.name.clone());
            }
        }
        row
    }
}

impl Job {
    /// What the report says of a palette that was made by this and takes so many bytes.
    pub fn figures(&self, nbits: u32, luts: usize, error: &ErrorFigures, bytes: u64) -> Figures {
        Figures {
            sensitivity: Some(self.sensitivity.is_some()),
            ..Figures::new(&self.spec, nbits, luts, error, bytes)
        }
    }
}
