//! Forms chosen for weights that Python prices.

use palettizer::budget::{
    Budget, Candidate, Choices, Curves, GoalName, Response, Room, choose as choose_forms, telling,
};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::bad_value;
use crate::json::json;
use crate::work;

/// Choices, as Python has them.
pub(crate) fn choices(given: &[(String, Vec<String>)]) -> PyResult<Choices> {
    let mut choices = Choices::default();
    for (key, values) in given {
        choices = choices.with(key, values).map_err(bad_value)?;
    }
    Ok(choices)
}

/// The forms that there are to choose from: see `_native.pyi`.
#[pyfunction]
pub(crate) fn budget_forms(given: Vec<(String, Vec<String>)>) -> PyResult<Vec<String>> {
    let each = choices(&given)?.each();
    Ok(each.iter().map(ToString::to_string).collect())
}

/// The curves of a file whose numbers can be, as JSON; `None` if there is no file.
#[pyfunction]
pub(crate) fn read_curves(py: Python<'_>, path: PathBuf) -> PyResult<Option<String>> {
    let curves = work::brief(py, || palettizer::budget::read_curves(path))?;
    curves.map(|curves| json(&curves.sound())).transpose()
}

/// Writes such curves to a file.
#[pyfunction]
pub(crate) fn write_curves(py: Python<'_>, path: PathBuf, curves: &str) -> PyResult<()> {
    let curves: Curves = serde_json::from_str(curves).map_err(bad_value)?;
    work::brief(py, || palettizer::budget::write_curves(path, &curves))
}

/// The places of the few errors that tell most about a response: see `_native.pyi`.
#[pyfunction]
pub(crate) fn telling_errors(errors: Vec<f64>) -> Vec<usize> {
    telling(&errors)
}

/// A weight: its name, its bytes as it is, the forms to choose from, and whether its own configuration left no choice.
type Weight = (String, u64, Vec<String>, bool);

/// Chooses a form for each weight: see `_native.pyi`.
#[pyfunction]
#[pyo3(signature = (goal, number, curves, weights, *, before, other, elements, kept, responses=None, forms=None))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn choose(
    py: Python<'_>,
    goal: &str,
    number: &str,
    curves: &str,
    weights: Vec<Weight>,
    before: u64,
    other: u64,
    elements: u64,
    kept: Vec<(String, u64)>,
    responses: Option<BTreeMap<String, Vec<(f64, f64)>>>,
    forms: Option<BTreeMap<String, String>>,
) -> PyResult<String> {
    let goal: GoalName = goal.parse().map_err(bad_value)?;
    let responses = responses.map(|all| {
        let all = all.into_iter();
        all.map(|(name, points)| (name, Response::new(points)))
            .collect::<BTreeMap<_, _>>()
    });
    let goal = goal.read(number).map_err(bad_value)?;
    let budget = Budget::new(goal)
        .with_responses(responses)
        .with_forms(forms);
    let curves: Curves = serde_json::from_str(curves).map_err(bad_value)?;
    let mut candidates = Vec::with_capacity(weights.len());
    for (name, bytes, forms, pinned) in &weights {
        let curve = curves.weights.get(name);
        let curve = curve.ok_or_else(|| bad_value(format_args!("no curve of {name}")))?;
        let mut candidate = Candidate::new(name, *bytes, curve);
        candidate.forms.clone_from(forms);
        candidate.pinned = *pinned;
        candidates.push(candidate);
    }
    let room = Room::new(before, other, elements).with_kept(kept);
    let choice = work::brief(py, || choose_forms(&budget, &candidates, &room))?;
    json(&(choice.report, choice.weights))
}
