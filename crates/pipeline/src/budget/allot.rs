//! The forms of a plan chosen for a budget.

use super::curves::{Curve, Priced, curves};
use super::goal::{Budget, Goal};
use super::knapsack::{Allocation, Form, allocate};
use super::report::{Allotted, BudgetReport, Measure, Neighbour};
use super::room::{DOUBT, Room, in_the_way};
use super::{Curves, Response};
use crate::config::OptimizationConfig;
use crate::format::Format;
use crate::planned::{Decision, Job, Plan, SkipReason};
use crate::{Error, Progress};
use palettizer_palette::PaletteSpec;

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

/// Bytes that a weight which stays as it is may take beside its values: a name, a shape, a place.
const AS_IT_IS: u64 = 1 << 10;

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

    /// The weights that can have no form, and what they take as they are.
    fn refused(&self) -> impl Iterator<Item = (&str, u64)> {
        let refused = self.rows.iter().filter(|row| row.specs.is_empty());
        refused.map(|row| (row.name.as_str(), row.costs[0].bytes))
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
            what: in_the_way(goal, (total, least, without), room, table.refused()),
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
