//! A model at a dozen sizes: what each would lose.

use super::calibrate::Bench;
use super::inform::with_curves;
use super::{Budget, Chosen, Goal};
use crate::values::Samples;
use crate::{Error, Model, OptimizationConfig, PipelineError, Progress};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Sizes that are looked at if nobody says how many.
pub const RECOMMENDATIONS: usize = 12;

/// A size, and what a model of it loses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recommendation {
    /// What `--target-size` is to be told.
    pub target_size: u64,
    /// Bytes that the program and its weight files take at most.
    pub bytes: u64,
    /// How many times smaller that is.
    pub ratio: f64,
    /// Signal-to-noise ratio in dB that is expected; `None` with sensitivities, which are a part of nothing.
    pub expected_snr_db: Option<f64>,
    /// The same, as it was measured on samples.
    pub measured_snr_db: Option<f64>,
    /// The sum of the weights' harms.
    pub harm: f64,
    /// How many weights have so many bits.
    pub bits: BTreeMap<String, usize>,
}

/// How a model is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecommendOptions<'a> {
    /// Inputs that harm is measured on; `None` goes by the weights alone.
    pub samples: Option<&'a Samples>,
    /// A file that keeps what forms cost.
    pub curves: Option<&'a Path>,
    /// How many sizes; 0 for [`RECOMMENDATIONS`].
    pub sizes: usize,
}

/// What a model would lose at several sizes, from the smallest that its choices allow to the one beyond which nothing is won. The
/// goal of the budget of `config` is not looked at. Sizes that lose as much as a smaller one are left out.
///
/// ```no_run
/// use palettizer::budget::{RecommendOptions, recommend};
/// use palettizer::{Model, OptimizationConfig};
///
/// let model = Model::open("Model.mlpackage")?;
/// for row in recommend(&model, &OptimizationConfig::new(), RecommendOptions::default(), &())? {
///     println!("{} bytes: {:?} dB", row.target_size, row.expected_snr_db);
/// }
/// # Ok::<(), palettizer::Error>(())
/// ```
///
/// # Errors
/// As [`inform`](super::inform()).
pub fn recommend(
    model: &Model,
    config: &OptimizationConfig,
    options: RecommendOptions<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Recommendation>, Error> {
    let smallest = Goal::Size(1);
    let budget = config.budget().cloned();
    let budget = budget.unwrap_or_else(|| Budget::new(smallest));
    let given = with_curves(
        model,
        config.clone(),
        budget.clone(),
        options.curves,
        progress,
    )?;
    let budget = given.budget().cloned().unwrap_or(budget);
    let config = |budget: &Budget| config.clone().with_budget(budget.clone());
    let (mut bench, budget) = match (options.samples, model) {
        (Some(samples), Model::CoreMl(program)) => {
            let bench = Bench::new(program, samples, &config(&budget), progress)?;
            let responses = bench.responses(&budget)?;
            (Some(bench), budget.with_responses(responses))
        }
        (Some(_), Model::Checkpoint(_) | Model::CoreAi(_)) => {
            return Err(PipelineError::Budget {
                what: "only Core ML models can be run on inputs: leave them out, or give sensitivities".to_owned(),
            }
            .into());
        }
        (None, _) => (None, budget),
    };
    let at = |goal: Goal| model.chosen(&config(&budget.clone().with_goal(goal)), &());
    let count = match options.sizes {
        0 => RECOMMENDATIONS,
        count => count,
    };
    let sizes = sizes(&at, count)?;
    progress.start(sizes.len(), 0);
    let mut rows: Vec<Recommendation> = Vec::new();
    for size in sizes {
        let goal = Goal::Size(size);
        let chosen = match at(goal) {
            Ok(chosen) => chosen,
            // the least by the prices may be a few bytes more with the files beside
            Err(Error::Pipeline(PipelineError::Budget { .. })) => continue,
            Err(error) => return Err(error),
        };
        let Some(mut chosen) = chosen else {
            continue;
        };
        if let Some(bench) = &mut bench {
            let best = bench.best(&budget.clone().with_goal(goal))?;
            let measured = -10.0 * best.noise.log10();
            chosen.report.measured_snr_db = Some(measured).filter(|snr| snr.is_finite());
            chosen.forms = best.budget.forms().cloned().unwrap_or_default();
        }
        progress.advance(&format!("{size} bytes"), 0);
        let row = row(size, model.stored_len(), chosen);
        if rows.last().is_none_or(|smaller| loss(&row) < loss(smaller)) {
            rows.push(row);
        }
    }
    progress.finish();
    Ok(rows)
}

/// What is to be small: the negative SNR if there is one, else the harm.
fn loss(row: &Recommendation) -> f64 {
    let snr = row.measured_snr_db.or(row.expected_snr_db);
    snr.map_or(row.harm, |snr| -snr)
}

/// Sizes from the smallest to that of the best choice, each larger than the last by the same factor, in three digits.
fn sizes(
    at: &impl Fn(Goal) -> Result<Option<Chosen>, Error>,
    count: usize,
) -> Result<Vec<u64>, Error> {
    let most = at(Goal::Ratio(f64::MIN_POSITIVE))?.map_or(0, |chosen| chosen.report.bytes);
    // the error of a budget that cannot be met has the least in words; halving finds the number
    let (mut low, mut high) = (0, rounded_up(most.saturating_mul(2)));
    while high - low > (high / 1000).max(1) {
        let middle = low + (high - low) / 2;
        match at(Goal::Size(middle)) {
            Ok(_) => high = middle,
            Err(Error::Pipeline(PipelineError::Budget { .. })) => low = middle,
            Err(error) => return Err(error),
        }
    }
    let (least, steps) = (high.max(1) as f64, count.saturating_sub(1).max(1));
    let factor = (most.max(1) as f64 / least).max(1.0);
    let mut sizes: Vec<u64> = (0..count)
        .map(|step| least * factor.powf(step as f64 / steps as f64))
        .map(|size| rounded_up(size.ceil() as u64))
        .collect();
    sizes.dedup();
    Ok(sizes)
}

/// The next number that has three digits, and zeros.
fn rounded_up(size: u64) -> u64 {
    let digits = size.max(1).ilog10();
    let unit = 10_u64.pow(digits.saturating_sub(2));
    size.checked_next_multiple_of(unit).unwrap_or(size)
}

fn row(target_size: u64, before: u64, chosen: Chosen) -> Recommendation {
    let mut bits = BTreeMap::new();
    for form in chosen.forms.values() {
        let nbits = form.split(',').find_map(|part| part.strip_prefix("nbits="));
        *bits.entry(nbits.unwrap_or("any").to_owned()).or_default() += 1;
    }
    let report = chosen.report;
    Recommendation {
        target_size,
        bytes: report.bytes,
        ratio: before as f64 / report.bytes.max(1) as f64,
        expected_snr_db: report.expected_snr_db,
        measured_snr_db: report.measured_snr_db,
        harm: report.harm,
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, 0),
            (7, 7),
            (999, 999),
            (1001, 1010),
            (123_456, 124_000),
            (u64::MAX, u64::MAX),
        ];
        for (size, expected) in cases {
            assert_eq!(rounded_up(size), expected);
        }
    }
}
