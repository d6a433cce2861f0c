//! What the error of each weight does to the outputs of its model, measured, and the choice that is best by measurement.
//!
//! 1. *Responses.* Each weight in its turn is palettized alone, in a few forms that lose from little to much, and the program is run:
//!    how far its outputs move, as a part of their energy, is the harm of these forms, and by their errors that of all others.
//! 2. *Candidates.* The harms of several weights add up as far as their errors are independent, and the network is nearly linear in
//!    them. Where they do not, the best choice by the sum need not be the best: the choice that knows nothing of inputs, and the
//!    largest forms that all weights can have alike, are run too, whole, and the best of all by measurement is taken.
//! 3. *A quality that was asked for* is measured in the same way, and asked for anew by what was missing.
//!
//! Source: sensitivities of layers that are measured one at a time are the usual way to mixed precision (Dong et al., "HAWQ", 2019,
//! estimate them instead); the rest follows from what is measured here.

use super::{Budget, Chosen, Curve, Curves, Goal, Priced, Response, telling};
use crate::compare::OutputNoise;
use crate::coreml::{self, Model, WeightForms};
use crate::runtime::{Named, RunOptions, Session};
use crate::values::Samples;
use crate::{
    Error, OpPalettizerConfig, OptimizationConfig, PaletteSpec, PipelineError, Progress, Report,
};
use std::collections::BTreeMap;

/// Samples that a calibration uses if nobody says how many.
pub const CALIBRATION_SAMPLES: usize = 16;

/// Forms that all weights have alike which are measured whole.
const ALIKE: usize = 3;

/// How often a quality is asked for anew at most.
const ROUNDS: usize = 6;

/// Decibels that are asked for beyond what was missing, at first.
const LITTLE: f64 = 0.1;

/// What came of a calibration.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Calibration {
    /// The budget with all that was measured, and with the choice that was best.
    pub budget: Budget,
    /// Signal-to-noise ratio of the outputs with it in dB, the mean over outputs; infinite if nothing is lost.
    pub measured_snr_db: f64,
    /// Choices that were measured.
    pub candidates: usize,
}

/// Measures what the errors of weights do to the outputs of a model, and the choices for its budget.
///
/// ```no_run
/// use palettizer::budget::{Budget, CALIBRATION_SAMPLES, Goal, calibrate};
/// use palettizer::coreml::Model;
/// use palettizer::runtime::Session;
/// use palettizer::values::Samples;
/// use palettizer::{OptimizationConfig, SaveOptions};
///
/// let model = Model::open("Model.mlpackage")?;
/// let samples = Samples::open("calibration.npz", Session::new(&model)?.interface(None)?)?;
/// let config = OptimizationConfig::new().with_budget(Budget::new(Goal::Ratio(6.0)));
/// if let Some(found) = calibrate(&model, &samples.first(CALIBRATION_SAMPLES), &config, &())? {
///     println!("{} dB", found.measured_snr_db);
///     let config = config.with_budget(found.budget);
///     model.palettize_to(&config, "Small.mlpackage", SaveOptions::default(), &())?;
/// }
/// # Ok::<(), palettizer::Error>(())
/// ```
///
/// It gives `None` for a configuration without a budget.
///
/// # Errors
/// A budget that cannot be met, and what palettizing and running may give.
pub fn calibrate(
    model: &Model,
    samples: &Samples,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Option<Calibration>, Error> {
    let Some(budget) = config.budget() else {
        return Ok(None);
    };
    let budget = budget.clone().with_curves(model.curves(config, progress)?);
    let mut bench = Bench::new(model, samples, config, progress)?;
    let budget = match budget.responses() {
        Some(_) => budget,
        None => budget.clone().with_responses(bench.responses(&budget)?),
    };
    let (goal, mut best) = match budget.goal() {
        Goal::MinSnr(snr) => bench.reach(&budget, snr)?,
        goal => (goal, bench.best(&budget)?),
    };
    best.budget = best.budget.with_goal(goal);
    Ok(Some(Calibration {
        measured_snr_db: -10.0 * best.noise.log10(),
        candidates: bench.candidates,
        budget: best.budget,
    }))
}

/// A choice, and what it does to the outputs.
pub(super) struct Candidate {
    pub(super) budget: Budget,
    pub(super) noise: f64,
}

/// A model and its outputs, that others are held against.
pub(super) struct Bench<'a> {
    model: &'a Model,
    samples: &'a Samples,
    config: OptimizationConfig,
    progress: &'a dyn Progress,
    before: Vec<Named>,
    candidates: usize,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        model: &'a Model,
        samples: &'a Samples,
        config: &OptimizationConfig,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let mut bench = Bench {
            model,
            samples,
            config: config.clone(),
            progress,
            before: Vec::new(),
            candidates: 0,
        };
        bench.before = bench.outputs(model)?;
        Ok(bench)
    }

    fn outputs(&self, model: &Model) -> Result<Vec<Named>, Error> {
        let session = Session::new(model)?.keep_constants(self.samples.len() > 1);
        let options = RunOptions {
            stop: self.progress.stop(),
            ..RunOptions::default()
        };
        let one = |at| {
            let inputs = self.samples.get(at)?;
            let mut state = session.state(None)?;
            Ok(session.run_with(None, inputs, &mut state, options, None)?)
        };
        (0..self.samples.len()).map(one).collect()
    }

    /// How far the outputs of another model are off, as a part of their energy.
    fn noise(&self, after: &Model) -> Result<f64, Error> {
        let mut noise = OutputNoise::default();
        for (before, after) in self.before.iter().zip(self.outputs(after)?) {
            noise.add(before, &after);
        }
        Ok(noise.mean())
    }

    /// What the error of each weight does to the outputs.
    pub(super) fn responses(&self, budget: &Budget) -> Result<BTreeMap<String, Response>, Error> {
        let none = Curves::default();
        let curves = budget.curves().unwrap_or(&none);
        let weights = self
            .model
            .forms(&self.config.clone().with_budget(budget.clone()))?;
        let bytes = weights.iter().map(|weight| weight.bytes).sum();
        self.progress.start(weights.len(), bytes);
        let mut responses = BTreeMap::new();
        for weight in weights {
            let mut points = Vec::new();
            for (spec, error) in measured_forms(&weight, curves) {
                let alone = alone(&self.config, &weight.name, spec);
                let (after, _) = self.model.palettize(&alone, &())?;
                // what breaks the outputs is worth whatever it takes
                points.push((error, self.noise(&after)?.min(f64::MAX.sqrt())));
            }
            self.progress.advance(&weight.name, weight.bytes);
            responses.insert(weight.name, Response::new(points));
        }
        Ok(responses)
    }

    /// The best choice for a budget, by measurement.
    pub(super) fn best(&mut self, budget: &Budget) -> Result<Candidate, Error> {
        let mut best = self.candidate(budget.clone().with_forms(None))?;
        let blind = self.chosen(&budget.clone().with_responses(None).with_forms(None))?;
        let mut others: Vec<_> = blind.map(|blind| blind.forms).into_iter().collect();
        others.extend(self.alike(budget)?);
        for forms in others {
            match self.candidate(budget.clone().with_forms(forms)) {
                Ok(candidate) if candidate.noise < best.noise => best = candidate,
                // it was a few bytes too many
                Err(Error::Pipeline(PipelineError::Budget { .. })) | Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    /// The choice for a quality: the smallest that was found to have it.
    fn reach(&mut self, budget: &Budget, asked: f64) -> Result<(Goal, Candidate), Error> {
        let enough = 10_f64.powf(-asked / 10.0);
        let mut goal = asked;
        let mut best = self.candidate(budget.clone().with_goal(Goal::MinSnr(goal)))?;
        let mut more = LITTLE;
        for _ in 0..ROUNDS {
            if best.noise <= enough {
                break;
            }
            // what is missing, and more than that each time: the next form may be as far off again
            goal += -10.0 * (enough / best.noise).log10() + more;
            more *= 2.0;
            match self.candidate(budget.clone().with_goal(Goal::MinSnr(goal))) {
                Ok(candidate) => best = candidate,
                // there is nothing better to be had
                Err(Error::Pipeline(PipelineError::Budget { .. })) => break,
                Err(error) => return Err(error),
            }
        }
        match best.noise <= enough {
            true => Ok((Goal::MinSnr(asked), best)),
            false => Err(PipelineError::Budget {
                what: format!(
                    "min_snr is {asked}; the best that was measured is {:.2} dB: allow more forms, or ask for less",
                    -10.0 * best.noise.log10()
                ),
            }
            .into()),
        }
    }

    /// What a budget comes to; `None` if it cannot be met, or the opset has no such forms.
    fn chosen(&self, budget: &Budget) -> Result<Option<Chosen>, Error> {
        let config = self.config.clone().with_budget(budget.clone());
        match self.model.chosen(&config, &()).map_err(Error::from) {
            Err(Error::Pipeline(PipelineError::Budget { .. })) => Ok(None),
            Err(Error::CoreMl(coreml::Error::OpsetTooOld { .. })) => Ok(None),
            chosen => chosen,
        }
    }

    /// What a budget comes to, measured, with the choice that was made.
    fn candidate(&mut self, budget: Budget) -> Result<Candidate, Error> {
        self.candidates += 1;
        let config = self.config.clone().with_budget(budget.clone());
        let (after, report) = self.model.palettize(&config, &())?;
        Ok(Candidate {
            noise: self.noise(&after)?,
            budget: budget.with_forms(choice(&report)),
        })
    }

    /// The choices in which all weights have the same form, the largest that fit.
    fn alike(&self, budget: &Budget) -> Result<Vec<BTreeMap<String, String>>, Error> {
        let mut found = Vec::new();
        for form in budget.choices().each() {
            // a few bytes too many by the prices may be none too many when it is written
            let budget = budget.clone().with_choices(form).with_forms(None);
            let budget = budget.with_goal(Goal::MinSnr(f64::MIN));
            if let Some(chosen) = self.chosen(&budget)? {
                found.push((chosen.report.bytes, chosen.forms));
            }
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let mut fitting = Vec::new();
        for (_, forms) in found {
            let named = budget.clone().with_forms(forms.clone());
            if fitting.len() < ALIKE
                && self
                    .chosen(&named)?
                    .is_some_and(|chosen| chosen.forms == forms)
            {
                fitting.push(forms);
            }
        }
        Ok(fitting)
    }
}

/// The form that each weight of a report has, by its name.
fn choice(report: &Report) -> BTreeMap<String, String> {
    let rows = report.weights.iter();
    let rows =
        rows.filter_map(|row| Some((row.name.clone(), row.budget.as_ref()?.form.form.clone())));
    rows.collect()
}

/// The forms that are measured, each once, with what they lose.
fn measured_forms<'w>(weight: &'w WeightForms, curves: &Curves) -> Vec<(&'w PaletteSpec, f64)> {
    let Some(curve) = curves.weights.get(&weight.name) else {
        return Vec::new();
    };
    let error = |spec: &PaletteSpec| match curve.forms.get(&Curve::form(spec))? {
        Priced::Costs { error, .. } => Some(*error),
        Priced::Refused(_) => None,
    };
    let forms = weight.forms.iter();
    let forms: Vec<(&PaletteSpec, f64)> = forms
        .filter_map(|spec| Some((spec, error(spec)?)))
        .collect();
    let errors: Vec<f64> = forms.iter().map(|(_, error)| *error).collect();
    let found = telling(&errors).into_iter();
    found.map(|at| forms[at]).collect()
}

/// One weight palettized alone, as it would be with the others.
fn alone(config: &OptimizationConfig, name: &str, spec: &PaletteSpec) -> OptimizationConfig {
    OptimizationConfig::new()
        .with_op_name(
            name,
            OpPalettizerConfig::new(spec.clone()).with_weight_threshold(0),
        )
        .with_joint_compression(config.joint_compression())
        .with_minimum_deployment_target(config.minimum_deployment_target())
        .with_sensitivity(config.sensitivity().cloned())
        .with_statistics(config.statistics().cloned())
}
