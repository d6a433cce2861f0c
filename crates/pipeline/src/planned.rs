//! A plan: what will happen to every weight, and why.

use crate::budget::{Allotted, BudgetReport};
use crate::config::{OptimizationConfig, Unmatched};
use crate::format::{Source, Weight};
use crate::report::{Fate, Figures, WeightReport};
use crate::{Error, Inputs};
use palettizer_palette::{ErrorFigures, PaletteSpec};

/// The plan of a whole model.
#[derive(Debug)]
pub struct Plan<P> {
    /// Every weight, in the order of the model.
    pub weights: Vec<Planned<P>>,
    /// Op types and names of the configuration that fit nothing in the model.
    pub unmatched: Vec<Unmatched>,
    /// What came of the budget, once forms are chosen for it.
    pub budget: Option<BudgetReport>,
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
    /// What the budget gave it, if there is one.
    pub allotted: Option<Allotted>,
}

/// The fate of a weight.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is palettized.
    Compress(Box<Job>),
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
    /// With a budget, by one of these; none if its own configuration leaves no choice.
    pub choices: Vec<PaletteSpec>,
    /// What its sensitivities are called, if it has any.
    pub sensitivity: Option<String>,
    /// What is known of its inputs, if it was asked for.
    pub inputs: Option<Inputs>,
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

impl<P> Plan<P> {
    /// The weights that are palettized, and how.
    pub fn jobs(&self) -> impl Iterator<Item = (&Weight<P>, &Job)> {
        let weights = self.weights.iter();
        weights.filter_map(|planned| Some((&planned.weight, planned.job()?)))
    }

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
        row.budget.clone_from(&self.allotted);
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
    /// The specs that there are for it: the choices of a budget, or the one.
    pub fn forms(&self) -> &[PaletteSpec] {
        match self.choices.as_slice() {
            [] => std::slice::from_ref(&self.spec),
            choices => choices,
        }
    }

    /// What the report says of a palette that was made by this and takes so many bytes.
    pub fn figures(&self, nbits: u32, luts: usize, error: &ErrorFigures, bytes: u64) -> Figures {
        Figures {
            sensitivity: Some(
                self.sensitivity.is_some() || self.inputs.as_ref().is_some_and(Inputs::weighs),
            ),
            ..Figures::new(&self.spec, nbits, luts, error, bytes)
        }
    }
}
