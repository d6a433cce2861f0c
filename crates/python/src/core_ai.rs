//! Core AI programs for the command and for [`palettizer::Model`]: the Python half of the package opens them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use numpy::PyReadonlyArray1;
use palettizer::budget::{Chosen, Curves};
use palettizer::coreml::{Compression, Consumer, WeightInfo};
use palettizer::{
    Decompressed, Error, OptimizationConfig, PaletteInfo, PipelineError, Progress, Report,
    SaveOptions, StagedOutput, core_ai,
};
use palettizer_pipeline::{chosen, curves};
use pyo3::exceptions::{PyException, PyImportError, PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::arrays::slice;
use crate::program::Program;
use crate::staged_output::no_program;

/// Lets this process open Core AI programs.
pub(crate) fn install() {
    core_ai::set_reader(open);
}

fn open(path: &Path) -> Result<Arc<dyn core_ai::Program>, Error> {
    Python::attach(|py| -> PyResult<Arc<dyn core_ai::Program>> {
        let module = py.import("palettizer.coreai._opened")?;
        let opened = module.getattr("Opened")?.call_method1("at", (path,))?;
        Ok(Arc::new(Program::new(&opened, Arc::default())?))
    })
    .map_err(|error| foreign(&error))
}

/// What Python says is wrong with a program. Whatever says nothing to a user is named with its type.
fn foreign(error: &PyErr) -> Error {
    Python::attach(|py| {
        let known = error.is_instance_of::<PyValueError>(py)
            || error.is_instance_of::<PyOSError>(py)
            || error.is_instance_of::<PyImportError>(py);
        Error::CoreAi(match known {
            true => error.value(py).to_string(),
            false => error.to_string(),
        })
    })
}

/// A weight, as Python lists it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Listed {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    bytes: u64,
    sparsity: f64,
    unique_values: u64,
    /// Name, type and operand of each op that uses it.
    users: Vec<(String, String, String)>,
    /// The ops that make it of what is stored.
    ops: Vec<String>,
    stored_dtype: Option<String>,
    lut_shape: Option<Vec<usize>>,
    lut_dtype: Option<String>,
    scaled: bool,
}

impl Listed {
    fn info(self) -> WeightInfo {
        let mut info = WeightInfo::new(self.name.as_str(), &self.shape, self.dtype);
        (info.bytes, info.sparsity, info.unique_values) =
            (self.bytes, self.sparsity, self.unique_values);
        let consumer = |(name, op_type, operand): (String, String, String)| {
            let mut consumer = Consumer::new(name, op_type);
            consumer.params = BTreeMap::from([(operand, self.name.clone())]);
            consumer
        };
        info.consumers = self.users.into_iter().map(consumer).collect();
        if !self.ops.is_empty() {
            let tables = self.lut_shape.zip(self.lut_dtype);
            let palette = tables.and_then(|(tables, dtype)| {
                PaletteInfo::of_tables(&tables, &self.shape, &dtype, self.scaled)
            });
            info.compression = Some(Compression::new(self.ops, self.stored_dtype, palette));
        }
        info
    }
}

impl Program {
    /// What Python gave, or why it did not: an exception that a reading thread has kept comes first.
    fn settle<T>(&self, done: Result<T, PipelineError>) -> Result<T, Error> {
        match self.raised().raise() {
            Err(error) => Err(foreign(&error)),
            Ok(()) => Ok(done?),
        }
    }

    /// Calls a method of a copy of the Python object, whose program may be changed.
    fn copied<T>(&self, work: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> Result<T, Error> {
        Python::attach(|py| work(&self.opened().bind(py).call_method0("copied")?))
            .map_err(|error| foreign(&error))
    }
}

/// The place that a program goes to: found out before the work whether it can.
fn place(out: &Path, options: SaveOptions) -> Result<StagedOutput, Error> {
    if !out
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("aimodel"))
    {
        return Err(Error::CoreAi(format!(
            "{}: the name of a Core AI program must end in .aimodel",
            out.display()
        )));
    }
    Ok(StagedOutput::folder(out, options, no_program)?)
}

/// Writes the program where an output is built; gives its bytes.
fn write(opened: &Bound<'_, PyAny>, staged: &StagedOutput) -> PyResult<u64> {
    opened.call_method1("write", (staged.built(),))?.extract()
}

impl core_ai::Program for Program {
    fn stored_len(&self) -> u64 {
        self.before()
    }

    fn weights(&self, threshold: usize) -> Result<Vec<WeightInfo>, Error> {
        let listed = Python::attach(|py| -> PyResult<Vec<Listed>> {
            let listed = self.opened().call_method1(py, "listed", (threshold,))?;
            listed.extract(py)
        });
        let listed = listed.map_err(|error| foreign(&error))?;
        Ok(listed.into_iter().map(Listed::info).collect())
    }

    fn weight_values(&self, name: &str) -> Result<Vec<f32>, Error> {
        let values = Python::attach(|py| -> PyResult<Vec<f32>> {
            let values = self.opened().call_method1(py, "values", (name,))?;
            let values: PyReadonlyArray1<'_, f32> = values.extract(py).map_err(|_| {
                PyException::new_err("values of a weight are a flat array of float32")
            })?;
            Ok(slice("values", &values)?.to_vec())
        });
        values.map_err(|error| foreign(&error))
    }

    fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: &Path,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let staged = place(out, options)?;
        let copy = self.copied(|opened| Program::new(opened, Arc::default()))?;
        let mut report = copy.settle(copy.palettize(config, progress))?;
        progress.finish();
        let written = Python::attach(|py| write(copy.opened().bind(py), &staged));
        report.bytes_after = written.map_err(|error| foreign(&error))?;
        staged.commit()?;
        Ok(report)
    }

    fn curves(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Curves, Error> {
        self.settle(curves(self, config, progress))
    }

    fn chosen(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Option<Chosen>, Error> {
        self.settle(chosen(self, config, progress))
    }

    fn decompress_to(&self, out: &Path, options: SaveOptions) -> Result<Decompressed, Error> {
        let staged = place(out, options)?;
        let done = self.copied(|opened| {
            let weights = opened.call_method0("decompress")?.extract()?;
            write(opened, &staged)?;
            Ok(Decompressed::new(weights))
        })?;
        staged.commit()?;
        Ok(done)
    }
}
