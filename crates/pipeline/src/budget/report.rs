//! What is to be said of a budget: what it asked, what it came to, and what else each weight could have had.

use crate::Error;
use serde::Serialize;
use std::collections::BTreeMap;

/// What the harm of a weight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Its squared error as a part of its energy, times the square root of its share of the multiplications of a run: between
    /// what a network would be in which all layers pass errors on alike, and one in which a layer does as its work does.
    Work,
    /// Its squared error weighed by sensitivities, in their unit.
    Sensitivity,
    /// What its error does to the outputs, as a part of their energy, as it was measured.
    Calibrated,
}

impl Measure {
    /// Whether harm is a part of some energy, so that there is a signal-to-noise ratio.
    pub(super) fn is_relative(self) -> bool {
        self != Measure::Sensitivity
    }
}

/// What came of a budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BudgetReport {
    /// What was asked: `target_size`, `target_bpw`, `target_ratio` or `min_snr`.
    pub goal: &'static str,
    /// How much of it.
    pub asked: f64,
    /// Bytes that the new model takes at most.
    pub bytes: u64,
    /// What harm is.
    pub measure: Measure,
    /// The sum of the weights' harms.
    pub harm: f64,
    /// Signal-to-noise ratio in dB that this harm comes to; `None` for harm that is no part of anything, or none at all.
    pub expected_snr_db: Option<f64>,
    /// The same, as it was measured on the inputs of a calibration; how far it is from what was expected says how far harms add
    /// up. `None` without inputs.
    pub measured_snr_db: Option<f64>,
    /// How far the choice may be from the best one for these prices, as a part of its harm; 0 if it is proven to be the best,
    /// `None` if another one was measured to be better.
    pub gap: Option<f64>,
    /// The forms of weights that were chosen from.
    pub forms: usize,
}

/// What a budget gave a weight, and what it could have had.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Allotted {
    /// Whether its own configuration left no choice.
    pub pinned: bool,
    /// The form that it has.
    #[serde(flatten)]
    pub form: Neighbour,
    /// The smallest form with less harm.
    pub next_better: Option<Neighbour>,
    /// The largest form with fewer bytes, of those that have less harm than all that are smaller.
    pub next_worse: Option<Neighbour>,
}

/// A form of a weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Neighbour {
    /// What it is called: what it differs in from one float table for the whole weight.
    pub form: String,
    /// Bytes that the weight takes then.
    pub bytes: u64,
    /// Its harm.
    pub harm: f64,
}

/// What a budget comes to before anything is palettized.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Chosen {
    /// What it costs.
    pub report: BudgetReport,
    /// The [form](super::Curve::form) of each weight, by its name.
    pub forms: BTreeMap<String, String>,
}

/// Refuses what takes more bytes than a budget promised.
///
/// # Errors
/// [`Error::Budget`], which can only be if curves came from somewhere else.
pub fn check_promise(budget: Option<&BudgetReport>, bytes: u64) -> Result<(), Error> {
    match budget.filter(|budget| bytes > budget.bytes) {
        None => Ok(()),
        Some(budget) => Err(Error::Budget {
            what: format!(
                "the budget came to at most {} bytes, and this would be {bytes}: are the curves of this model? Make them again",
                budget.bytes
            ),
        }),
    }
}
