//! All that is found out before forms are chosen for a budget.

use super::{Budget, calibrate, read_curves, write_curves};
use crate::values::Samples;
use crate::{Error, Model, OptimizationConfig, PipelineError, Progress, Report};
use std::path::Path;

/// A configuration whose budget knows what forms cost and what errors do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Informed {
    /// The configuration.
    pub config: OptimizationConfig,
    /// Signal-to-noise ratio in dB that was measured with the choice; `None` without samples.
    pub measured_snr_db: Option<f64>,
}

impl Informed {
    /// Says in the report of a run with this configuration what was measured.
    pub fn complete(&self, report: &mut Report) {
        if let Some(budget) = &mut report.budget {
            budget.measured_snr_db = self.measured_snr_db.filter(|snr| snr.is_finite());
        }
    }
}

/// The configuration with all costs that its budget chooses by, those of a file among them, which is brought up to date.
pub(super) fn with_curves(
    model: &Model,
    config: OptimizationConfig,
    budget: Budget,
    path: Option<&Path>,
    progress: &dyn Progress,
) -> Result<OptimizationConfig, Error> {
    let known = path.map(read_curves).transpose()?.flatten();
    let asked = match &known {
        Some(known) => budget.clone().with_curves(known.clone()),
        None => budget.clone(),
    };
    let found = model.curves(&config.clone().with_budget(asked), progress)?;
    if let Some(path) = path
        && known.as_ref() != Some(&found)
    {
        write_curves(path, &found)?;
    }
    Ok(config.with_budget(budget.with_curves(found)))
}

/// Finds out what a budget is chosen by: what forms cost, kept in the file `curves`, and what errors do to the outputs of a program
/// on `samples`. A configuration without a budget stays as it is.
///
/// ```no_run
/// use palettizer::budget::{Budget, Goal, inform};
/// use palettizer::{Model, OptimizationConfig, SaveOptions};
/// use std::path::Path;
///
/// let model = Model::open("Model.mlpackage")?;
/// let config = OptimizationConfig::new().with_budget(Budget::new(Goal::Ratio(5.0)));
/// let informed = inform(&model, config, Some(Path::new("curves.json")), None, &())?;
/// let report = model.palettize_to(&informed.config, "Small.mlpackage", SaveOptions::default(), &())?;
/// # Ok::<(), palettizer::Error>(())
/// ```
///
/// # Errors
/// A budget that cannot be met, samples for a checkpoint, and what reading, writing and running may give.
pub fn inform(
    model: &Model,
    config: OptimizationConfig,
    curves: Option<&Path>,
    samples: Option<&Samples>,
    progress: &dyn Progress,
) -> Result<Informed, Error> {
    let uninformed = |config| Informed {
        config,
        measured_snr_db: None,
    };
    let budget = match config.budget() {
        Some(budget) if curves.is_some() || samples.is_some() => budget.clone(),
        _ => return Ok(uninformed(config)),
    };
    let config = with_curves(model, config, budget, curves, progress)?;
    let Some(samples) = samples else {
        return Ok(uninformed(config));
    };
    let Model::CoreMl(program) = model else {
        return Err(PipelineError::Budget {
            what: "only Core ML models can be run on inputs: leave them out, or give sensitivities"
                .to_owned(),
        }
        .into());
    };
    Ok(match calibrate(program, samples, &config, progress)? {
        Some(found) => Informed {
            config: config.with_budget(found.budget),
            measured_snr_db: Some(found.measured_snr_db),
        },
        None => uninformed(config),
    })
}
