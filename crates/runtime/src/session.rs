//! A model made ready to run.

use crate::error::Error;
use crate::execute::Execution;
use crate::options::{Observer, RunOptions};
use crate::plan::{Function, Input, plan};
use crate::tensor::{Dtype, Elements, Tensor};
use crate::value::Value;
use palettizer_coreml::Model;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The function that runs when none is named.
const MAIN: &str = "main";

/// Values by name.
pub type Named = BTreeMap<String, Value>;

/// A model made ready to run.
///
/// ```no_run
/// use palettizer_runtime::{Dtype, Session, Tensor};
///
/// let model = palettizer_coreml::Model::open("Model.mlpackage")?;
/// let session = Session::new(&model)?;
/// let x = Tensor::new(Dtype::F32, &[1, 4], vec![1.0, 2.0, 3.0, 4.0]).expect("4 elements");
/// let outputs = session.run([("x".to_owned(), x.into())].into())?;
/// for (name, value) in outputs {
///     println!("{name}: {value:?}");
/// }
/// # Ok::<(), palettizer_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Session {
    model: Model,
    functions: BTreeMap<String, Function>,
    main: String,
    keep_constants: bool,
}

/// What the states of a function hold between runs. A new one holds zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    tensors: BTreeMap<String, Tensor>,
}

impl State {
    /// What a state holds.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The names and what they hold.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter()
    }

    pub(crate) fn put(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }
}

impl Session {
    /// Makes every function of an ML Program ready.
    ///
    /// # Errors
    /// [`Error::UnknownOps`] with all operations that are not known, [`Error::Program`] if it is damaged.
    pub fn new(model: &Model) -> Result<Self, Error> {
        let spec = model.spec();
        let program = spec.ml_program.as_ref().ok_or_else(|| Error::Stage {
            stage: 0,
            kind: "model other than an ML Program".to_owned(),
        })?;
        let mut functions = BTreeMap::new();
        for (name, function) in &program.functions {
            functions.insert(name.clone(), plan(model, name, function)?);
        }
        let chosen = model.interface()?.default_function;
        let main = if chosen.is_empty() {
            MAIN.to_owned()
        } else {
            chosen
        };
        Ok(Session {
            model: model.clone(),
            functions,
            main,
            keep_constants: false,
        })
    }

    /// Keeps constants in memory once they were read or expanded: later runs are faster, and take the memory of the float model.
    pub fn keep_constants(mut self, keep: bool) -> Self {
        self.keep_constants = keep;
        self
    }

    /// Runs the main function.
    ///
    /// # Errors
    /// [`Error::Input`] if inputs are missing or do not fit, [`Error::Op`] if an operation cannot do what it is asked to.
    pub fn run(&self, inputs: Named) -> Result<Named, Error> {
        let mut state = self.state(None)?;
        self.run_with(None, inputs, &mut state, RunOptions::default(), None)
    }

    /// Runs a function of this name.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Error::NoFunction`].
    pub fn run_named(&self, function: &str, inputs: Named) -> Result<Named, Error> {
        let mut state = self.state(Some(function))?;
        self.run_with(
            Some(function),
            inputs,
            &mut state,
            RunOptions::default(),
            None,
        )
    }

    /// Runs a function, the main one if none is named: on a state that stays, within limits, observed.
    ///
    /// # Errors
    /// As [`run_named`](Self::run_named), [`Error::MaxSteps`], [`Error::MaxMemory`], [`Error::Stopped`].
    pub fn run_with<'a>(
        &'a self,
        function: Option<&str>,
        inputs: Named,
        state: &'a mut State,
        options: RunOptions<'a>,
        observer: Option<&'a mut dyn Observer>,
    ) -> Result<Named, Error> {
        let function = self.function(function)?;
        let values = self.given(function, inputs)?;
        let mut run = Execution::new(&self.model, function, options, state);
        run.keep_constants = self.keep_constants;
        run.observer = observer;
        let outputs = run.run(values)?;
        let names = function.outputs.iter().map(|(name, _)| name.clone());
        Ok(names.zip(outputs).collect())
    }

    /// The values of a function's inputs, in its order.
    pub(crate) fn given(
        &self,
        function: &Function,
        mut inputs: Named,
    ) -> Result<Vec<Value>, Error> {
        let mut values = Vec::new();
        for input in &function.inputs {
            values.push(given(input, &mut inputs)?);
        }
        if let Some(name) = inputs.keys().next() {
            let known: Vec<&str> = function
                .inputs
                .iter()
                .filter(|input| !input.state)
                .map(|input| input.name.as_str())
                .collect();
            return Err(Error::Input {
                name: name.clone(),
                what: format!("is not one of the model's: {}", known.join(", ")),
            });
        }
        Ok(values)
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// States of a function, the main one if none is named, that hold zeros.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn state(&self, function: Option<&str>) -> Result<State, Error> {
        let function = self.function(function)?;
        let mut state = State::default();
        for input in function.inputs.iter().filter(|input| input.state) {
            let shape = input
                .declared
                .shape
                .iter()
                .flatten()
                .copied()
                .collect::<Option<Vec<usize>>>();
            let elements = shape.as_deref().and_then(crate::tensor::element_count);
            let (Some(shape), Some(elements)) = (shape, elements) else {
                return Err(Error::Program {
                    function: function.name.clone(),
                    what: format!("the state \"{}\" has no known shape", input.name),
                });
            };
            let dtype = input.declared.dtype.unwrap_or(Dtype::F16);
            let zeros: Elements = match dtype {
                Dtype::Bool => vec![false; elements].into(),
                dtype if dtype.is_float() => vec![0.0f32; elements].into(),
                _ => vec![0i32; elements].into(),
            };
            if let Some(zeros) = Tensor::new(dtype, &shape, zeros) {
                state.put(&input.name, zeros);
            }
        }
        Ok(state)
    }

    /// The names of the functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// The names of a function's outputs, of the main one if none is named, in its order.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn output_names(
        &self,
        function: Option<&str>,
    ) -> Result<impl Iterator<Item = &str>, Error> {
        let function = self.function(function)?;
        Ok(function.outputs.iter().map(|(name, _)| name.as_str()))
    }

    pub(crate) fn function(&self, name: Option<&str>) -> Result<&Function, Error> {
        let name = name.unwrap_or(&self.main);
        self.functions.get(name).ok_or_else(|| Error::NoFunction {
            name: name.to_owned(),
            known: self.functions.keys().cloned().collect(),
        })
    }
}

/// The value that was given for an input, as the program declares it.
fn given(input: &Input, inputs: &mut Named) -> Result<Value, Error> {
    let bad = |what: String| Error::Input {
        name: input.name.clone(),
        what,
    };
    if input.state {
        return Ok(Value::State(Arc::from(input.name.as_str())));
    }
    let value = inputs
        .remove(&input.name)
        .ok_or_else(|| bad("is missing".to_owned()))?;
    let Value::Tensor(tensor) = value else {
        return Ok(value);
    };
    if !input.declared.allows(tensor.shape()) {
        let (found, expected) = (tensor.shape(), input.declared.shape_text());
        return Err(bad(format!(
            "has the shape {found:?}; the model expects {expected}"
        )));
    }
    let dtype = input.declared.dtype.unwrap_or(tensor.dtype());
    let found = tensor.dtype();
    converted(tensor, dtype).map(Value::Tensor).ok_or_else(|| {
        bad(format!(
            "is of {}; the model expects {}",
            found.name(),
            dtype.name()
        ))
    })
}

/// A tensor in the type that a program declares: numbers of one kind become those of another if nothing is lost.
fn converted(tensor: Tensor, dtype: Dtype) -> Option<Tensor> {
    if tensor.dtype() == dtype {
        return Some(tensor);
    }
    let shape = tensor.shape().to_vec();
    if dtype.is_float() {
        let floats = match tensor.elements() {
            Elements::Floats(_) => return Some(tensor.with_float_type(dtype, true)),
            Elements::Ints(values) => values.iter().map(|&value| value as f32).collect::<Vec<_>>(),
            Elements::Bools(values) => values
                .iter()
                .map(|&value| f32::from(u8::from(value)))
                .collect(),
            Elements::Texts(_) => return None,
        };
        return Some(Tensor::new(dtype, &shape, floats)?.with_float_type(dtype, true));
    }
    let (least, largest) = dtype.int_range();
    let whole = |value: f64| {
        let fits = value.fract() == 0.0 && (least as f64..=largest as f64).contains(&value);
        fits.then_some(value as i32)
    };
    match (tensor.elements(), dtype) {
        (Elements::Ints(values), Dtype::Bool) => Tensor::new(
            dtype,
            &shape,
            values.iter().map(|&value| value != 0).collect::<Vec<_>>(),
        ),
        (Elements::Ints(values), _) if dtype.is_int() => {
            let values = values
                .iter()
                .map(|&value| whole(f64::from(value)))
                .collect::<Option<Vec<_>>>();
            Tensor::new(dtype, &shape, values?)
        }
        (Elements::Floats(values), _) if dtype.is_int() => {
            let values = values
                .iter()
                .map(|&value| whole(f64::from(value)))
                .collect::<Option<Vec<_>>>();
            Tensor::new(dtype, &shape, values?)
        }
        (Elements::Bools(values), _) if dtype.is_int() => Tensor::new(
            dtype,
            &shape,
            values
                .iter()
                .map(|&value| i32::from(value))
                .collect::<Vec<_>>(),
        ),
        _ => None,
    }
}
