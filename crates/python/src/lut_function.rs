//! A Python function that finds lookup tables, called from the threads that do the work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{PyArray1, PyArrayMethods as _, PyReadonlyArray1};
use palettizer::{CustomLut, LutFunction, LutGroup};
use pyo3::prelude::*;

use crate::arrays::slice;

/// The first exception that a function has raised, kept for the thread that started the work; and the flag that ends
/// the work, set with it.
#[derive(Debug, Default)]
pub(crate) struct Raised {
    first: Mutex<Option<PyErr>>,
    stop: AtomicBool,
}

impl Raised {
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    pub(crate) fn keep(&self, error: PyErr) -> String {
        let message = error.to_string();
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
        message
    }

    /// Raises what was kept.
    pub(crate) fn raise(&self) -> PyResult<()> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().map_or(Ok(()), Err)
    }
}

/// Wraps a function of (values, channel axis, dtype). It gets the values in the shape of the group, and gives a flat
/// float32 array of entries and a flat uint8 array of indices, one for each value in order.
pub(crate) fn lut_function(function: Py<PyAny>, raised: Arc<Raised>) -> LutFunction {
    LutFunction::new(move |values, group| {
        Python::attach(|py| call(function.bind(py), values, group))
            .map_err(|error| raised.keep(error))
    })
}

fn call(function: &Bound<'_, PyAny>, values: &[f32], group: &LutGroup<'_>) -> PyResult<CustomLut> {
    let array = PyArray1::from_slice(function.py(), values).reshape(group.shape)?;
    let found = function.call1((array, group.channel_axis, group.dtype.name()))?;
    let (lut, indices): (PyReadonlyArray1<'_, f32>, PyReadonlyArray1<'_, u8>) = found.extract()?;
    Ok(CustomLut::new(
        slice("lut", &lut)?.to_vec(),
        slice("indices", &indices)?.to_vec(),
    ))
}
