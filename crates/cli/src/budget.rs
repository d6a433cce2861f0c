//! Flags that say a size or a quality, for which bits are chosen.

use std::path::{Path, PathBuf};

use palettizer::budget::{Budget, CALIBRATION_SAMPLES, Choices, Goal, GoalName, Informed, inform};
use palettizer::runtime::Session;
use palettizer::values::Samples;
use palettizer::{Limits, Model, OpOptions, OptimizationConfig, SaveOptions, StagedOutput};

use crate::failure::Failure;
use crate::progress::Bar;

/// What is asked for, and what there is to choose from.
#[derive(clap::Args)]
#[command(next_help_heading = "Budget")]
pub(crate) struct BudgetFlags {
    /// Choose the bits of each weight so that OUT takes at most SIZE bytes, such as 20MB, and loses least
    #[arg(long, value_name = "SIZE", value_parser = goal(GoalName::Size), group = "goal")]
    target_size: Option<Goal>,
    /// The same for so many bits a weight on average, tables and all, such as 3.5
    #[arg(long, value_name = "BITS", value_parser = goal(GoalName::BitsPerWeight), group = "goal")]
    target_bpw: Option<Goal>,
    /// The same for an OUT that is so many times smaller than IN, such as 5
    #[arg(long, value_name = "N", value_parser = goal(GoalName::Ratio), group = "goal")]
    target_ratio: Option<Goal>,
    /// Where nothing else says how many bits: choose them so that OUT is smallest, with an expected SNR of so many decibels.
    /// With --verify, fail with exit code 3 if an output's SNR is lower
    #[arg(long, value_name = "DB", value_parser = decibels, allow_negative_numbers = true)]
    pub(crate) min_snr: Option<f64>,
    /// What there is to choose from: values of options, such as nbits=2/3/4,group-size=none/16,lut-dtype=float/int8
    /// [default: nbits=1/2/3/4/6/8,group-size=none/32/8]
    #[arg(long, value_name = "LIST")]
    choices: Option<Choices>,
    /// Measure on the inputs in FILE what each weight's error does to the outputs, and choose by that
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Use no more than the first N of them [default: 16]
    #[arg(long, value_name = "N", requires = "inputs", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Write the choice to FILE.yaml, a configuration for --config that gives the same model again
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Keep what each form of each weight costs in FILE, and take from it what is known: another budget then takes no time
    #[arg(long, value_name = "FILE")]
    curves: Option<PathBuf>,
}

/// Reads the number of a goal.
fn goal(name: GoalName) -> impl Fn(&str) -> Result<Goal, String> + Clone + Send + Sync {
    move |text| {
        let goal = name.read(text);
        goal.map_err(|error| format!("expected {}", error.expected))
    }
}

/// Reads decibels.
fn decibels(text: &str) -> Result<f64, String> {
    goal(GoalName::MinSnr)(text).map(Goal::number)
}

impl BudgetFlags {
    /// The goal of a flag; a minimum is one unless bits are `named` already.
    pub(crate) fn goal(&self, named: bool) -> Option<Goal> {
        let minimum = self.min_snr.filter(|_| !named).map(Goal::MinSnr);
        self.target_size
            .or(self.target_bpw)
            .or(self.target_ratio)
            .or(minimum)
    }

    /// The file of `--inputs`.
    pub(crate) fn inputs(&self) -> Option<&Path> {
        self.inputs.as_deref()
    }

    /// The file of `--recipe`, which nothing else may be.
    pub(crate) fn recipe(&self) -> Option<&Path> {
        self.recipe.as_deref()
    }

    /// The place of `--recipe`, found out before the work; an earlier file is replaced with `force` only.
    pub(crate) fn recipe_place(&self, force: bool) -> Result<Option<StagedOutput>, Failure> {
        let Some(path) = &self.recipe else {
            return Ok(None);
        };
        let named = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if !named {
            return Err(Failure::Usage("--recipe must end in .yaml".to_owned()));
        }
        Ok(Some(StagedOutput::file(
            path,
            SaveOptions::overwriting(force),
        )?))
    }

    /// The file of `--curves`.
    pub(crate) fn curves(&self) -> Option<&Path> {
        self.curves.as_deref()
    }

    /// Refuses flags of a palette that say what is to be chosen.
    pub(crate) fn alone(&self, goal: Option<Goal>, flags: &OpOptions) -> Result<(), Failure> {
        let Some(goal) = goal else {
            return Ok(());
        };
        let spec = &flags.spec;
        let said = [
            (spec.nbits.is_some(), "--nbits", "nbits=3/4"),
            (spec.group_size.is_some(), "--group-size", "group-size=16"),
            (
                spec.granularity.is_some(),
                "--granularity",
                "group-size=none",
            ),
        ];
        let goal = goal.name().name().replace('_', "-");
        match said.iter().find(|(said, ..)| *said) {
            None => Ok(()),
            Some((_, flag, instead)) => Err(Failure::Usage(format!(
                "{flag} says what --{goal} is to choose: leave one of them out, or narrow the choice with --choices {instead}"
            ))),
        }
    }

    /// The budget: that of the flags, or of a file with what the flags say beside the goal.
    pub(crate) fn budget(
        &self,
        goal: Option<Goal>,
        file: Option<&Budget>,
    ) -> Result<Option<Budget>, Failure> {
        let budget = match (goal, file) {
            (Some(goal), Some(file)) => file.clone().with_goal(goal),
            (Some(goal), None) => Budget::new(goal),
            (None, Some(file)) => file.clone(),
            (None, None) => {
                let flags = [
                    (self.choices.is_some(), "--choices"),
                    (self.curves.is_some(), "--curves"),
                    (self.inputs.is_some(), "--inputs"),
                    (self.recipe.is_some(), "--recipe"),
                ];
                return match flags.iter().find(|(given, _)| *given) {
                    None => Ok(None),
                    Some((_, flag)) => Err(Failure::Usage(format!(
                        "{flag} is for a budget: give --target-size, --target-bpw, --target-ratio or --min-snr"
                    ))),
                };
            }
        };
        Ok(Some(match &self.choices {
            Some(choices) => budget.with_choices(choices.clone()),
            None => budget,
        }))
    }

    /// The configuration with all that is found out before the choice: what forms cost, kept in the file of `--curves`, and
    /// what errors do to outputs.
    pub(crate) fn informed(
        &self,
        model: &Model,
        config: OptimizationConfig,
        limits: Limits,
        progress: &Bar,
    ) -> Result<Informed, Failure> {
        let samples = match (&self.inputs, model) {
            (Some(path), Model::CoreMl(model)) => {
                let session = Session::new(model)?;
                let samples = Samples::open_with(path, session.interface(None)?, limits)?;
                let most = self
                    .samples
                    .map_or(CALIBRATION_SAMPLES, |most| most as usize);
                Some(samples.first(most))
            }
            _ => None,
        };
        let curves = self.curves.as_deref();
        Ok(inform(model, config, curves, samples.as_ref(), progress)?)
    }
}
