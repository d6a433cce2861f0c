//! What a model consists of: an ML Program with its functions, or a pipeline of such, which run one after the other.
//!
//! A stage of a pipeline takes its inputs, by their names, from those of the pipeline and from the outputs of the stages before it.

use crate::error::Error;
use crate::given;
use crate::interface::Interface;
use crate::plan::{Function, plan};
use crate::session::{Run, Session, Slots, apart, together};
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

    /// The functions that a run goes through, in its order.
    pub(crate) fn functions(&self, name: Option<&str>) -> Result<Vec<&Function>, Error> {
        match self {
            Stage::Program(program) => Ok(vec![program.function(name)?]),
            Stage::Pipeline(pipeline) => {
                pipeline.named(name)?;
                let stages = pipeline.stages.iter().map(|stage| stage.functions(None));
                Ok(stages.collect::<Result<Vec<_>, _>>()?.concat())
            }
        }
    }

    /// The names of what it takes, but for states.
    pub(crate) fn input_names(&self, function: Option<&str>) -> Result<Vec<&str>, Error> {
        match self {
            Stage::Program(program) => {
                let inputs = program.function(function)?.inputs.iter();
                let inputs = inputs.filter(|input| !input.state);
                Ok(inputs.map(|input| input.name.as_str()).collect())
            }
            Stage::Pipeline(pipeline) => {
                pipeline.named(function)?;
                let inputs = pipeline.interface.inputs.iter();
                Ok(inputs.map(|input| input.name.as_str()).collect())
            }
        }
    }

    /// What is seen of it as a stage of a pipeline.
    fn interface(&self) -> Result<&Interface, Error> {
        match self {
            Stage::Program(program) => Ok(program.interface(program.function(None)?)),
            Stage::Pipeline(pipeline) => Ok(&pipeline.interface),
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
}

impl Session {
    /// Runs the stages; gives the pipeline's outputs.
    pub(crate) fn run_pipeline<'a>(
        &'a self,
        pipeline: &'a Pipeline,
        inputs: Slots,
        run: &mut Run<'a, '_>,
    ) -> Result<Slots, Error> {
        let (inputs, nodes) = apart(inputs);
        let inputs = given::of_pipeline(&pipeline.interface, inputs)?;
        let place = |name: &str| nodes.get(name).copied().or_else(|| run.input(name));
        // what stages are given; what they give, as programs do
        let (mut given, mut made) = (together(inputs, place), Slots::new());
        for stage in &pipeline.stages {
            let names = stage.input_names(None)?.into_iter();
            let inputs = names.filter_map(|name| Some((name.to_owned(), given.get(name)?.clone())));
            let outputs = self.run_stage(stage, None, inputs.collect(), run)?;
            let (values, nodes) = apart(outputs.clone());
            let values = given::as_images(values, stage.interface()?)?;
            given.extend(together(values, |name| nodes.get(name).copied()));
            made.extend(outputs);
        }
        let wanted = pipeline.interface.outputs.iter();
        let outputs = wanted.map(|output| {
            match made
                .remove(&output.name)
                .or_else(|| given.remove(&output.name))
            {
                Some(slot) => Ok((output.name.clone(), slot)),
                None => Err(Error::Output {
                    name: output.name.clone(),
                    what: "is an output of the pipeline, but of none of its stages".to_owned(),
                }),
            }
        });
        outputs.collect()
    }
}
