//! One form for each of some weights, whatever they are the weights of.

use super::Response;
use super::curves::{Curve, Priced};
use super::goal::{Budget, Goal};
use super::knapsack::{Allocation, Form, allocate};
use super::report::{Allotted, BudgetReport, Measure, Neighbour};
use super::room::{DOUBT, Room, in_the_way};
use crate::Error;

/// A weight that a form is to be chosen for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Bytes that it takes as it is.
    pub bytes: u64,
    /// What its forms cost.
    pub curve: &'a Curve,
    /// The [forms](Curve::forms) that there are to choose from; those that its curve does not know are not among them.
    pub forms: Vec<String>,
    /// Whether its own configuration left no choice.
    pub pinned: bool,
}

impl<'a> Candidate<'a> {
    /// With all forms of its curve.
    pub fn new(name: &'a str, bytes: u64, curve: &'a Curve) -> Self {
        Candidate {
            name,
            bytes,
            curve,
            forms: curve.forms.keys().cloned().collect(),
            pinned: false,
        }
    }
}

/// What a budget came to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// What it costs.
    pub report: BudgetReport,
    /// What each weight got, in the order of the candidates; the reason of one that can have no form, and stays as it is.
    pub weights: Vec<Result<Allotted, String>>,
}

/// Chooses a form for each weight, so that all fit into the budget and lose least.
///
/// # Errors
/// [`Error::Budget`] if the budget cannot be met: what the least is, and what is in the way.
///
/// ```
/// use palettizer_pipeline::budget::{Budget, Candidate, Curves, Goal, Room, choose};
///
/// let text = r#"{"version": 1, "weights": {"w": {"basis": "", "work": 64, "weighted_energy": null, "forms": {
///     "nbits=1": {"costs": {"bytes": 12, "error": 0.3}}, "nbits=2": {"costs": {"bytes": 24, "error": 0.1}}}}}}"#;
/// let curves: Curves = serde_json::from_str(text)?;
/// let weights = [Candidate::new("w", 256, &curves.weights["w"])];
/// let choice = choose(&Budget::new(Goal::Size(100)), &weights, &Room::new(300, 44, 64))?;
/// assert_eq!(choice.weights[0].as_ref().unwrap().form.form, "nbits=2");
/// assert_eq!(choice.report.bytes, 68);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn choose(budget: &Budget, weights: &[Candidate<'_>], room: &Room) -> Result<Choice, Error> {
    let table = Table::new(weights, budget);
    let named = table.named(budget, room);
    let proven = named.is_none();
    let chosen = match named {
        Some(named) => named,
        None => best(&table.costs(), budget.goal(), room, &table)?,
    };
    let promised = chosen.bytes.saturating_add(room.other);
    let report = BudgetReport {
        goal: budget.goal().name().name(),
        asked: budget.goal().number(),
        bytes: promised.min(room.most(budget.goal())),
        measure: table.measure,
        harm: chosen.harm,
        expected_snr_db: table.snr(chosen.harm),
        measured_snr_db: None,
        gap: proven.then(|| chosen.gap()),
        forms: table.rows.iter().map(|row| row.costs.len()).sum(),
    };
    let rows = table.rows.into_iter().zip(&chosen.forms);
    let weights = rows.map(|(row, &at)| match row.names.is_empty() {
        false => Ok(row.allotted(at)),
        true => Err(row.refusal.unwrap_or_default()),
    });
    Ok(Choice {
        weights: weights.collect(),
        report,
    })
}

/// Bytes that a weight which stays as it is may take beside its values: a name, a shape, a place.
const AS_IT_IS: u64 = 1 << 10;

/// The forms of all weights, in their order.
struct Table {
    rows: Vec<Row>,
    measure: Measure,
}

/// The forms that a weight may have.
struct Row {
    name: String,
    pinned: bool,
    names: Vec<String>,
    /// What each costs, and at the end, for a weight that can have none of them, what it costs as it is.
    costs: Vec<Form>,
    /// Why it can have none.
    refusal: Option<String>,
}

impl Row {
    fn new(weight: &Candidate<'_>, harm: impl Fn(f64) -> f64) -> Self {
        let mut row = Row {
            name: weight.name.to_owned(),
            pinned: weight.pinned,
            names: Vec::new(),
            costs: Vec::new(),
            refusal: None,
        };
        for form in &weight.forms {
            match weight.curve.forms.get(form) {
                Some(&Priced::Costs { bytes, error }) => {
                    row.names.push(form.clone());
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
            let bytes = weight.bytes.saturating_add(AS_IT_IS);
            row.costs.push(Form { bytes, harm: 0.0 });
        }
        row
    }

    fn neighbour(&self, at: usize) -> Neighbour {
        Neighbour {
            form: self.names[at].clone(),
            bytes: self.costs[at].bytes,
            harm: self.costs[at].harm,
        }
    }

    fn allotted(&self, at: usize) -> Allotted {
        let own = self.costs[at];
        let all = || (0..self.names.len()).map(|at| (at, self.costs[at]));
        let better = all().filter(|(_, form)| form.harm < own.harm && form.bytes > own.bytes);
        let better =
            better.min_by(|(_, a), (_, b)| a.bytes.cmp(&b.bytes).then(a.harm.total_cmp(&b.harm)));
        let worse = all().filter(|(_, form)| form.bytes < own.bytes);
        let worse =
            worse.min_by(|(_, a), (_, b)| a.harm.total_cmp(&b.harm).then(a.bytes.cmp(&b.bytes)));
        Allotted {
            pinned: self.pinned,
            form: self.neighbour(at),
            next_better: better.map(|(at, _)| self.neighbour(at)),
            next_worse: worse.map(|(at, _)| self.neighbour(at)),
        }
    }
}

impl Table {
    fn new(weights: &[Candidate<'_>], budget: &Budget) -> Self {
        let curves = || weights.iter().map(|weight| weight.curve);
        // no sensitivity at all: nobody knows, for no sample came that far
        let of = |curve: &Curve| curve.weighted_energy.filter(|&energy| energy > 0.0);
        let weighted = curves().any(|curve| of(curve).is_some());
        // what has no sensitivities matters as much as the others do on average, for its part of the work
        let work = |curve: &Curve| {
            if curve.work.is_finite() {
                curve.work
            } else {
                0.0
            }
        };
        let all: f64 = curves().map(|curve| work(curve).sqrt()).sum();
        let known = curves().filter(|curve| of(curve).is_some());
        let (energy, done) = known.fold((0.0, 0.0), |(energy, done), curve| {
            (energy + of(curve).unwrap_or(0.0), done + work(curve))
        });
        let share = |curve: &Curve| match weighted {
            true => of(curve).unwrap_or(energy * work(curve) / done.max(1.0)),
            false => work(curve).sqrt() / all.max(1.0),
        };
        let responses = budget.responses();
        let unknown = Response::default();
        let rows = weights.iter().map(|weight| {
            let harm = |error: f64| match responses {
                Some(responses) => responses.get(weight.name).unwrap_or(&unknown).harm(error),
                None => error * share(weight.curve),
            };
            Row::new(weight, harm)
        });
        Table {
            rows: rows.collect(),
            measure: match (responses.is_some(), weighted) {
                (true, _) => Measure::Calibrated,
                (false, true) => Measure::Sensitivity,
                (false, false) => Measure::Work,
            },
        }
    }

    /// The costs of all forms, of each weight.
    fn costs(&self) -> Vec<Vec<Form>> {
        self.rows.iter().map(|row| row.costs.clone()).collect()
    }

    /// The weights that can have no form, and what they take as they are.
    fn refused(&self) -> impl Iterator<Item = (&str, u64)> {
        let refused = self.rows.iter().filter(|row| row.names.is_empty());
        refused.map(|row| (row.name.as_str(), row.costs[0].bytes))
    }

    /// The choice that a budget names already, if it is one for all weights, and fits.
    fn named(&self, budget: &Budget, room: &Room) -> Option<Allocation> {
        let named = budget.forms()?;
        let at = |row: &Row| match row.names.as_slice() {
            [] | [_] => Some(0),
            names => {
                let name = named.get(&row.name)?;
                names.iter().position(|form| form == name)
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
fn best(forms: &[Vec<Form>], goal: Goal, room: &Room, table: &Table) -> Result<Allocation, Error> {
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

#[cfg(test)]
mod tests {
    use super::super::{Curves, Goal};
    use super::*;
    use std::collections::BTreeMap;

    fn curve(weighted_energy: Option<f64>) -> Curve {
        let costs = |bytes, error| Priced::Costs { bytes, error };
        let forms = [
            ("nbits=1", costs(12, 0.3)),
            ("nbits=2", costs(24, 0.1)),
            ("nbits=4", costs(48, 0.01)),
            (
                "group_size=3",
                Priced::Refused("3 does not divide 64".to_owned()),
            ),
        ];
        Curve {
            work: 64.0,
            weighted_energy,
            forms: forms.map(|(name, form)| (name.to_owned(), form)).into(),
            ..Curve::default()
        }
    }

    fn forms(curves: &[Curve], size: u64) -> Vec<String> {
        let weights: Vec<Candidate<'_>> = curves
            .iter()
            .map(|curve| Candidate::new("w", 256, curve))
            .collect();
        let choice = choose(
            &Budget::new(Goal::Size(size)),
            &weights,
            &Room::new(999, 0, 64),
        );
        let choice = choice.unwrap();
        assert!(choice.report.bytes <= size);
        choice
            .weights
            .into_iter()
            .map(|one| one.unwrap().form.form)
            .collect()
    }

    #[test]
    fn a_weight_that_no_sample_came_to_is_taken_to_matter() {
        for dead in [Some(0.0), None] {
            let curves = [curve(Some(1.0)), curve(dead)];
            assert_eq!(forms(&curves, 48), ["nbits=2", "nbits=2"], "{dead:?}");
        }
        let curves = [curve(Some(1.0)), curve(Some(1e-3))];
        assert_eq!(forms(&curves, 60), ["nbits=4", "nbits=1"]);
    }

    #[test]
    fn a_weight_that_can_have_no_form_stays_and_says_why() {
        let mut none = curve(None);
        none.forms
            .retain(|_, form| matches!(form, Priced::Refused(_)));
        let some = curve(None);
        let mut weights = [
            Candidate::new("a", 256, &none),
            Candidate::new("b", 256, &some),
        ];
        let room = Room::new(999, 0, 128).with_kept(vec![("c".to_owned(), 99)]);
        let budget = |size| Budget::new(Goal::Size(size));
        let choice = choose(&budget(5000), &weights, &room).unwrap();
        assert_eq!(choice.weights[0], Err("3 does not divide 64".to_owned()));
        assert!(choice.weights[1].as_ref().is_ok_and(|one| !one.pinned));
        let error = choose(&budget(100), &weights, &room)
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"a\" (1280), \"c\" (99)"), "{error}");
        weights[1].forms = vec!["nbits=1".to_owned(), "nbits=9".to_owned()];
        weights[1].pinned = true;
        let choice = choose(&budget(5000), &weights, &room).unwrap();
        let one = choice.weights[1].as_ref().unwrap();
        assert_eq!((one.form.form.as_str(), one.pinned), ("nbits=1", true));
    }

    #[test]
    fn curves_whose_numbers_cannot_be_are_left_out() {
        let bad = |priced| {
            let mut curve = curve(None);
            curve.forms.insert("x".to_owned(), priced);
            curve
        };
        let costs = |bytes, error| Priced::Costs { bytes, error };
        let weights = BTreeMap::from([
            ("good".to_owned(), curve(Some(1.0))),
            ("large".to_owned(), bad(costs(u64::MAX, 0.0))),
            ("negative".to_owned(), bad(costs(1, -1.0))),
            ("nan".to_owned(), bad(costs(1, f64::NAN))),
            ("energy".to_owned(), curve(Some(f64::INFINITY))),
        ]);
        let curves = Curves {
            weights,
            ..Curves::default()
        };
        assert_eq!(curves.sound().weights.keys().collect::<Vec<_>>(), ["good"]);
    }
}
