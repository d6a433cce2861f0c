//! What a model consists of: an ML Program with its functions, or a pipeline of such, which run one after the other.
//!
//! A stage of a pipeline takes its inputs, by their names, from those of the pipeline and from the outputs of the stages before it.

use crate::error::Error;
use crate::given;
use crate::interface::Interface;
use crate::options::{Observer, RunOptions};
use crate::plan::{Function, plan};
use crate::session::{Named, Session, State};
use palettizer_coreml::package::{kind_name, stages};
use palettizer_coreml::proto::view::{ModelDescription, description};
use palettizer_coreml::{Model, proto};
use std::collections::BTreeMap;

/// The function that runs when none is named.
pub(crate) const MAIN: &str = "main";

/// A model that can be run.
#[derive(Debug)]
pub(crate) enum Stage {
    Program(Program),
    Pipeline(Pipeline),
}

/// The functions of an ML Program.
#[derive(Debug)]
pub(crate) struct Program {
    pub functions: BTreeMap<String, Function>,
    interfaces: BTreeMap<String, Interface>,
    main: String,
}

/// Models one after the other.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub stages: Vec<Stage>,
    pub interface: Interface,
}

impl Stage {
    /// Makes a model ready, which is stage `at` of a pipeline or the only one.
    pub(crate) fn new(model: &Model, spec: &proto::Model, at: usize) -> Result<Self, Error> {
        let described = description(spec).map_err(|error| Error::Interface {
            name: "description".to_owned(),
            what: error.to_string(),
        })?;
        if let Some(members) = stages(spec) {
            let members = members.iter().enumerate();
            let members = members.map(|(at, spec)| Stage::new(model, spec, at));
            return Ok(Stage::Pipeline(Pipeline {
                stages: members.collect::<Result<_, _>>()?,
                interface: Interface::of_pipeline(&described)?,
            }));
        }
        match &spec.ml_program {
            Some(program) => Program::new(model, program, &described).map(Stage::Program),
            None => Err(Error::Stage {
                stage: at,
                kind: kind_name(spec),
            }),
        }
    }
}

impl Program {
    fn new(
        model: &Model,
        program: &proto::Program,
        described: &ModelDescription,
    ) -> Result<Self, Error> {
        let mut functions = BTreeMap::new();
        let mut interfaces = BTreeMap::new();
        for (name, function) in &program.functions {
            let function = plan(model, name, function)?;
            interfaces.insert(name.clone(), Interface::of(described, &function)?);
            functions.insert(name.clone(), function);
        }
        let main = match described.default_function.as_str() {
            "" => MAIN,
            chosen => chosen,
        };
        Ok(Program {
            functions,
            interfaces,
            main: main.to_owned(),
        })
    }

    /// The function of a name, or the main one.
    pub(crate) fn function(&self, name: Option<&str>) -> Result<&Function, Error> {
        let name = name.unwrap_or(&self.main);
        self.functions.get(name).ok_or_else(|| Error::NoFunction {
            name: name.to_owned(),
            known: self.functions.keys().cloned().collect(),
        })
    }

    /// What users see of one of the functions.
    pub(crate) fn interface(&self, function: &Function) -> &Interface {
        static NOTHING: Interface = Interface {
            inputs: Vec::new(),
            outputs: Vec::new(),
            states: Vec::new(),
            predicted_feature: None,
            predicted_probabilities: None,
        };
        self.interfaces.get(&function.name).unwrap_or(&NOTHING)
    }
}

impl Pipeline {
    /// Passes the name of the one function that there is.
    pub(crate) fn named(&self, function: Option<&str>) -> Result<(), Error> {
        match function {
            None | Some(MAIN) => Ok(()),
            Some(name) => Err(Error::NoFunction {
                name: name.to_owned(),
                known: vec![MAIN.to_owned()],
            }),
        }
    }

    /// The states of all stages.
    pub(crate) fn zeros(&self, state: &mut State) -> Result<(), Error> {
        self.stages.iter().try_for_each(|stage| match stage {
            Stage::Program(program) => program.function(None)?.zeros(state),
            Stage::Pipeline(pipeline) => pipeline.zeros(state),
        })
    }
}

impl Session {
    /// Runs the stages; gives the pipeline's outputs, and how many operations were run.
    pub(crate) fn run_pipeline(
        &self,
        pipeline: &Pipeline,
        inputs: Named,
        state: &mut State,
        options: RunOptions<'_>,
        mut observer: Option<&mut dyn Observer>,
    ) -> Result<(Named, u64), Error> {
        // what stages are given; what they give, as programs do
        let (mut given, mut made) = (
            given::of_pipeline(&pipeline.interface, inputs)?,
            Named::new(),
        );
        let mut steps = 0;
        for stage in &pipeline.stages {
            let options = RunOptions {
                max_steps: options.max_steps.saturating_sub(steps),
                ..options
            };
            let observer = observer
                .as_mut()
                .map(|observer| &mut **observer as &mut dyn Observer);
            let picked = |names: Vec<&str>| -> Named {
                let names = names.into_iter();
                names
                    .filter_map(|name| Some((name.to_owned(), given.get(name)?.clone())))
                    .collect()
            };
            let (outputs, interface, taken) = match stage {
                Stage::Program(program) => {
                    let function = program.function(None)?;
                    let interface = program.interface(function);
                    let inputs = picked(
                        function
                            .inputs
                            .iter()
                            .map(|one| one.name.as_str())
                            .collect(),
                    );
                    let (outputs, taken) =
                        self.run_function(function, interface, inputs, state, options, observer)?;
                    (outputs, interface, taken)
                }
                Stage::Pipeline(inner) => {
                    let names = inner.interface.inputs.iter().map(|one| one.name.as_str());
                    let inputs = picked(names.collect());
                    let (outputs, taken) =
                        self.run_pipeline(inner, inputs, state, options, observer)?;
                    (outputs, &inner.interface, taken)
                }
            };
            steps += taken;
            given.extend(given::as_images(outputs.clone(), interface)?);
            made.extend(outputs);
        }
        let wanted = pipeline.interface.outputs.iter();
        let outputs = wanted.map(|output| {
            match made
                .remove(&output.name)
                .or_else(|| given.remove(&output.name))
            {
                Some(value) => Ok((output.name.clone(), value)),
                None => Err(Error::Output {
                    name: output.name.clone(),
                    what: "is an output of the pipeline, but of none of its stages".to_owned(),
                }),
            }
        });
        Ok((outputs.collect::<Result<_, _>>()?, steps))
    }
}
