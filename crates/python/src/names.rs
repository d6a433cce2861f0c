//! Names in Python as the enums that they stand for; what is no such name is a `ValueError`.

use std::fmt::Display;
use std::str::FromStr;

use palettizer_palette::Dtype;
use pyo3::prelude::*;

use crate::error::bad_value;

/// For `from_py_with`: a value of an option, by name.
pub(crate) fn name<T: FromStr<Err: Display>>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    let text: &str = value.extract()?;
    text.parse().map_err(bad_value)
}

/// Likewise, or `None`.
pub(crate) fn optional_name<T: FromStr<Err: Display>>(
    value: &Bound<'_, PyAny>,
) -> PyResult<Option<T>> {
    (!value.is_none()).then(|| name(value)).transpose()
}

/// The dtypes of tensors, by the names that safetensors has for them, in small letters.
const DTYPES: [(&str, Dtype); 3] = [
    ("f32", Dtype::F32),
    ("f16", Dtype::F16),
    ("bf16", Dtype::BF16),
];

/// `f32`, `f16` or `bf16`.
pub(crate) fn dtype(name: &str) -> PyResult<Dtype> {
    let found = DTYPES.iter().find(|(known, _)| *known == name);
    found.map(|(_, dtype)| *dtype).ok_or_else(|| {
        bad_value(format_args!(
            "dtype is {name:?}; allowed: \"f32\", \"f16\" and \"bf16\""
        ))
    })
}

/// The opposite of [`dtype`].
pub(crate) fn dtype_name(dtype: Dtype) -> &'static str {
    let found = DTYPES.iter().find(|(_, known)| *known == dtype);
    found.map_or_else(|| dtype.name(), |(name, _)| name)
}
