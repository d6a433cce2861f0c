//! Palettes for the weights of a program that Python reads and writes: all that the pipeline does, for a format of Python's.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use numpy::{PyArray1, PyReadonlyArray1};
use palettizer::Model;
use palettizer::budget::inform;
use palettizer_palette::{Dtype, Lut, Palette as Inner};
use palettizer_pipeline::config::{OptimizationConfig, Role};
use palettizer_pipeline::{
    Done, Error, Format, Known, Plan, Planned, Progress, Report, Source, User, Values, Weight,
    check_promise, execute, plan,
};
use pyo3::prelude::*;

use crate::arrays::slice;
use crate::config::Config;
use crate::error::Failure;
use crate::json::json;
use crate::lut_function::Raised;
use crate::names::dtype as parse_dtype;
use crate::palette::Palette;
use crate::whole;
use crate::work;

/// A weight, as Python describes it.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Described {
    names: Vec<String>,
    /// Name and type of each op that uses it.
    users: Vec<(String, String)>,
    shape: Vec<usize>,
    /// `f32`, `f16` or `bf16`; of a weight that cannot be palettized, anything.
    dtype: String,
    output_axis: Option<usize>,
    /// What it is to a language model: `embedding` or `head`.
    role: Option<String>,
    /// Bytes that it takes now.
    bytes: u64,
    /// Why it cannot be palettized, whatever the configuration says.
    problem: Option<String>,
    /// The type of what joint compression palettizes of it, if there is something.
    joint: Option<String>,
    /// Whether that is what a mask keeps.
    masked: bool,
    /// Bytes of all else that it is made of.
    beside: u64,
}

impl Described {
    /// What it is palettized from.
    fn source(&self, config: &OptimizationConfig) -> Result<Source, String> {
        let joint = self.joint.as_ref().filter(|_| config.joint_compression());
        if let (None, Some(problem)) = (joint, &self.problem) {
            return Err(problem.clone());
        }
        let dtype = joint.unwrap_or(&self.dtype);
        let masked = joint.is_some() && self.masked;
        known_dtype(dtype)
            .map(|dtype| Source { dtype, masked })
            .ok_or_else(|| format!("{dtype} is no type of a weight: expected f32, f16 or bf16"))
    }

    /// Whether its integers are palettized, which others make numbers of.
    fn is_quantized(&self) -> bool {
        self.joint.is_some() && !self.masked
    }
}

fn role(name: &str) -> Option<Role> {
    match name {
        "embedding" => Some(Role::Embedding),
        "head" => Some(Role::Head),
        _ => None,
    }
}

/// The type that a program has a name for, if weights can be of it.
fn known_dtype(name: &str) -> Option<Dtype> {
    match name {
        "si8" => Some(Dtype::I8),
        "ui8" => Some(Dtype::U8),
        name => parse_dtype(name).ok(),
    }
}

/// A program whose weights Python reads: an object of the Python package, and what it says of the weights.
#[derive(Debug)]
pub(crate) struct Program {
    opened: Py<PyAny>,
    weights: Vec<Described>,
    raised: Arc<Raised>,
    /// Bytes of the program as it is.
    before: u64,
    /// Bytes that a palette's ops, types and names take at most, beside its data.
    overhead: u64,
}

/// The bytes of a weight, and of what a mask keeps of it the mask.
type Read<'py> = (PyReadonlyArray1<'py, u8>, Option<PyReadonlyArray1<'py, u8>>);

/// Palettizes the weights of a program: see `_native.pyi`.
#[pyfunction]
#[pyo3(signature = (opened, config, *, threads = None, progress = None))]
pub(crate) fn palettize_program(
    py: Python<'_>,
    opened: &Bound<'_, PyAny>,
    mut config: Config,
    #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<String> {
    let raised = Arc::new(Raised::default());
    let (curves, _) = config.sources();
    let config = config.into_rust(&raised)?;
    let program = Arc::new(Program::new(opened, raised.clone())?);
    let report = work::run_until(py, threads, progress, raised.stop(), |line| {
        let done = program.palettized_with(config, curves.as_deref(), line);
        raised.raise().map_err(Failure)?;
        done.map_err(Failure::from)
    })?;
    json(&report)
}

impl Program {
    pub(crate) fn new(opened: &Bound<'_, PyAny>, raised: Arc<Raised>) -> PyResult<Self> {
        let weights: Vec<Described> = opened.getattr("described")?.extract()?;
        Ok(Self {
            weights,
            raised,
            before: opened.getattr("before")?.extract()?,
            overhead: opened.getattr("overhead")?.extract()?,
            opened: opened.clone().unbind(),
        })
    }

    pub(crate) fn before(&self) -> u64 {
        self.before
    }

    /// What Python raised while its weights were read.
    pub(crate) fn raised(&self) -> &Raised {
        &self.raised
    }

    /// The Python object.
    pub(crate) fn opened(&self) -> &Py<PyAny> {
        &self.opened
    }

    /// As [`palettize`](Self::palettize), with the curves of a file.
    fn palettized_with(
        self: &Arc<Self>,
        config: OptimizationConfig,
        curves: Option<&Path>,
        line: &work::Line<'_>,
    ) -> Result<Report, palettizer::Error> {
        let model = Model::CoreAi(self.clone());
        let informed = inform(&model, config, curves, None, line)?;
        let mut report = self.palettize(&informed.config, line)?;
        informed.complete(&mut report);
        Ok(report)
    }

    /// The report; each palette goes to the Python object, in the order of the weights, with the number of its weight.
    pub(crate) fn palettize(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Report, Error> {
        let start = Instant::now();
        let mut plan = plan(self, config, progress)?;
        let store = |planned: &Planned<usize>, palette: &Inner| {
            let bytes = self.palette_bytes(planned, palette)?;
            let given = Palette(palette.clone());
            let put = (planned.weight.place, given);
            Python::attach(|py| self.opened.call_method1(py, "put", put))
                .map_err(|error| self.stopped(error))?;
            Ok(((), bytes))
        };
        let done = execute(self, &mut plan, config, store, progress)?;
        let figures = done
            .into_iter()
            .map(|done| done.map(|Done { figures, .. }| figures));
        let figures: Vec<_> = figures.collect();
        let palettes = figures.iter().flatten().map(|figures| figures.bytes_after);
        let after = self.other_bytes(&plan)?.saturating_add(palettes.sum());
        check_promise(plan.budget.as_ref(), after)?;
        let rows = plan.weights.iter().zip(figures);
        let rows = rows.map(|(planned, figures)| planned.report(figures));
        let report = Report::new(self.before, after, rows.collect(), start);
        Ok(report
            .with_unmatched(plan.unmatched)
            .with_budget(plan.budget))
    }

    /// Keeps what Python raised for the thread that asked, and ends the work.
    fn stopped(&self, error: PyErr) -> Error {
        self.raised.keep(error);
        Error::Stopped
    }
}

impl Format for Program {
    type Place = usize;
    type Error = Error;
    const REPORTS_SMALL: bool = false;

    fn known(&self) -> Known<'_> {
        let mut known = Known::default();
        for weight in &self.weights {
            known.names.extend(weight.names.iter().map(String::as_str));
            for (name, op_type) in &weight.users {
                known.names.insert(name);
                known.types.insert(op_type);
            }
        }
        known
    }

    fn weights(&self, config: &OptimizationConfig) -> Result<Vec<Weight<usize>>, Error> {
        let user = |(name, op_type): &(String, String)| User {
            name: name.clone(),
            op_type: op_type.clone(),
        };
        let weight = |(place, weight): (usize, &Described)| {
            let source = weight.source(config);
            Weight {
                names: weight.names.clone(),
                users: Some(weight.users.iter().map(user).collect()),
                shape: weight.shape.clone(),
                dtype: source.as_ref().map_or_else(
                    |_| known_dtype(&weight.dtype).map_or("other", Dtype::name),
                    |source| source.dtype.name(),
                ),
                bytes: weight.bytes,
                output_axis: weight.output_axis,
                data: None,
                role: weight.role.as_deref().and_then(role),
                source,
                place,
            }
        };
        Ok(self.weights.iter().enumerate().map(weight).collect())
    }

    fn values<'v>(&'v self, weight: &'v Weight<usize>) -> Result<Values<'v>, Error> {
        let read = Python::attach(|py| -> PyResult<_> {
            let found = self.opened.call_method1(py, "read", (weight.place,))?;
            let (bytes, mask): Read<'_> = found.extract(py)?;
            let mask = mask.map(|mask| Ok::<_, PyErr>(slice("mask", &mask)?.to_vec()));
            Ok((slice("values", &bytes)?.to_vec(), mask.transpose()?))
        });
        let (bytes, mask) = read.map_err(|error| self.stopped(error))?;
        Ok(Values {
            bytes: Cow::Owned(bytes),
            mask: mask.map(Cow::Owned),
        })
    }

    fn other_bytes(&self, plan: &Plan<usize>) -> Result<u64, Error> {
        let jobs = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_some());
        let palettized: u64 = jobs.map(|planned| planned.weight.bytes).sum();
        Ok(self.before.saturating_sub(palettized))
    }

    fn palette_bytes(&self, planned: &Planned<usize>, palette: &Inner) -> Result<u64, Error> {
        let beside = self.weights[planned.weight.place].beside;
        let mask = palette.mask.as_ref().map_or(0, Vec::len);
        let own = palette.stored_bytes().saturating_sub(mask);
        // Python stores a table of numbers where one with an offset would not leave the zeros of a mask
        let numbers = match (&palette.mask, &palette.lut) {
            (
                Some(_),
                Lut::Quantized {
                    data,
                    offset: Some(_),
                    ..
                },
            ) => data.len() * palette.dtype.size(),
            _ => 0,
        };
        Ok((own + numbers) as u64 + beside + self.overhead)
    }

    fn stored_len(&self) -> u64 {
        self.before
    }

    fn finish(
        &self,
        weight: &Weight<usize>,
        _values: &Values<'_>,
        palette: Option<&mut Inner>,
    ) -> Result<(), Error> {
        let (true, Some(palette)) = (self.weights[weight.place].is_quantized(), palette) else {
            return Ok(());
        };
        // integers are all alike, but each counts with the scale of its block
        let found = Python::attach(|py| -> PyResult<(f64, f64)> {
            let integers = PyArray1::from_vec(py, palette.decompress());
            let asked = (weight.place, integers);
            self.opened.call_method1(py, "error", asked)?.extract(py)
        });
        let (squared_error, energy) = found.map_err(|error| self.stopped(error))?;
        (palette.error.squared_error, palette.error.energy) = (squared_error, energy);
        Ok(())
    }
}
