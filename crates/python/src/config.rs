//! A whole configuration: a Python dictionary as the `OptimizationConfig` of the Rust crates.

use std::path::PathBuf;
use std::sync::Arc;

use palettizer::budget::{Budget, GoalName};
use palettizer::config_file;
use palettizer::runtime::Named;
use palettizer::values::Samples;
use palettizer::{
    GranularityName, LutDtype, MissingSensitivity, ModeName, Nbits, OpOptions, OpPalettizerConfig,
    OptimizationConfig, Precision, Preset, SpecOptions, Target, sensitivities,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::budget::choices;
use crate::error::{Failure, bad_value};
use crate::json::json;
use crate::lut_function::{Raised, lut_function};
use crate::names::{name, optional_name};
use crate::session::named;
use crate::whole;
use crate::work::{self, Line};

/// What `palettizer.coreml` says of a whole run.
pub(crate) struct Config(Fields);

impl<'a, 'py> FromPyObject<'a, 'py> for Config {
    type Error = PyErr;

    /// What is wrong with the value of a field is raised as it is, not as the cause of a `TypeError`.
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        object.extract().map(Self).map_err(|error: PyErr| {
            let mut inner = error.cause(py);
            while let Some(cause) = inner {
                if cause.is_instance_of::<PyValueError>(py) {
                    return cause;
                }
                inner = cause.cause(py);
            }
            error
        })
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Fields {
    global_config: Option<OpFields>,
    #[pyo3(default)]
    op_type_configs: ByName,
    #[pyo3(default)]
    op_name_configs: ByName,
    #[pyo3(default, from_py_with = optional_name)]
    preset: Option<Preset>,
    #[pyo3(default)]
    joint_compression: bool,
    #[pyo3(default)]
    strict: bool,
    #[pyo3(default)]
    exact: bool,
    #[pyo3(default, from_py_with = whole::seed)]
    seed: u64,
    #[pyo3(default, from_py_with = optional_name)]
    minimum_deployment_target: Option<Target>,
    /// A safetensors file, and what becomes of a weight that it lacks: `error` or `ones`.
    #[pyo3(default)]
    sensitivity: Option<PathBuf>,
    #[pyo3(default)]
    sensitivity_default: Option<String>,
    #[pyo3(default)]
    budget: Option<BudgetFields>,
}

/// A budget, and what it is chosen by.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct BudgetFields {
    goal: String,
    number: String,
    #[pyo3(default)]
    choices: Vec<(String, Vec<String>)>,
    #[pyo3(default)]
    curves: Option<PathBuf>,
    #[pyo3(default, from_py_with = samples)]
    inputs: Option<Vec<Named>>,
}

/// A dictionary from names or patterns to fields, in its order: the first pattern that fits decides.
#[derive(Default)]
struct ByName(Vec<(String, Option<OpFields>)>);

impl FromPyObject<'_, '_> for ByName {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let pairs = object.cast::<PyDict>()?.iter();
        let pairs = pairs.map(|(name, fields)| Ok((name.extract()?, fields.extract()?)));
        pairs.collect::<PyResult<_>>().map(ByName)
    }
}

/// The fields of one `OpPalettizerConfig`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct OpFields {
    #[pyo3(from_py_with = name)]
    mode: ModeName,
    #[pyo3(default, from_py_with = whole::nbits)]
    nbits: Option<Nbits>,
    #[pyo3(default)]
    lut_function: Option<Py<PyAny>>,
    #[pyo3(from_py_with = name)]
    granularity: GranularityName,
    #[pyo3(default, from_py_with = whole::group_size)]
    group_size: Option<usize>,
    #[pyo3(default, from_py_with = whole::channel_axis)]
    channel_axis: Option<i64>,
    #[pyo3(from_py_with = whole::cluster_dim)]
    cluster_dim: usize,
    enable_per_channel_scale: bool,
    #[pyo3(from_py_with = whole::weight_threshold)]
    weight_threshold: usize,
    #[pyo3(default, from_py_with = optional_name)]
    lut_dtype: Option<LutDtype>,
}

impl Config {
    /// Runs work under it. What a function of the user's raises ends the work and is raised.
    pub(crate) fn run<T: Send, E: Into<Failure> + Send>(
        self,
        py: Python<'_>,
        threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
        work: impl FnOnce(&OptimizationConfig, &Line<'_>) -> Result<T, E> + Send,
    ) -> PyResult<T> {
        let raised = Arc::new(Raised::default());
        let config = self.into_rust(&raised)?;
        work::run_until(py, threads, progress, raised.stop(), |line| {
            let done = work(&config, line);
            raised.raise().map_err(Failure)?;
            done.map_err(E::into)
        })
    }

    /// What a budget is chosen by beside the model: the file of curves, and inputs.
    pub(crate) fn sources(&mut self) -> (Option<PathBuf>, Option<Samples>) {
        let Some(budget) = &mut self.0.budget else {
            return (None, None);
        };
        (
            budget.curves.take(),
            budget.inputs.take().map(Samples::given),
        )
    }

    /// The configuration; what its functions raise goes to `raised`.
    pub(crate) fn into_rust(self, raised: &Arc<Raised>) -> PyResult<OptimizationConfig> {
        let fields = self.0;
        let one = |op: Option<OpFields>| {
            op.map(|op| op.into_rust(fields.exact, fields.seed, raised))
                .transpose()
        };
        let mut config = OptimizationConfig::new()
            .with_preset(fields.preset)
            .with_global(one(fields.global_config)?)
            .with_joint_compression(fields.joint_compression)
            .with_strict(fields.strict)
            .with_minimum_deployment_target(fields.minimum_deployment_target);
        if let Some(path) = fields.sensitivity {
            let missing = missing(fields.sensitivity_default.as_deref())?;
            config = config.with_sensitivity(sensitivities(path, missing).map_err(Failure::from)?);
        }
        if let Some(budget) = fields.budget {
            config = config.with_budget(budget.into_rust()?);
        }
        for (name, op) in fields.op_type_configs.0 {
            config = config.with_op_type(name, one(op)?);
        }
        for (name, op) in fields.op_name_configs.0 {
            config = config.with_op_name(name, one(op)?);
        }
        Ok(config)
    }
}

impl BudgetFields {
    fn into_rust(self) -> PyResult<Budget> {
        let goal: GoalName = self.goal.parse().map_err(bad_value)?;
        let budget = Budget::new(goal.read(&self.number).map_err(bad_value)?);
        Ok(budget.with_choices(choices(&self.choices)?))
    }
}

/// Inputs by name, of each sample.
fn samples(object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<Named>>> {
    if object.is_none() {
        return Ok(None);
    }
    let samples = object.try_iter()?;
    let named = samples.map(|sample| named(sample?.cast::<PyDict>()?));
    named.collect::<PyResult<_>>().map(Some)
}

fn missing(name: Option<&str>) -> PyResult<MissingSensitivity> {
    match name {
        None | Some("error") => Ok(MissingSensitivity::Error),
        Some("ones") => Ok(MissingSensitivity::Ones),
        Some(other) => Err(bad_value(format_args!(
            "sensitivity_default is {other:?}; allowed: \"error\" and \"ones\""
        ))),
    }
}

impl OpFields {
    fn into_rust(
        self,
        exact: bool,
        seed: u64,
        raised: &Arc<Raised>,
    ) -> PyResult<OpPalettizerConfig> {
        let spec = SpecOptions {
            nbits: self.nbits,
            mode: Some(self.mode),
            granularity: Some(self.granularity),
            group_size: self.group_size,
            channel_axis: self.channel_axis,
            cluster_dim: Some(self.cluster_dim),
            enable_per_channel_scale: Some(self.enable_per_channel_scale),
            lut_dtype: self.lut_dtype,
            lut_function: self
                .lut_function
                .map(|function| lut_function(function, Arc::clone(raised))),
            precision: exact.then_some(Precision::Exact),
            seed: Some(seed),
        };
        let mut options = OpOptions::from(spec.ignoring_unused_groups());
        options.weight_threshold = Some(self.weight_threshold);
        options.build().map_err(bad_value)
    }
}

/// A YAML document, as JSON.
#[pyfunction]
pub(crate) fn yaml_text(py: Python<'_>, text: &str) -> PyResult<String> {
    json(&work::brief(py, || config_file::yaml_value(text))?)
}

/// The YAML document of a file, as JSON.
#[pyfunction]
pub(crate) fn yaml_file(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    json(&work::brief(py, || config_file::yaml_file(path))?)
}
