//! A file of Python's making on its way to its place.

use crate::error::Failure;
use crate::work;
use palettizer::SaveOptions;
use palettizer::core_ai::PROGRAM_FILE;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

/// Why a folder is not replaced by a program.
pub(crate) fn no_program(out: &Path) -> Option<String> {
    let program = out.join(PROGRAM_FILE).is_file();
    (out.is_dir() && !program).then(|| {
        format!("this is a folder without {PROGRAM_FILE}; only Core AI programs are replaced")
    })
}

/// `with StagedOutput(path, overwrite=True) as built:` the block makes a file at `built`; then it is put in its place, or is gone
/// if the block raises.
#[pyclass(module = "palettizer._native")]
pub(crate) struct StagedOutput(Option<palettizer::StagedOutput>);

#[pymethods]
impl StagedOutput {
    #[new]
    #[pyo3(signature = (path, *, overwrite = false))]
    fn new(path: PathBuf, overwrite: bool) -> PyResult<Self> {
        let staged = palettizer::StagedOutput::file(&path, SaveOptions::overwriting(overwrite))
            .map_err(Failure::from)?;
        Ok(Self(Some(staged)))
    }

    /// A folder that is a program: whatever else is a folder stays where it is.
    #[staticmethod]
    #[pyo3(signature = (path, *, overwrite = false))]
    fn program(path: PathBuf, overwrite: bool) -> PyResult<Self> {
        let options = SaveOptions::overwriting(overwrite);
        let staged = palettizer::StagedOutput::folder(&path, options, no_program);
        Ok(Self(Some(staged.map_err(Failure::from)?)))
    }

    fn __enter__(&self) -> PyResult<PathBuf> {
        match &self.0 {
            Some(staged) => Ok(staged.built()),
            None => Err(PyValueError::new_err(
                "the file is in its place, or gone, already",
            )),
        }
    }

    #[pyo3(signature = (kind, _error, _trace))]
    fn __exit__(
        &mut self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyAny>>,
        _error: Option<Bound<'_, PyAny>>,
        _trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // dropped at the end of this, if there was an exception
        if let (Some(staged), None) = (self.0.take(), kind) {
            work::brief(py, || staged.commit())?;
        }
        Ok(())
    }
}
