//! A model made ready to run.

use crate::call::{Node, Slot};
use crate::constant::Spare;
use crate::error::Error;
use crate::execute::Execution;
use crate::given;
use crate::interface::Interface;
use crate::options::{Observer, RunOptions};
use crate::pipeline::{Pipeline, Stage};
use crate::plan::Function;
use crate::sought::Sought;
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
    pub(crate) spare: Spare,
}

/// Values by name, each with its place on the tape, if a gradient flows through it.
pub(crate) type Slots = BTreeMap<String, Slot>;

/// Values with their places on the tape.
pub(crate) fn together(values: Named, node: impl Fn(&str) -> Option<Node>) -> Slots {
    let values = values.into_iter().map(|(name, value)| {
        let node = node(&name);
        (name, Slot { value, node })
    });
    values.collect()
}

/// Values, and their places on the tape.
pub(crate) fn apart(slots: Slots) -> (Named, BTreeMap<String, Node>) {
    let nodes = slots.iter();
    let nodes = nodes.filter_map(|(name, slot)| Some((name.clone(), slot.node?)));
    let nodes = nodes.collect();
    let values = slots.into_iter().map(|(name, slot)| (name, slot.value));
    (values.collect(), nodes)
}

/// A run through all stages.
pub(crate) struct Run<'a, 's> {
    options: RunOptions<'a>,
    state: &'s mut State,
    observer: Option<&'s mut dyn Observer>,
    /// How many operations were run.
    steps: u64,
    /// What is differentiated by, if gradients are to be taken.
    pub sought: Option<Sought<'a>>,
}

impl<'a, 's> Run<'a, 's> {
    /// A run that has not begun.
    pub(crate) fn new(
        options: RunOptions<'a>,
        state: &'s mut State,
        observer: Option<&'s mut dyn Observer>,
    ) -> Self {
        Run {
            options,
            state,
            observer,
            steps: 0,
            sought: None,
        }
    }

    /// The place on the tape of an input of the model.
    pub(crate) fn input(&self, name: &str) -> Option<Node> {
        self.sought.as_ref()?.input(name)
    }

    /// Pixels are numbers of their own: no gradient comes back from the stage that takes them to the one that gave them.
    fn not_through_images(
        &self,
        values: &Named,
        nodes: &BTreeMap<String, Node>,
    ) -> Result<(), Error> {
        let Some(sought) = &self.sought else {
            return Ok(());
        };
        let mut images = nodes.iter().filter(|(name, node)| {
            matches!(values.get(*name), Some(Value::Image(_))) && !sought.is_input(**node)
        });
        images.next().map_or(Ok(()), |(name, _)| {
            Err(Error::Output {
                name: name.clone(),
                what: "is an image between two stages of the pipeline, which passes no gradient on"
                    .to_owned(),
            })
        })
    }
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
            spare: Spare::default(),
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
        let inputs = together(inputs, |_| None);
        let observer = observer.map(|one| one as &mut dyn Observer);
        let mut run = Run::new(options, state, observer);
        let (outputs, _) = apart(self.run_stage(&self.root, function, inputs, &mut run)?);
        given::as_images(outputs, self.interface(function)?)
    }

    /// Runs a program or a pipeline; gives its outputs as the program does.
    pub(crate) fn run_stage<'a>(
        &'a self,
        stage: &'a Stage,
        function: Option<&str>,
        inputs: Slots,
        run: &mut Run<'a, '_>,
    ) -> Result<Slots, Error> {
        match stage {
            Stage::Program(program) => {
                let function = program.function(function)?;
                self.run_function(function, program.interface(function), inputs, run)
            }
            Stage::Pipeline(pipeline) => {
                pipeline.named(function)?;
                self.run_pipeline(pipeline, inputs, run)
            }
        }
    }

    fn run_function<'a>(
        &'a self,
        function: &'a Function,
        interface: &Interface,
        inputs: Slots,
        run: &mut Run<'a, '_>,
    ) -> Result<Slots, Error> {
        let (values, nodes) = apart(inputs);
        run.not_through_images(&values, &nodes)?;
        let values = given::all(function, interface, values)?;
        let slots = function.inputs.iter().zip(values).map(|(input, value)| {
            let node = nodes.get(&input.name).copied();
            Slot {
                value,
                node: node.or_else(|| run.input(&input.name)),
            }
        });
        let slots: Vec<Slot> = slots.collect();
        let sought = run.sought.as_mut();
        let tape = sought.map(|sought| sought.lend(function, &slots));
        let mut execution = Execution::new(&self.model, function, run.options, run.state);
        execution.steps = run.steps;
        execution.tape = tape;
        execution.keep_constants = self.keep_constants;
        execution.spare = Some(&self.spare);
        execution.observer = run
            .observer
            .as_mut()
            .map(|one| &mut **one as &mut dyn Observer);
        let outputs = execution.run(slots)?;
        run.steps = execution.steps;
        if let (Some(sought), Some(tape)) = (&mut run.sought, execution.tape.take()) {
            sought.give_back(tape);
        }
        let names = function.outputs.iter().map(|(name, _)| name.clone());
        Ok(names.zip(outputs).collect())
    }

    /// States of a function, the main one if none is named, that hold zeros.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn state(&self, function: Option<&str>) -> Result<State, Error> {
        let mut state = State::default();
        let functions = self.root.functions(function)?;
        functions.iter().try_for_each(|one| one.zeros(&mut state))?;
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

    /// The names of a function's constants, of the main one's if none is named; of a pipeline those of all stages.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn constants(&self, function: Option<&str>) -> Result<BTreeSet<&str>, Error> {
        let functions = self.root.functions(function)?.into_iter();
        let constants = functions.flat_map(|function| &function.constants);
        Ok(constants.map(|constant| constant.name.as_str()).collect())
    }
}
