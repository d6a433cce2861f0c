//! numpy arrays as slices and back.

use numpy::ndarray::Dimension;
use numpy::{
    Element, PyArray1, PyReadonlyArray, PyReadonlyArray1, PyReadwriteArray1, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::bad_value;

/// The elements of an array that lie one after the other.
pub(crate) fn slice<'a, T: Element, D: Dimension>(
    name: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    // In the order of C: that of Fortran has no holes either.
    let slice = array.as_slice().ok().filter(|_| array.is_c_contiguous());
    slice.ok_or_else(|| {
        bad_value(format_args!(
            "{name} is not contiguous; pass numpy.ascontiguousarray of it"
        ))
    })
}

/// The same of an array that may be `None`.
pub(crate) fn optional_slice<'a, T: Element>(
    name: &str,
    array: &'a Option<PyReadonlyArray1<'_, T>>,
) -> PyResult<Option<&'a [T]>> {
    array.as_ref().map(|array| slice(name, array)).transpose()
}

/// The elements of an array, to be written to.
pub(crate) fn slice_mut<'a, T: Element>(
    name: &str,
    array: &'a mut PyReadwriteArray1<'_, T>,
) -> PyResult<&'a mut [T]> {
    array.as_slice_mut().map_err(|_| {
        bad_value(format_args!(
            "{name} is not contiguous, so nothing can be written into it"
        ))
    })
}

/// A new array with a copy of some bytes.
pub(crate) fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyArray1<u8>> {
    PyArray1::from_slice(py, bytes)
}

/// A dense tensor as Python has it: dtype, shape, bytes.
pub(crate) type Dense<'py> = (&'static str, Bound<'py, PyTuple>, Bound<'py, PyArray1<u8>>);

/// Copies one.
pub(crate) fn dense<'py>(
    py: Python<'py>,
    dtype: &'static str,
    shape: &[usize],
    data: &[u8],
) -> PyResult<Dense<'py>> {
    Ok((dtype, PyTuple::new(py, shape)?, bytes(py, data)))
}
