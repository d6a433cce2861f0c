//! Intermediate values of one run, and another run held against them.

use super::figures::Tally;
use super::{Value, add_value};
use crate::runtime::Observer;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

/// The values of a run by name; those of loops come several times. A value goes as soon as it was compared.
#[derive(Default)]
pub(super) struct Recorder {
    values: HashMap<String, VecDeque<Value>>,
}

impl Observer for Recorder {
    fn value(&mut self, _op_type: &str, name: &str, value: &Value, _took: Duration) {
        if matches!(value, Value::Tensor(tensor) if tensor.floats().is_some()) {
            let values = self.values.entry(name.to_owned()).or_default();
            values.push_back(value.clone());
        }
    }
}

/// Holds a run against an earlier one.
pub(super) struct Against<'a> {
    before: Recorder,
    tallies: &'a mut BTreeMap<String, Tally>,
    order: usize,
}

impl<'a> Against<'a> {
    pub(super) fn new(before: Recorder, tallies: &'a mut BTreeMap<String, Tally>) -> Self {
        Against {
            before,
            tallies,
            order: 0,
        }
    }
}

impl Observer for Against<'_> {
    fn value(&mut self, op_type: &str, name: &str, value: &Value, _took: Duration) {
        self.order += 1;
        let before = self
            .before
            .values
            .get_mut(name)
            .and_then(VecDeque::pop_front);
        let Some(before) = before else {
            return;
        };
        let order = self.order;
        let tally = self.tallies.entry(name.to_owned());
        let tally = tally.or_insert_with(|| Tally::of(op_type, order));
        add_value(tally, &before, value);
    }
}
