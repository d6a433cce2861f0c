//! One palettized weight as Python sees it.

use numpy::{PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use palettizer::safetensors::Checkpoint;
use palettizer_palette::{Deferred, Lut, Palette as Inner, Tensor, weighted_error};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::arrays::{bytes, slice, slice_mut};
use crate::error::bad_value;
use crate::names::dtype_name;
use crate::work;

type Bytes<'py> = Bound<'py, PyArray1<u8>>;

/// One weight as indices into lookup tables.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct Palette(pub(crate) Inner);

#[pymethods]
impl Palette {
    #[getter]
    fn dtype(&self) -> &'static str {
        dtype_name(self.0.dtype)
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.shape)
    }

    #[getter]
    fn nbits(&self) -> u32 {
        self.0.nbits.bits()
    }

    #[getter]
    fn index_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.index_shape)
    }

    #[getter]
    fn lut_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.lut_shape)
    }

    #[getter]
    fn vector_axis(&self) -> Option<usize> {
        self.0.vector_axis
    }

    #[getter]
    fn indices<'py>(&self, py: Python<'py>) -> Bytes<'py> {
        bytes(py, &self.0.indices)
    }

    /// The tables' entries in the weight's dtype.
    fn entries<'py>(&self, py: Python<'py>) -> PyResult<Bytes<'py>> {
        let entries = work::brief(py, || self.0.entries())?;
        Ok(bytes(py, &entries))
    }

    #[getter]
    fn lut_integers<'py>(&self, py: Python<'py>) -> Option<Bytes<'py>> {
        match &self.0.lut {
            Lut::Float(_) => None,
            Lut::Quantized { data, .. } => Some(bytes(py, data)),
        }
    }

    #[getter]
    fn lut_scale<'py>(&self, py: Python<'py>) -> Option<Bytes<'py>> {
        match &self.0.lut {
            Lut::Float(_) => None,
            Lut::Quantized { scale, .. } => Some(bytes(py, scale)),
        }
    }

    #[getter]
    fn lut_scale_shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        match &self.0.lut {
            Lut::Float(_) => Ok(None),
            Lut::Quantized { scale_shape, .. } => PyTuple::new(py, scale_shape).map(Some),
        }
    }

    #[getter]
    fn lut_offset<'py>(&self, py: Python<'py>) -> Option<Bytes<'py>> {
        match &self.0.lut {
            Lut::Quantized {
                offset: Some(offset),
                ..
            } => Some(bytes(py, offset)),
            _ => None,
        }
    }

    #[getter]
    fn scale<'py>(&self, py: Python<'py>) -> Option<Bytes<'py>> {
        let scale = self.0.scale.as_ref()?;
        Some(bytes(py, &scale.bytes))
    }

    #[getter]
    fn scale_shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let scale = self.0.scale.as_ref();
        scale
            .map(|scale| PyTuple::new(py, &scale.shape))
            .transpose()
    }

    #[getter]
    fn error<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = &self.0.error;
        let error = PyDict::new(py);
        error.set_item("squared_error", figures.squared_error)?;
        error.set_item("energy", figures.energy)?;
        error.set_item("elements", figures.elements)?;
        error.set_item("mse", figures.mse())?;
        error.set_item("snr_db", figures.snr_db())?;
        error.set_item("gap", figures.gap)?;
        if let Some(fit) = &self.0.fit {
            error.set_item("output_energy", fit.energy)?;
            error.set_item("output_error", fit.output_error())?;
        }
        Ok(error)
    }

    #[getter]
    fn objective(&self) -> Option<Vec<f64>> {
        self.0.fit.as_ref().map(|fit| fit.objective.clone())
    }

    /// Bytes that it takes at most in a safetensors file of fewer than `most` bytes, as a weight of this name.
    fn stored_len(&self, name: &str, most: u64) -> u64 {
        Checkpoint::len_of_palette(name, &self.0, most)
    }

    /// Σ s·(w − ŵ)² and Σ s·w² of the weight that it was made of.
    fn weighted_error(
        &self,
        py: Python<'_>,
        values: PyReadonlyArray1<'_, u8>,
        sensitivity: PyReadonlyArray1<'_, f32>,
    ) -> PyResult<(f64, f64)> {
        let bytes = slice("values", &values)?;
        let sensitivity = slice("sensitivity", &sensitivity)?;
        let tensor = Tensor::new(self.0.dtype, &self.0.shape, bytes).map_err(bad_value)?;
        if sensitivity.len() != tensor.len() {
            return Err(bad_value(format_args!(
                "sensitivity has {} values; expected {}, one for each element",
                sensitivity.len(),
                tensor.len()
            )));
        }
        work::brief(py, || weighted_error(&tensor, &self.0, sensitivity))
    }

    /// Writes the dense weight.
    fn decompress_into(&self, py: Python<'_>, mut out: PyReadwriteArray1<'_, u8>) -> PyResult<()> {
        let out = slice_mut("out", &mut out)?;
        work::brief(py, || self.0.decompress_into(out))
    }

    fn __repr__(&self) -> String {
        format!(
            "Palette({}, {:?}, nbits={}, luts={})",
            self.dtype(),
            self.0.shape,
            self.nbits(),
            self.0.luts()
        )
    }
}

/// A palette whose indices are still to be found.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct DeferredPalette {
    pub(crate) deferred: Deferred,
    /// As many threads find the indices as have found the tables.
    pub(crate) threads: Option<usize>,
}

#[pymethods]
impl DeferredPalette {
    /// Puts the palette's values in the place of those it was deferred for.
    fn replace(&self, py: Python<'_>, mut values: PyReadwriteArray1<'_, u8>) -> PyResult<Palette> {
        let values = slice_mut("values", &mut values)?;
        work::run(py, self.threads, None, |_| self.deferred.replace(values)).map(Palette)
    }
}
