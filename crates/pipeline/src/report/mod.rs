//! The report of a whole run.

mod weight;

use crate::budget::BudgetReport;
use crate::config::Unmatched;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;
pub use weight::{Fate, Figures, WeightReport};

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
    /// What came of the budget, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetReport>,
    /// What became of every weight, in the order of the program; of a checkpoint, of every tensor.
    pub weights: Vec<WeightReport>,
}

impl Report {
    /// Whether the file at a path is a report, as far as its first bytes tell. It may then be replaced by a new one.
    ///
    /// ```
    /// assert!(!palettizer_pipeline::Report::is_at("missing.json"));
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

    /// The report of a run that began at `start`, of so many bytes before and after.
    pub fn new(
        bytes_before: u64,
        bytes_after: u64,
        weights: Vec<WeightReport>,
        start: Instant,
    ) -> Self {
        Self {
            version: REPORT_VERSION,
            bytes_before,
            bytes_after,
            bits_per_weight: bits_per_weight(&weights),
            seconds: start.elapsed().as_secs_f64(),
            target: None,
            unmatched: Vec::new(),
            notes: Vec::new(),
            near_names: BTreeMap::new(),
            budget: None,
            weights,
        }
    }

    /// The report of a run whose model is these weights alone.
    pub fn of_weights(weights: Vec<WeightReport>, start: Instant) -> Self {
        let before = weights.iter().map(|weight| weight.bytes_before).sum();
        let after = weights.iter().map(WeightReport::bytes_after).sum();
        Self::new(before, after, weights, start)
    }

    /// With what came of a budget.
    #[must_use]
    pub fn with_budget(mut self, budget: Option<BudgetReport>) -> Self {
        self.budget = budget;
        self
    }

    /// With the entries of the configuration that fit nothing, and the names that were probably meant.
    #[must_use]
    pub fn with_unmatched(mut self, unmatched: Vec<Unmatched>) -> Self {
        for Unmatched { name, near } in unmatched {
            self.unmatched.push(name.clone());
            if !near.is_empty() {
                self.near_names.insert(name, near);
            }
        }
        self
    }
}

fn bits_per_weight(weights: &[WeightReport]) -> f64 {
    let elements: u64 = weights.iter().map(WeightReport::elements).sum();
    let bytes: u64 = weights.iter().map(WeightReport::bytes_after).sum();
    match elements {
        0 => 0.0,
        _ => bytes as f64 * 8.0 / elements as f64,
    }
}

/// A form that was written, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Note {
    /// What it is about: `per_channel_scale`, `many_tables` or `stateful_4_bit`.
    pub code: &'static str,
    /// What was reported, in a sentence.
    pub text: &'static str,
    /// Where.
    pub reference: &'static str,
    /// How many weights have the form.
    pub weights: usize,
}

impl Note {
    /// What is known of a form that so many weights have.
    pub fn new(
        code: &'static str,
        text: &'static str,
        reference: &'static str,
        weights: usize,
    ) -> Self {
        Self {
            code,
            text,
            reference,
            weights,
        }
    }
}

/// What making a model or a checkpoint dense came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decompressed {
    /// How many weights were compressed; of a model that was dense already, none.
    pub weights: usize,
}

impl Decompressed {
    /// So many weights were compressed.
    pub fn new(weights: usize) -> Self {
        Self { weights }
    }
}
