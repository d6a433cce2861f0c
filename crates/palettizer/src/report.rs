//! The report of a whole run.

use palettizer_coreml::config::Unmatched;
use palettizer_coreml::report::WeightReport;
use palettizer_coreml::{Note, Outcome};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Bytes of a file that tell whether it is a report.
const START_LEN: u64 = 128;

/// The version of the report's layout. It changes when a field is removed or changes its meaning; new fields
/// come without a change.
pub const REPORT_VERSION: u32 = 1;

/// What palettizing a model or a checkpoint came to. Its JSON form is described in `docs/report.md`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// Bytes of the program and its weight files, or of the checkpoint's files, before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Bits that an element takes on average, over all weights of the report.
    pub bits_per_weight: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The deployment target of the new model, such as `iOS18`; a checkpoint has none.
    pub target: Option<String>,
    /// Op types and names of the configuration that fit nothing in the model.
    pub unmatched: Vec<String>,
    /// Forms that were written of which there are public reports of trouble on devices; none for a checkpoint.
    pub notes: Vec<Note>,
    /// For those of them that are near to names in the model: these, the nearest first.
    pub near_names: BTreeMap<String, Vec<String>>,
    /// What became of every weight, in the order of the program; of a checkpoint, of every tensor.
    pub weights: Vec<WeightReport>,
}

impl Report {
    /// Whether the file at a path is a report, as far as its first bytes tell. It may then be replaced by a new one.
    ///
    /// ```
    /// assert!(!palettizer::Report::is_at("missing.json"));
    /// ```
    pub fn is_at(path: impl AsRef<Path>) -> bool {
        const START: [&str; 2] = [r#"{"version":"#, r#","bytes_before":"#];
        let path = path.as_ref();
        // a pipe would wait for somebody to write to it
        if !path.is_file() {
            return false;
        }
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(START_LEN).read_to_end(&mut start));
        start.retain(|byte| !byte.is_ascii_whitespace());
        let rest = start.strip_prefix(START[0].as_bytes());
        read.is_ok()
            && rest.is_some_and(|rest| {
                let number = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                number > 0 && rest[number..].starts_with(START[1].as_bytes())
            })
    }

    pub(crate) fn new(outcome: Outcome, elapsed: Duration) -> Self {
        Self {
            version: REPORT_VERSION,
            bytes_before: outcome.bytes_before,
            bytes_after: outcome.bytes_after,
            bits_per_weight: bits_per_weight(&outcome.weights),
            seconds: elapsed.as_secs_f64(),
            target: Some(outcome.target),
            notes: outcome.notes,
            unmatched: names(&outcome.unmatched),
            near_names: near_names(&outcome.unmatched),
            weights: outcome.weights,
        }
    }

    pub(crate) fn of_checkpoint(outcome: palettizer_torch::Outcome, elapsed: Duration) -> Self {
        Self {
            version: REPORT_VERSION,
            bytes_before: outcome.bytes_before,
            bytes_after: outcome.bytes_after,
            bits_per_weight: bits_per_weight(&outcome.weights),
            seconds: elapsed.as_secs_f64(),
            target: None,
            notes: Vec::new(),
            unmatched: names(&outcome.unmatched),
            near_names: near_names(&outcome.unmatched),
            weights: outcome.weights,
        }
    }

    /// Of weights that are all there is.
    pub(crate) fn of_weights(weights: Vec<WeightReport>, elapsed: Duration) -> Self {
        let sum = |bytes: fn(&WeightReport) -> u64| weights.iter().map(bytes).sum();
        Self {
            version: REPORT_VERSION,
            bytes_before: sum(|weight| weight.bytes_before),
            bytes_after: sum(|weight| weight.bytes_after),
            bits_per_weight: bits_per_weight(&weights),
            seconds: elapsed.as_secs_f64(),
            target: None,
            unmatched: Vec::new(),
            notes: Vec::new(),
            near_names: BTreeMap::new(),
            weights,
        }
    }
}

fn names(unmatched: &[Unmatched]) -> Vec<String> {
    unmatched.iter().map(|entry| entry.name.clone()).collect()
}

fn near_names(unmatched: &[Unmatched]) -> BTreeMap<String, Vec<String>> {
    let near = unmatched.iter().filter(|entry| !entry.near.is_empty());
    near.map(|entry| (entry.name.clone(), entry.near.clone()))
        .collect()
}

fn bits_per_weight(weights: &[WeightReport]) -> f64 {
    let elements: u64 = weights.iter().map(WeightReport::elements).sum();
    let bytes: u64 = weights.iter().map(|weight| weight.bytes_after).sum();
    match elements {
        0 => 0.0,
        _ => bytes as f64 * 8.0 / elements as f64,
    }
}
