//! A Core ML model as Python has it.

use std::path::PathBuf;

use palettizer::budget::{Informed, inform};
use palettizer::coreml::Model as Inner;
use palettizer::values::Samples;
use palettizer::{Error, Limits, OptimizationConfig, SaveOptions};
use pyo3::prelude::*;

use crate::arrays::{Dense, dense};
use crate::config::Config;
use crate::json::json;
use crate::whole;
use crate::work::{self, Line};

/// A Core ML model: its program, and its weights, which stay in their file until they are needed.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct Model(pub(crate) Inner);

#[pymethods]
impl Model {
    /// The built-in model.
    #[staticmethod]
    fn demo(py: Python<'_>) -> PyResult<Self> {
        work::brief(py, palettizer_cli::demo_model).map(Self)
    }

    /// Opens a package or an `.mlmodel` file.
    #[staticmethod]
    #[pyo3(signature = (path, *, max_expansion = None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        #[pyo3(from_py_with = whole::max_expansion)] max_expansion: Option<u64>,
    ) -> PyResult<Self> {
        work::brief(py, || Inner::open_with(path, limits(max_expansion))).map(Self)
    }

    /// A serialized program, and the folder that its weight files are in.
    #[staticmethod]
    #[pyo3(signature = (spec, weights_dir, *, max_expansion = None))]
    fn open_parts(
        py: Python<'_>,
        spec: &[u8],
        weights_dir: PathBuf,
        #[pyo3(from_py_with = whole::max_expansion)] max_expansion: Option<u64>,
    ) -> PyResult<Self> {
        let model = work::brief(py, || Inner::open_parts(spec, weights_dir))?;
        Ok(Self(model.with_limits(limits(max_expansion))))
    }

    /// The same model, within other limits.
    #[pyo3(signature = (max_expansion = None))]
    fn within(
        &self,
        #[pyo3(from_py_with = whole::max_expansion)] max_expansion: Option<u64>,
    ) -> Self {
        Self(self.0.clone().with_limits(limits(max_expansion)))
    }

    /// A palettized copy in memory, and its report as JSON.
    #[pyo3(signature = (config, *, threads = None, progress = None))]
    fn palettize(
        &self,
        py: Python<'_>,
        mut config: Config,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Self, String)> {
        let sources = config.sources();
        let (model, report) = config.run(py, threads, progress, |config, line| {
            let informed = self.informed(config, &sources, line)?;
            let (model, mut report) = self.0.palettize(&informed.config, line)?;
            informed.complete(&mut report);
            Ok::<_, Error>((model, report))
        })?;
        Ok((Self(model), json(&report)?))
    }

    /// Palettizes straight to a package; the report as JSON.
    #[pyo3(signature = (config, out, *, overwrite = false, threads = None, progress = None))]
    fn palettize_to(
        &self,
        py: Python<'_>,
        mut config: Config,
        out: PathBuf,
        overwrite: bool,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let options = SaveOptions::overwriting(overwrite);
        let sources = config.sources();
        json(&config.run(py, threads, progress, |config, line| {
            let informed = self.informed(config, &sources, line)?;
            let mut report = self.0.palettize_to(&informed.config, &out, options, line)?;
            informed.complete(&mut report);
            Ok::<_, Error>(report)
        })?)
    }

    /// A copy in memory with every weight dense.
    #[pyo3(signature = (*, threads = None, progress = None))]
    fn decompress(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        work::run(py, threads, progress, |line| self.0.decompress(line)).map(Self)
    }

    /// Writes a package with every weight dense.
    #[pyo3(signature = (out, *, overwrite = false, threads = None, progress = None))]
    fn decompress_to(
        &self,
        py: Python<'_>,
        out: PathBuf,
        overwrite: bool,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let options = SaveOptions::overwriting(overwrite);
        work::run(py, threads, progress, |line| {
            self.0.decompress_to(&out, options, line).map(drop)
        })
    }

    /// Writes the package.
    #[pyo3(signature = (out, *, overwrite = false))]
    fn save(&self, py: Python<'_>, out: PathBuf, overwrite: bool) -> PyResult<()> {
        let options = SaveOptions::overwriting(overwrite);
        work::brief(py, || self.0.save(out, options).map(drop))
    }

    /// Every constant with more than `threshold` elements, as JSON.
    #[pyo3(signature = (threshold = 2048, *, threads = None))]
    fn weights(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::threshold)] threshold: usize,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<String> {
        json(&work::run(py, threads, None, |_| {
            self.0.weights(threshold)
        })?)
    }

    /// The dense values of a constant: dtype, shape, bytes.
    fn weight_values<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Dense<'py>> {
        let values = work::brief(py, || self.0.weight_values(name))?;
        dense(py, values.dtype, &values.shape, &values.bytes)
    }
}

/// The limits that a keyword stands for.
pub(crate) fn limits(max_expansion: Option<u64>) -> Limits {
    let limits = Limits::default();
    max_expansion.map_or(limits, |times| limits.with_max_expansion(times))
}

impl Model {
    /// The configuration with all that a budget is chosen by.
    fn informed(
        &self,
        config: &OptimizationConfig,
        (curves, samples): &(Option<PathBuf>, Option<Samples>),
        line: &Line<'_>,
    ) -> Result<Informed, Error> {
        let model = palettizer::Model::CoreMl(Box::new(self.0.clone()));
        let config = config.clone();
        inform(&model, config, curves.as_deref(), samples.as_ref(), line)
    }
}
