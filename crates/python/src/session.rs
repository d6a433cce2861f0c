//! A program run on the CPU: arrays in, arrays out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::PyArray1;
use palettizer::runtime::{
    Dtype, Elements, Feature, Image, Kind, Label, Loss, Named, Pixels, Precision, RunOptions,
    Session as Inner, State, Tensor, Value,
};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyList};

use crate::error::bad_value;
use crate::memory;
use crate::model::Model;
use crate::whole;
use crate::work;

/// A model made ready to run.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct Session(Inner);

/// What the states of a model hold between runs.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct RunState(Mutex<State>);

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (model, *, keep_constants = false))]
    fn new(py: Python<'_>, model: &Model, keep_constants: bool) -> PyResult<Self> {
        let session = work::brief(py, || Inner::new(&model.0))?;
        Ok(Self(session.keep_constants(keep_constants)))
    }

    /// States that hold zeros.
    #[pyo3(signature = (function = None))]
    fn state(&self, py: Python<'_>, function: Option<&str>) -> PyResult<RunState> {
        let state = work::brief(py, || self.0.state(function))?;
        Ok(RunState(Mutex::new(state)))
    }

    /// Runs a function on arrays: name -> (dtype, shape, bytes, or a list of strings); see `given` for images.
    #[pyo3(signature = (inputs, *, function = None, state = None, exact = true, max_steps = None, max_memory = None, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyDict>,
        function: Option<&str>,
        state: Option<&RunState>,
        exact: bool,
        max_steps: Option<u64>,
        max_memory: Option<u64>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let named = named(inputs)?;
        let outputs = work::run(py, threads, None, |line| {
            let options = options(exact, max_steps, max_memory, line);
            match state {
                Some(state) => {
                    let mut held = state.0.lock().unwrap_or_else(PoisonError::into_inner);
                    self.0.run_with(function, named, &mut held, options, None)
                }
                None => {
                    let mut fresh = self.0.state(function)?;
                    self.0.run_with(function, named, &mut fresh, options, None)
                }
            }
        })?;
        objects(py, outputs)
    }

    /// What a function's inputs, outputs and states are, by name: "array", a color space, "int", …
    #[pyo3(signature = (function = None))]
    fn interface<'py>(
        &self,
        py: Python<'py>,
        function: Option<&str>,
    ) -> PyResult<[Bound<'py, PyDict>; 3]> {
        let interface = work::brief(py, || self.0.interface(function))?;
        let kinds = |features: &[Feature]| {
            let found = PyDict::new(py);
            for feature in features {
                found.set_item(&feature.name, kind(&feature.kind))?;
            }
            Ok::<_, PyErr>(found)
        };
        let (inputs, outputs) = (kinds(&interface.inputs)?, kinds(&interface.outputs)?);
        Ok([inputs, outputs, kinds(&interface.states)?])
    }

    /// The names of a function's outputs, in its order.
    #[pyo3(signature = (function = None))]
    fn outputs(&self, py: Python<'_>, function: Option<&str>) -> PyResult<Vec<String>> {
        let names = work::brief(py, || self.0.output_names(function))?;
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// Differentiates a loss with respect to inputs and constants: (loss, outputs, gradients).
    ///
    /// A loss is (kind, output or None, what it compares with): ("output", name, None), ("cross_entropy" or "nll", name,
    /// labels), ("mse", name, an array), ("projection", None, arrays by output).
    #[pyo3(signature = (inputs, loss, wrt, *, function = None, exact = true, max_steps = None, max_memory = None, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn grad<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyDict>,
        loss: &Bound<'py, PyAny>,
        wrt: Vec<String>,
        function: Option<&str>,
        exact: bool,
        max_steps: Option<u64>,
        max_memory: Option<u64>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<(f64, Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let (named, loss) = (named(inputs)?, loss_of(loss)?);
        let wrt: Vec<&str> = wrt.iter().map(String::as_str).collect();
        let found = work::run(py, threads, None, |line| {
            memory::give_back();
            let options = options(exact, max_steps, max_memory, line);
            self.0.grad_with(&loss, &wrt, function, named, options)
        })?;
        let gradients = PyDict::new(py);
        for (name, tensor) in found.gradients {
            gradients.set_item(name, array(py, tensor)?)?;
        }
        Ok((found.loss, objects(py, found.outputs)?, gradients))
    }
}

fn options<'a>(
    exact: bool,
    max_steps: Option<u64>,
    max_memory: Option<u64>,
    line: &work::Line<'a>,
) -> RunOptions<'a> {
    let defaults = RunOptions::default();
    RunOptions {
        precision: match exact {
            true => Precision::Exact,
            false => Precision::Fast,
        },
        max_steps: max_steps.unwrap_or(defaults.max_steps),
        max_memory: max_memory.unwrap_or(defaults.max_memory),
        stop: Some(line.stop),
    }
}

pub(crate) fn named(inputs: &Bound<'_, PyDict>) -> PyResult<Named> {
    let mut named = Named::new();
    for (name, value) in inputs {
        named.insert(name.extract()?, given(&value)?);
    }
    Ok(named)
}

fn objects<'py>(py: Python<'py>, outputs: Named) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (name, value) in outputs {
        found.set_item(name, object(py, value)?)?;
    }
    Ok(found)
}

fn loss_of(loss: &Bound<'_, PyAny>) -> PyResult<Loss> {
    let (kind, output, with): (String, Option<String>, Bound<'_, PyAny>) = loss.extract()?;
    let output = output.unwrap_or_default();
    Ok(match kind.as_str() {
        "output" => Loss::Output(output),
        "cross_entropy" => Loss::CrossEntropy {
            output,
            labels: with.extract()?,
        },
        "nll" => Loss::Nll {
            output,
            labels: with.extract()?,
        },
        "mse" => Loss::Mse {
            output,
            target: floats(&with)?,
        },
        "projection" => {
            let mut factors = BTreeMap::new();
            for (name, value) in with.cast::<PyDict>()? {
                factors.insert(name.extract()?, floats(&value)?);
            }
            Loss::Projection(factors)
        }
        _ => return Err(bad_value(format_args!("the loss {kind:?} is not known"))),
    })
}

fn floats(value: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
    let tensor = tensor(value)?;
    let found = tensor.dtype().name();
    let floats = tensor.into_floats();
    floats.ok_or_else(|| {
        bad_value(format_args!(
            "a loss is compared with an array of {found}; expected floats"
        ))
    })
}

#[pymethods]
impl RunState {
    /// What a state holds.
    fn read<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.get(name) {
            Some(tensor) => array(py, tensor.clone()),
            None => {
                let known: Vec<&String> = state.iter().map(|(name, _)| name).collect();
                Err(bad_value(format_args!(
                    "no state is called {name:?}; the model has {known:?}"
                )))
            }
        }
    }

    /// Lets a state hold something else.
    fn write(&self, py: Python<'_>, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let tensor = tensor(value)?;
        work::brief(py, || {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.set(name, tensor)
        })
    }
}

/// What Python calls a kind: a color space by its name in the specification.
fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Array(_) | Kind::State(_) => "array",
        Kind::Image(image) => image.color.name(),
        Kind::Int => "int",
        Kind::Double => "double",
        Kind::Text => "string",
        Kind::Dictionary => "dictionary",
        Kind::Sequence => "sequence",
        _ => "unknown",
    }
}

/// A tensor, or an image: ("image", [height, width] or [height, width, 3], bytes), or ("float image", [height, width], the
/// bytes of float32).
fn given(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let (name, shape, data): (String, Vec<usize>, Bound<'_, PyAny>) = value.extract()?;
    if name != "image" && name != "float image" {
        return tensor(value).map(Value::Tensor);
    }
    let bytes: &[u8] = data.extract()?;
    let pixels = match (name.as_str(), shape.len()) {
        ("image", 2) => Pixels::Gray(bytes.to_vec()),
        ("image", 3) => Pixels::Rgb(bytes.to_vec()),
        _ => {
            let words = bytes.as_chunks::<4>().0.iter();
            Pixels::GrayF16(words.map(|&word| f32::from_le_bytes(word)).collect())
        }
    };
    let image = match *shape.as_slice() {
        [height, width] | [height, width, 3] => Image::new(width, height, pixels),
        _ => None,
    };
    image
        .map(|image| Value::Image(Arc::new(image)))
        .ok_or_else(|| {
            bad_value(format_args!(
                "the bytes are not those of an image of {shape:?}"
            ))
        })
}

/// (dtype, shape, bytes) as a tensor: bytes are those of float32, int32 or bool; strings are a list.
fn tensor(value: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let (name, shape, data): (String, Vec<usize>, Bound<'_, PyAny>) = value.extract()?;
    let dtype = Dtype::of_name(&name)
        .ok_or_else(|| bad_value(format_args!("dtype {name:?} is not known")))?;
    let elements: Elements = if dtype == Dtype::Text {
        data.extract::<Vec<String>>()?.into()
    } else {
        let bytes: &[u8] = data.extract()?;
        let words = bytes.as_chunks::<4>().0.iter();
        match dtype {
            Dtype::Bool => bytes
                .iter()
                .map(|&byte| byte != 0)
                .collect::<Vec<_>>()
                .into(),
            dtype if dtype.is_float() => words
                .map(|&word| f32::from_le_bytes(word))
                .collect::<Vec<_>>()
                .into(),
            _ => words
                .map(|&word| i32::from_le_bytes(word))
                .collect::<Vec<_>>()
                .into(),
        }
    };
    Tensor::new(dtype, &shape, elements)
        .ok_or_else(|| bad_value(format_args!("the bytes are not those of {name} {shape:?}")))
}

fn object<'py>(py: Python<'py>, value: Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Tensor(tensor) => array(py, tensor),
        Value::Dictionary(entries) => {
            let found = PyDict::new(py);
            for (label, probability) in entries.iter() {
                match label {
                    Label::Text(text) => found.set_item(text, probability)?,
                    Label::Int(number) => found.set_item(number, probability)?,
                }
            }
            Ok(found.into_any())
        }
        Value::List(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|item| item.clone().map(|tensor| array(py, tensor)).transpose())
                .collect::<PyResult<_>>()?;
            Ok(PyList::new(py, items)?.into_any())
        }
        Value::Image(image) => {
            let (name, channels, data) = match image.pixels() {
                Pixels::Gray(values) => ("image", 1, PyByteArray::new(py, values)),
                Pixels::Rgb(values) => ("image", 3, PyByteArray::new(py, values)),
                Pixels::GrayF16(values) => {
                    let bytes = bytemuck::cast_slice(values);
                    ("float image", 1, PyByteArray::new(py, bytes))
                }
            };
            let mut shape = vec![image.height(), image.width()];
            shape.extend((channels == 3).then_some(3));
            Ok((name, shape, data).into_pyobject(py)?.into_any())
        }
        _ => Err(bad_value("the output is a state, which no value is")),
    }
}

/// The opposite of [`tensor`]. Floats are handed over as they lie, unless something else needs them: gradients together are as
/// large as the model, and a copy of each would be a second model in memory.
fn array<'py>(py: Python<'py>, tensor: Tensor) -> PyResult<Bound<'py, PyAny>> {
    let (name, shape) = (tensor.dtype().name(), tensor.shape().to_vec());
    let data = match tensor.elements() {
        Elements::Floats(_) => {
            let values = tensor.into_floats().unwrap_or_default();
            PyArray1::from_vec(py, values).into_any()
        }
        Elements::Ints(values) => PyByteArray::new(py, bytemuck::cast_slice(values)).into_any(),
        Elements::Bools(values) => {
            let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value)).collect();
            PyByteArray::new(py, &bytes).into_any()
        }
        Elements::Texts(values) => PyList::new(py, values.iter())?.into_any(),
    };
    Ok((name, shape, data).into_pyobject(py)?.into_any())
}

/// The operations that can be run, and whether each can be differentiated.
#[pyfunction]
pub(crate) fn known_ops() -> Vec<(&'static str, bool)> {
    let known = palettizer::runtime::known_ops().into_iter();
    known.map(|op| (op.name, op.differentiable)).collect()
}
