//! The report of a whole run.

use palettizer_coreml::Outcome;
use palettizer_coreml::report::WeightReport;
use serde::Serialize;
use std::time::Duration;

/// The version of the report's layout. It changes when a field is removed or changes its meaning; new fields
/// come without a change.
pub const REPORT_VERSION: u32 = 1;

/// What palettizing a model came to. Its JSON form is described in `docs/report.md`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// Bytes of the program and its weight files before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Bits that an element takes on average, over all weights of the report.
    pub bits_per_weight: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The deployment target of the new model, such as `iOS18`.
    pub target: String,
    /// Op types and names of the configuration that fit nothing in the model.
    pub unmatched: Vec<String>,
    /// What became of every weight, in the order of the program.
    pub weights: Vec<WeightReport>,
}

impl Report {
    pub(crate) fn new(outcome: Outcome, elapsed: Duration) -> Self {
        let elements: u64 = outcome.weights.iter().map(WeightReport::elements).sum();
        let bytes: u64 = outcome
            .weights
            .iter()
            .map(|weight| weight.bytes_after)
            .sum();
        Self {
            version: REPORT_VERSION,
            bytes_before: outcome.bytes_before,
            bytes_after: outcome.bytes_after,
            bits_per_weight: if elements == 0 {
                0.0
            } else {
                bytes as f64 * 8.0 / elements as f64
            },
            seconds: elapsed.as_secs_f64(),
            target: outcome.target,
            unmatched: outcome.unmatched,
            weights: outcome.weights,
        }
    }
}
