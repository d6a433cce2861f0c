//! Reports and lists go to Python as JSON.

use pyo3::PyResult;
use serde::Serialize;

use crate::error::bad_value;

/// The text.
pub(crate) fn json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(bad_value)
}
