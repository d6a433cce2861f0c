//! Python's whole numbers, which have no end, as ours: one out of range is a `ValueError` that names the argument.

use palettizer_palette::Nbits;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;

use crate::error::bad_value;

/// A whole number of ours, several of them, or one that may be `None`.
pub(crate) trait Whole: Sized {
    fn read(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self>;
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Whole for $type {
            fn read(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
                value.extract().map_err(|error: PyErr| {
                    match error.is_instance_of::<PyOverflowError>(value.py()) {
                        true => bad_value(format_args!(
                            "{name} is {value}; expected a whole number from {} to {}",
                            <$type>::MIN,
                            <$type>::MAX
                        )),
                        false => error,
                    }
                })
            }
        }
    )*};
}

whole!(u32, u64, usize, i64);

impl Whole for Nbits {
    fn read(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bits = i64::read(name, value)?;
        bits.to_string().parse().map_err(bad_value)
    }
}

impl<T: Whole> Whole for Option<T> {
    fn read(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        match value.is_none() {
            true => Ok(None),
            false => T::read(name, value).map(Some),
        }
    }
}

impl<T: Whole> Whole for Vec<T> {
    fn read(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let elements = value.try_iter()?;
        elements.map(|value| T::read(name, &value?)).collect()
    }
}

/// For `from_py_with`: a reader for each argument, by its name.
macro_rules! arguments {
    ($($name:ident),* $(,)?) => {$(
        pub(crate) fn $name<T: Whole>(value: &Bound<'_, PyAny>) -> PyResult<T> {
            T::read(stringify!($name), value)
        }
    )*};
}

arguments!(
    channel_axis,
    cluster_dim,
    group_size,
    iterations,
    lut_scale_shape,
    lut_shape,
    max_expansion,
    nbits,
    noise,
    output_axis,
    rounds,
    scale_shape,
    seed,
    shape,
    starts,
    threads,
    threshold,
    vector_axis,
    weight_threshold,
);
