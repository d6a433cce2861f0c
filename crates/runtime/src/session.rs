//! A model made ready to run.

use crate::error::Error;
use crate::execute::Execution;
use crate::given;
use crate::interface::Interface;
use crate::options::{Observer, RunOptions};
use crate::pipeline::{Pipeline, Program, Stage};
use crate::plan::Function;
use crate::tensor::Tensor;
use crate::value::Value;
use palettizer_coreml::Model;
use std::collections::{BTreeMap, BTreeSet};

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
    pub(crate) model: Model,
    pub(crate) root: Stage,
    pub(crate) keep_constants: bool,
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

    /// Lets a state hold something else, of the same shape.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such state, or the tensor does not fit it.
    pub fn set(&mut self, name: &str, tensor: Tensor) -> Result<(), Error> {
        let bad = |what: String| Error::Input {
            name: name.to_owned(),
            what,
        };
        let known: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        let held = self.tensors.get(name);
        let held =
            held.ok_or_else(|| bad(format!("is none of the states: {}", known.join(", "))))?;
        if held.shape() != tensor.shape() {
            let (found, expected) = (tensor.shape(), held.shape());
            return Err(bad(format!(
                "has the shape {found:?}; the state has {expected:?}"
            )));
        }
        let (found, dtype) = (tensor.dtype().name(), held.dtype());
        let fitting = given::converted(tensor, dtype);
        let fitting = fitting
            .ok_or_else(|| bad(format!("is of {found}; the state is of {}", dtype.name())))?;
        self.put(name, fitting);
        Ok(())
    }

    pub(crate) fn put(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }
}

impl Session {
    /// Makes every function of an ML Program ready, or every stage of a pipeline of them.
    ///
    /// # Errors
    /// [`Error::UnknownOps`] with all operations that are not known, [`Error::Program`] if it is damaged, [`Error::Stage`] if a
    /// stage of a pipeline is no ML Program.
    pub fn new(model: &Model) -> Result<Self, Error> {
        Ok(Session {
            root: Stage::new(model, model.spec(), 0)?,
            model: model.clone(),
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
    /// Inputs that are images may be [`Value::Image`], or tensors of floats as the program has them; what may be left out has its
    /// default. Outputs that are images come as such.
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
    pub fn run_with(
        &self,
        function: Option<&str>,
        inputs: Named,
        state: &mut State,
        options: RunOptions<'_>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<Named, Error> {
        match &self.root {
            Stage::Program(program) => {
                let function = program.function(function)?;
                let interface = program.interface(function);
                let (outputs, _) =
                    self.run_function(function, interface, inputs, state, options, observer)?;
                given::as_images(outputs, interface)
            }
            Stage::Pipeline(pipeline) => {
                pipeline.named(function)?;
                let (outputs, _) = self.run_pipeline(pipeline, inputs, state, options, observer)?;
                given::as_images(outputs, &pipeline.interface)
            }
        }
    }

    /// Runs a function; gives its outputs as the program does, and how many operations were run.
    pub(crate) fn run_function(
        &self,
        function: &Function,
        interface: &Interface,
        inputs: Named,
        state: &mut State,
        options: RunOptions<'_>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(Named, u64), Error> {
        let values = given::all(function, interface, inputs)?;
        let mut run = Execution::new(&self.model, function, options, state);
        run.keep_constants = self.keep_constants;
        run.observer = observer.map(|one| one as &mut dyn Observer);
        let outputs = run.run(values)?;
        let names = function.outputs.iter().map(|(name, _)| name.clone());
        Ok((names.zip(outputs).collect(), run.steps()))
    }

    /// States of a function, the main one if none is named, that hold zeros.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn state(&self, function: Option<&str>) -> Result<State, Error> {
        let mut state = State::default();
        match &self.root {
            Stage::Program(program) => program.function(function)?.zeros(&mut state)?,
            Stage::Pipeline(pipeline) => {
                pipeline.named(function)?;
                pipeline.zeros(&mut state)?;
            }
        }
        Ok(state)
    }

    /// The names of the functions. A pipeline has one, which is called main.
    pub fn functions(&self) -> Vec<&str> {
        match &self.root {
            Stage::Program(program) => program.functions.keys().map(String::as_str).collect(),
            Stage::Pipeline(_) => vec![crate::pipeline::MAIN],
        }
    }

    /// What users see of a function, the main one if none is named.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn interface(&self, function: Option<&str>) -> Result<&Interface, Error> {
        match &self.root {
            Stage::Program(program) => Ok(program.interface(program.function(function)?)),
            Stage::Pipeline(pipeline) => {
                pipeline.named(function)?;
                Ok(&pipeline.interface)
            }
        }
    }

    /// The names of a function's outputs, of the main one if none is named, in its order.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn output_names(&self, function: Option<&str>) -> Result<Vec<&str>, Error> {
        let names: Vec<&str> = match &self.root {
            Stage::Program(program) => {
                let outputs = program.function(function)?.outputs.iter();
                outputs.map(|(name, _)| name.as_str()).collect()
            }
            Stage::Pipeline(Pipeline { interface, .. }) => {
                let outputs = interface.outputs.iter();
                outputs.map(|output| output.name.as_str()).collect()
            }
        };
        Ok(names)
    }

    /// The names of a function's constants, of the main one's if none is named.
    ///
    /// # Errors
    /// [`Error::NoFunction`]; [`Error::Pipeline`] of a pipeline.
    pub fn constants(&self, function: Option<&str>) -> Result<BTreeSet<&str>, Error> {
        let constants = self.program()?.function(function)?.constants.iter();
        Ok(constants.map(|constant| constant.name.as_str()).collect())
    }

    /// The only program that there is.
    pub(crate) fn program(&self) -> Result<&Program, Error> {
        match &self.root {
            Stage::Program(program) => Ok(program),
            Stage::Pipeline(_) => Err(Error::Pipeline),
        }
    }
}
