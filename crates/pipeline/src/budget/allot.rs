//! The forms of a plan chosen for a budget, and what is to be said of the choice.

use super::curves::{Curve, Priced, curves};
use super::goal::{Budget, Goal};
use super::knapsack::{Allocation, Form, allocate};
use super::{Curves, Response};
use crate::config::OptimizationConfig;
use crate::format::Format;
use crate::planned::{Decision, Job, Plan, SkipReason};
use crate::{Error, Progress, plan};
use palettizer_palette::PaletteSpec;
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
    fn is_relative(self) -> bool {
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

/// Chooses the forms of the weights of a plan, if there is a budget.
///
/// # Errors
/// [`Error::Budget`] if it cannot be met, and what pricing may give.
pub(crate) fn allot<F: Format>(
    format: &F,
    plan: &mut Plan<F::Place>,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<(), F::Error> {
    let Some(budget) = config.budget() else {
        return Ok(());
    };
    let curves = curves(format, plan, config, progress)?;
    let table = Table::new(plan, &curves, budget)?;
    let other = format.other_bytes(plan)?;
    let room = Room::new(format, plan, (other, format.bytes_beside(plan)?));
    let named = table.named(budget, &room);
    let proven = named.is_none();
    let chosen = match named {
        Some(named) => named,
        None => choose(&table.costs(), budget.goal(), &room, &table)?,
    };
    let promised = (chosen.bytes + other).min(room.most(budget.goal()));
    plan.budget = Some(BudgetReport {
        goal: budget.goal().name().name(),
        asked: budget.goal().number(),
        bytes: promised,
        measure: table.measure,
        harm: chosen.harm,
        expected_snr_db: table.snr(chosen.harm),
        measured_snr_db: None,
        gap: proven.then(|| chosen.gap()),
        forms: table.rows.iter().map(|row| row.costs.len()).sum(),
    });
    let mut choices = table.rows.into_iter().zip(&chosen.forms);
    for planned in &mut plan.weights {
        let Decision::Compress(job) = &mut planned.decision else {
            continue;
        };
        let Some((row, &at)) = choices.next() else {
            continue;
        };
        match row.specs.get(at) {
            Some(spec) => {
                planned.allotted = Some(row.allotted(at, job.choices.is_empty()));
                job.spec = spec.clone();
            }
            None => {
                let reason = row.refusal.unwrap_or_default();
                planned.decision = Decision::Skip(SkipReason::Refused(reason));
            }
        }
    }
    plan.check_strict(config)?;
    Ok(())
}

/// Bytes that the prices of a whole model may be too high.
const DOUBT: u64 = 1 << 10;

/// Bytes that a weight which stays as it is may take beside its values: a name, a shape, a place.
const AS_IT_IS: u64 = 1 << 10;

/// What a budget comes to before anything is palettized.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Chosen {
    /// What it costs.
    pub report: BudgetReport,
    /// The [form](Curve::form) of each weight, by its name.
    pub forms: BTreeMap<String, String>,
}

/// What a budget comes to; `None` without one.
///
/// # Errors
/// As [`plan`](crate::plan()).
pub fn chosen<F: Format>(
    format: &F,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Option<Chosen>, F::Error> {
    let plan = plan(format, config, progress)?;
    let forms = plan.weights.iter().filter_map(|planned| {
        let form = planned.allotted.as_ref()?.form.form.clone();
        Some((planned.weight.name().to_owned(), form))
    });
    let forms = forms.collect();
    Ok(plan.budget.map(|report| Chosen { report, forms }))
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

/// The forms of all weights that are to be palettized, in the order of the plan.
struct Table {
    rows: Vec<Row>,
    measure: Measure,
}

/// The forms that a weight may have.
struct Row {
    name: String,
    specs: Vec<PaletteSpec>,
    /// What each costs, and at the end, for a weight that can have none of them, what it costs as it is.
    costs: Vec<Form>,
    /// Why it can have none.
    refusal: Option<String>,
}

impl Row {
    fn new(planned: (&str, u64), job: &Job, curve: &Curve, harm: impl Fn(f64) -> f64) -> Self {
        let (name, bytes) = planned;
        let mut row = Row {
            name: name.to_owned(),
            specs: Vec::new(),
            costs: Vec::new(),
            refusal: None,
        };
        for spec in job.forms() {
            match curve.forms.get(&Curve::form(spec)) {
                Some(&Priced::Costs { bytes, error }) => {
                    row.specs.push(spec.clone());
                    let harm = harm(error);
                    row.costs.push(Form { bytes, harm });
                }
                Some(Priced::Refused(why)) => {
                    row.refusal.get_or_insert_with(|| why.clone());
                }
                None => {}
            }
        }
        if row.costs.is_empty() {
            let bytes = bytes.saturating_add(AS_IT_IS);
            row.costs.push(Form { bytes, harm: 0.0 });
        }
        row
    }

    fn neighbour(&self, at: usize) -> Neighbour {
        Neighbour {
            form: Curve::form(&self.specs[at]),
            bytes: self.costs[at].bytes,
            harm: self.costs[at].harm,
        }
    }

    fn allotted(&self, at: usize, pinned: bool) -> Allotted {
        let own = self.costs[at];
        let all = || (0..self.specs.len()).map(|at| (at, self.costs[at]));
        let better = all().filter(|(_, form)| form.harm < own.harm && form.bytes > own.bytes);
        let better =
            better.min_by(|(_, a), (_, b)| a.bytes.cmp(&b.bytes).then(a.harm.total_cmp(&b.harm)));
        let worse = all().filter(|(_, form)| form.bytes < own.bytes);
        let worse =
            worse.min_by(|(_, a), (_, b)| a.harm.total_cmp(&b.harm).then(a.bytes.cmp(&b.bytes)));
        Allotted {
            pinned,
            form: self.neighbour(at),
            next_better: better.map(|(at, _)| self.neighbour(at)),
            next_worse: worse.map(|(at, _)| self.neighbour(at)),
        }
    }
}

impl Table {
    fn new<P>(plan: &Plan<P>, curves: &Curves, budget: &Budget) -> Result<Self, Error> {
        let jobs: Vec<_> = plan
            .weights
            .iter()
            .filter_map(|planned| {
                let weight = &planned.weight;
                let curve = curves.weights.get(weight.name())?;
                Some(((weight.name(), weight.bytes), planned.job()?, curve))
            })
            .collect();
        let of = |curve: &Curve| curve.weighted_energy;
        let weighted = jobs.iter().any(|(_, _, curve)| of(curve).is_some());
        // what has no sensitivities matters as much as the others do on average, for its part of the work
        let work = |curve: &Curve| {
            if curve.work.is_finite() {
                curve.work
            } else {
                0.0
            }
        };
        let all: f64 = jobs.iter().map(|(_, _, curve)| work(curve).sqrt()).sum();
        let known = jobs.iter().filter(|(_, _, curve)| of(curve).is_some());
        let (energy, done) = known.fold((0.0, 0.0), |(energy, done), (_, _, curve)| {
            (energy + of(curve).unwrap_or(0.0), done + work(curve))
        });
        let share = |curve: &Curve| match weighted {
            true => of(curve).unwrap_or(energy * work(curve) / done.max(1.0)),
            false => work(curve).sqrt() / all.max(1.0),
        };
        let responses = budget.responses();
        let unknown = Response::default();
        let rows = jobs.into_iter().map(|(planned, job, curve)| {
            let harm = |error: f64| match responses {
                Some(responses) => responses.get(planned.0).unwrap_or(&unknown).harm(error),
                None => error * share(curve),
            };
            Row::new(planned, job, curve, harm)
        });
        Ok(Table {
            rows: rows.collect(),
            measure: match (responses.is_some(), weighted) {
                (true, _) => Measure::Calibrated,
                (false, true) => Measure::Sensitivity,
                (false, false) => Measure::Work,
            },
        })
    }

    /// The costs of all forms, of each weight.
    fn costs(&self) -> Vec<Vec<Form>> {
        self.rows.iter().map(|row| row.costs.clone()).collect()
    }

    /// The choice that a budget names already, if it is one for all weights, and fits.
    fn named(&self, budget: &Budget, room: &Room) -> Option<Allocation> {
        let named = budget.forms()?;
        let at = |row: &Row| match row.specs.as_slice() {
            [] | [_] => Some(0),
            specs => {
                let name = named.get(&row.name)?;
                specs.iter().position(|spec| Curve::form(spec) == *name)
            }
        };
        let forms = self.rows.iter().map(at).collect::<Option<Vec<usize>>>()?;
        let rows = self.rows.iter().zip(&forms);
        let one: Vec<Vec<Form>> = rows.map(|(row, &at)| vec![row.costs[at]]).collect();
        let capacity = match room.for_palettes(budget.goal()) {
            // prices may be a few bytes too high: what is written is held against what was asked in the end
            Some((total, without)) => total.checked_sub(without)?.saturating_add(DOUBT),
            None => u64::MAX,
        };
        let fits = allocate(&one, capacity).ok()?;
        Some(Allocation { forms, ..fits })
    }

    fn snr(&self, harm: f64) -> Option<f64> {
        let snr = -10.0 * harm.log10();
        Some(snr).filter(|snr| self.measure.is_relative() && snr.is_finite())
    }
}

/// What a goal means in bytes.
struct Room {
    /// Bytes of the model as it is.
    before: u64,
    /// Bytes of the new one, without palettes.
    other: u64,
    /// Bytes of files that reports do not count.
    beside: u64,
    /// Elements of all weights of the report, and bytes of those that stay as they are.
    elements: u64,
    kept: Vec<(String, u64)>,
}

impl Room {
    fn new<F: Format>(format: &F, plan: &Plan<F::Place>, (other, beside): (u64, u64)) -> Self {
        let kept = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_none());
        let kept = kept.map(|planned| (planned.weight.name().to_owned(), planned.weight.bytes));
        let elements = plan.weights.iter();
        Room {
            before: format.stored_len(),
            other,
            beside,
            elements: elements
                .map(|planned| planned.weight.elements() as u64)
                .sum(),
            kept: kept.collect(),
        }
    }

    fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that the new model may take, as reports count them.
    fn most(&self, goal: Goal) -> u64 {
        match (goal, self.for_palettes(goal)) {
            (Goal::Size(_) | Goal::Ratio(_), Some((total, without))) => {
                total.saturating_sub(without).saturating_add(self.other)
            }
            _ => u64::MAX,
        }
    }

    /// Bytes that palettes may take; `None` for a goal that is about something else.
    fn for_palettes(&self, goal: Goal) -> Option<(u64, u64)> {
        let (total, without) = match goal {
            // what is on the disk in the end, whatever it is
            Goal::Size(bytes) => (bytes, self.other.saturating_add(self.beside)),
            Goal::Ratio(ratio) => ((self.before as f64 / ratio) as u64, self.other),
            Goal::BitsPerWeight(bits) => {
                let total = (self.elements as f64 * bits / 8.0) as u64;
                (total, self.kept_bytes())
            }
            Goal::MinSnr(_) => return None,
        };
        Some((total, without))
    }
}

/// The best choice for a goal.
fn choose(
    forms: &[Vec<Form>],
    goal: Goal,
    room: &Room,
    table: &Table,
) -> Result<Allocation, Error> {
    let Some((total, without)) = room.for_palettes(goal) else {
        return smallest(forms, goal.number(), table);
    };
    let capacity = total.checked_sub(without);
    let chosen = capacity.map_or(Err(None), |capacity| {
        allocate(forms, capacity).map_err(Some)
    });
    chosen.map_err(|_| {
        let least = allocate(forms, 0).map_or_else(|least| least, |chosen| chosen.bytes);
        let least = least.saturating_add(without);
        Error::Budget {
            what: in_the_way(goal, total, least, without, room, table),
        }
    })
}

/// The choice of fewest bytes whose harm is not more than an SNR allows.
fn smallest(forms: &[Vec<Form>], snr: f64, table: &Table) -> Result<Allocation, Error> {
    if !table.measure.is_relative() {
        let what = "min_snr needs to know how large the outputs are, and sensitivities do not say it: \
                    give inputs to measure them on, or a size";
        return Err(Error::Budget {
            what: what.to_owned(),
        });
    }
    let limit = 10_f64.powf(-snr / 10.0);
    let refused = |what: String| Error::Budget { what };
    let all = allocate(forms, u64::MAX)
        .map_err(|_| refused("a weight is larger than any number".to_owned()))?;
    if all.harm > limit {
        let best = table.snr(all.harm).unwrap_or(f64::INFINITY);
        return Err(refused(format!(
            "min_snr is {snr}; the best that the choices come to is {best:.2} dB, in {} bytes of palettes: \
             allow more of them, or leave weights alone that lose most",
            all.bytes
        )));
    }
    // harm does not rise with bytes, so that halving finds the fewest
    let mut best = all;
    let mut low = match allocate(forms, 0) {
        Err(least) => least,
        Ok(chosen) => return Ok(chosen),
    };
    let mut high = best.bytes;
    while low < high {
        let middle = low + (high - low) / 2;
        match allocate(forms, middle) {
            Ok(chosen) if chosen.harm <= limit => {
                high = chosen.bytes.min(middle);
                best = chosen;
            }
            _ => low = middle + 1,
        }
    }
    Ok(best)
}

/// Why a budget cannot be met.
fn in_the_way(
    goal: Goal,
    total: u64,
    least: u64,
    without: u64,
    room: &Room,
    table: &Table,
) -> String {
    const MOST: usize = 3;
    let asked = match goal {
        Goal::Size(_) => format!("{goal}"),
        _ => format!("{goal}, which is {total} bytes"),
    };
    let what = match goal {
        Goal::BitsPerWeight(_) => "weights that stay as they are",
        _ => "the program and what stays as it is",
    };
    let mut text = format!(
        "{} is {asked}; the least that can be had is {least} bytes: {} of palettes in their smallest forms, {without} of {what}",
        goal.name().name(),
        least - without,
    );
    let mut kept: Vec<(&str, u64)> = room
        .kept
        .iter()
        .map(|(name, bytes)| (name.as_str(), *bytes))
        .collect();
    let whole = table.rows.iter().filter(|row| row.specs.is_empty());
    kept.extend(whole.map(|row| (row.name.as_str(), row.costs[0].bytes)));
    kept.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let kept: Vec<String> = kept
        .iter()
        .take(MOST)
        .map(|(name, bytes)| format!("\"{name}\" ({bytes})"))
        .collect();
    if !kept.is_empty() {
        text += &format!(" (the largest: {})", kept.join(", "));
    }
    text + "; ask for more, allow smaller forms, or palettize more weights"
}
