//! Flags of the commands that run a program: which model, on what, how, within which limits.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use palettizer::Model;
use palettizer::coreml::Model as Program;
use palettizer::runtime::{DEFAULT_MAX_MEMORY, DEFAULT_MAX_STEPS, Precision, RunOptions, Session};
use palettizer::values::Samples;

use crate::failure::Failure;
use crate::figures;
use crate::limits::LimitFlags;

/// How a program runs.
#[derive(Debug, clap::Args)]
pub(crate) struct RunFlags {
    /// The function of a model that has several [default: the model's own]
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    function: Option<String>,
    /// When values that the program calls fp16 are rounded
    #[arg(long, value_name = "P", default_value = "exact", value_parser = precision(), help_heading = "Run")]
    precision: Precision,
    /// Threads; 0 for one on each core. The result does not depend on it [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024), help_heading = "Run")]
    pub(crate) threads: Option<u16>,
    /// Give up after so many operations: a loop may never end
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_STEPS, help_heading = "Limits")]
    max_steps: u64,
    /// Give up before values take more bytes
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_MEMORY, help_heading = "Limits")]
    max_memory: u64,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
}

fn precision() -> impl TypedValueParser<Value = Precision> {
    let exact = PossibleValue::new("exact").help("After every operation");
    let fast = PossibleValue::new("fast").help("At casts and outputs alone");
    PossibleValuesParser::new([exact, fast]).map(|text| match text.as_str() {
        "fast" => Precision::Fast,
        _ => Precision::Exact,
    })
}

impl RunFlags {
    pub(crate) fn function(&self) -> Option<&str> {
        self.function.as_deref()
    }

    pub(crate) fn options(&self) -> RunOptions<'static> {
        RunOptions {
            precision: self.precision,
            max_steps: self.max_steps,
            max_memory: self.max_memory,
            stop: None,
        }
    }

    /// A model that has a program.
    pub(crate) fn open(&self, path: &Path) -> Result<Program, Failure> {
        match Model::open_with(path, self.limits.into())? {
            Model::CoreMl(model) => Ok(*model),
            Model::CoreAi(_) => Err(Failure::Usage(format!(
                "{} is a Core AI program, which Apple's wheel runs: only Core ML models are run here",
                path.display()
            ))),
            Model::Checkpoint(_) => Err(Failure::Usage(format!(
                "{} is a checkpoint: it has tensors and no program that could be run",
                path.display()
            ))),
        }
    }
}

/// What a program runs on.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct InputFlags {
    /// The inputs: an .npz or .safetensors file with an array for each, by its name, an .npy file or a picture for the only one, or a
    /// folder of such files
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Option<PathBuf>,
    /// Run on N random inputs of the shapes that the model takes [default of N: 1]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) random: Option<u32>,
}

impl InputFlags {
    pub(crate) fn given(&self) -> bool {
        self.inputs.is_some() || self.random.is_some()
    }

    /// The samples, or so many random ones if nothing is said.
    pub(crate) fn samples(
        &self,
        session: &Session,
        flags: &RunFlags,
        seed: u64,
        unless_said: u32,
    ) -> Result<Samples, Failure> {
        let function = flags.function();
        Ok(match &self.inputs {
            Some(path) => {
                Samples::open_with(path, session.interface(function)?, flags.limits.into())?
            }
            None => {
                let count = self.random.unwrap_or(unless_said);
                Samples::random(session, function, seed, count as usize)?
            }
        })
    }

    /// What the samples are: `8 random inputs`.
    pub(crate) fn described(&self, samples: &Samples) -> String {
        match &self.inputs {
            Some(path) => format!(
                "{} of {}",
                figures::count(samples.len(), "sample"),
                path.display()
            ),
            None => figures::count(samples.len(), "random input"),
        }
    }
}
