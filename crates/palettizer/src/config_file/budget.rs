//! The budget of a configuration: a goal, and what there is to choose from.

use palettizer_pipeline::budget::{Budget, Choices, GoalName};
use serde_json::Value;

use super::ConfigError;
use super::fields::{Fields, describe};

/// The key of what there is to choose from.
const CHOICES: &str = "choices";

/// Reads a budget.
pub(super) fn read(value: &Value, key: &str) -> Result<Budget, ConfigError> {
    let expected = "a mapping such as {target_size: 20MB}";
    let fields = Fields::new(value, key, expected)?;
    let goals = GoalName::ALL.iter().map(|goal| goal.name());
    fields.known(goals.chain([CHOICES]))?;
    let goals = GoalName::ALL.iter();
    let mut given = goals.filter_map(|goal| Some((*goal, fields.not_null(goal.name())?)));
    let one = |found: String| ConfigError::Value {
        key: key.to_owned(),
        found,
        expected: "one of target_size, target_bpw, target_ratio and min_snr".to_owned(),
    };
    let first = given.next();
    let (goal, (value, path)) = first.ok_or_else(|| one("a budget without a goal".to_owned()))?;
    if let Some((second, _)) = given.next() {
        return Err(one(format!("{} and {}", goal.name(), second.name())));
    }
    let text = match value {
        Value::Number(number) => Some(number.to_string()),
        // only a size has a unit
        Value::String(text) if goal == GoalName::Size => Some(text.clone()),
        _ => None,
    };
    let read = text.and_then(|text| goal.read(&text).ok());
    let read = read.ok_or_else(|| ConfigError::Value {
        key: path,
        found: describe(value),
        expected: goal.expected().to_owned(),
    })?;
    let budget = Budget::new(read);
    match fields.not_null(CHOICES) {
        None => Ok(budget),
        Some((value, path)) => Ok(budget.with_choices(choices(value, &path)?)),
    }
}

/// Reads lists of values.
fn choices(value: &Value, key: &str) -> Result<Choices, ConfigError> {
    let expected = "a mapping of lists, such as {nbits: [2, 3, 4], group_size: [none, 16]}";
    let fields = Fields::new(value, key, expected)?;
    fields
        .entries()
        .try_fold(Choices::default(), |choices, (name, value, path)| {
            let wrong = |expected: String| ConfigError::Value {
                key: path.clone(),
                found: describe(value),
                expected,
            };
            let Value::Array(values) = value else {
                return Err(wrong("a list of values".to_owned()));
            };
            let texts = values.iter().map(|value| match value {
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                Value::String(text) => Some(text.clone()),
                Value::Null => Some("none".to_owned()),
                Value::Array(_) | Value::Object(_) => None,
            });
            let texts: Option<Vec<String>> = texts.collect();
            let texts = texts.ok_or_else(|| wrong("a list of numbers and names".to_owned()))?;
            choices
                .with(name, &texts)
                .map_err(|error| wrong(error.to_string()))
        })
}
