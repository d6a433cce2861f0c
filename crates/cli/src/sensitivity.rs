//! `palettizer sensitivity`: how much each element of a model's weights matters, from the model itself.

use std::path::{Path, PathBuf};

use palettizer::runtime::Session;
use palettizer::{
    DEFAULT_WEIGHT_THRESHOLD, SaveOptions, SensitivityLoss, SensitivityOptions,
    probe_sensitivities, values,
};

use crate::compress::on_threads;
use crate::failure::Failure;
use crate::figures;
use crate::output::{Stream, Voice};
use crate::paths;
use crate::program::{InputFlags, RunFlags};
use crate::progress::Bar;
use crate::width::{paragraph, wrap};

/// Find how much each element of a model's weights matters, without PyTorch and without labels
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer sensitivity Model.mlpackage --inputs calibration.npz -o s.safetensors
  palettizer compress Model.mlpackage -o Small.mlpackage --nbits 3 --sensitivity s.safetensors

  palettizer sensitivity Classifier.mlpackage --inputs photos/ --loss nll -o s.safetensors

probe: how far all outputs move, by random projections of them. nll: how far the distribution of a classifier moves, by labels
drawn from it, or by those of --labels.")]
pub(crate) struct Args {
    /// The model: an .mlpackage or .mlmodel file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    inputs: InputFlags,
    /// Where the sensitivities go: a .safetensors file with a tensor for each weight, by its name
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// What is to stay as it is
    #[arg(long, value_name = "WHAT", default_value = "probe", value_parser = ["probe", "nll"])]
    loss: String,
    /// True labels for --loss nll: an .npy file of integers, or a text file with one on each line, in the order of the samples
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The output that --loss nll is of [default: the only one with classes]
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Use no more than the first N samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Projections, or draws of labels, for each sample
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    probes: u32,
    /// Where random numbers begin
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Only weights with more elements
    #[arg(long, value_name = "N", default_value_t = DEFAULT_WEIGHT_THRESHOLD)]
    weight_threshold: usize,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    flags: RunFlags,
}

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    if !args.inputs.given() {
        return Err(Failure::Usage(
            "on what? Give --inputs FILE, with inputs as the model will see them".to_owned(),
        ));
    }
    let extension = args.output.extension();
    if extension.is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::Usage(
            "--output must end in .safetensors".to_owned(),
        ));
    }
    let loss = loss(args)?;
    let inputs = [
        (args.inputs.inputs.as_deref(), "--inputs"),
        (args.labels.as_deref(), "--labels"),
        (Some(args.model.as_path()), "MODEL"),
    ];
    paths::apart(&args.output, "--output", &inputs)?;
    let model = args.flags.open(&args.model)?;
    let session = Session::new(&model)?;
    let samples = args.inputs.samples(&session, &args.flags, args.seed, 1)?;
    let samples = match args.samples {
        Some(most) => samples.first(most as usize),
        None => samples,
    };
    drop(session);
    let options = SensitivityOptions {
        function: args.flags.function(),
        loss,
        probes: args.probes as usize,
        seed: args.seed,
        weight_threshold: args.weight_threshold,
        run: args.flags.options(),
    };
    let found = on_threads(args.flags.threads, || {
        let progress = Bar::new(voice);
        probe_sensitivities(&model, &samples, &options, &progress)
    })??;
    if args.inputs.inputs.is_none() {
        voice.warn("random inputs are not what the model will see; give --inputs for sensitivities that are of use");
    }
    found.write(&args.output, SaveOptions::overwriting(args.force))?;
    let dead: Vec<&str> = found
        .iter()
        .filter(|(_, _, values)| values.iter().all(|&value| value == 0.0))
        .map(|(name, _, _)| name)
        .collect();
    let columns = Stream::Out.width();
    if !dead.is_empty() {
        voice.warn(&wrap(
            &format!("nothing that was looked at depends on: {}", dead.join(", ")),
            columns,
            "  ",
        ));
    }
    let count = found.iter().count();
    let rest = format!(
        ": {} on {}",
        figures::count(count, "weight"),
        args.inputs.described(&samples)
    );
    let text = paragraph(&args.output.display().to_string(), &rest, columns);
    voice.say(Stream::Out, &format!("{text}\n"))
}

fn loss(args: &Args) -> Result<SensitivityLoss, Failure> {
    let output = args.of.clone();
    match (args.loss.as_str(), &args.labels) {
        ("nll", None) => Ok(SensitivityLoss::Nll { output }),
        ("nll", Some(path)) => Ok(SensitivityLoss::Labels {
            output,
            labels: labels(path)?,
        }),
        (_, Some(_)) => Err(Failure::Usage("--labels is for --loss nll".to_owned())),
        _ if output.is_some() => Err(Failure::Usage(
            "--of is for --loss nll; probes look at all outputs".to_owned(),
        )),
        _ => Ok(SensitivityLoss::Probe),
    }
}

fn labels(path: &Path) -> Result<Vec<usize>, Failure> {
    Ok(values::labels(path)?)
}
