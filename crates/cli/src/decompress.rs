//! `palettizer decompress`: every compressed constant back to a dense one.

use std::path::{Path, PathBuf};

use palettizer::{Model, SaveOptions};

use crate::elide;
use crate::failure::Failure;
use crate::figures;
use crate::limits::LimitFlags;
use crate::output::{Stream, Voice};
use crate::progress::Bar;
use crate::width::{paragraph, wrap};

/// Turn compressed weights back into dense ones
#[derive(clap::Args)]
#[command(after_help = "Example:
  palettizer decompress Small.mlpackage -o Dense.mlpackage

  palettizer decompress small.safetensors -o dense.safetensors

Palettized, quantized and sparse weights, and combinations of them, become plain constants with
the values that Core ML would compute from them. Of a checkpoint, the weights that palettizer
palettized become plain tensors.")]
pub(crate) struct Args {
    /// The model: an .mlpackage, .mlmodel, .safetensors or .aimodel file, or a folder of shards with its index
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Where the dense model goes: an .mlpackage, or a .safetensors file or a folder like IN
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
    /// Replace OUT if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    limits: LimitFlags,
}

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    let model = Model::open_with(&args.input, args.limits.into())?;
    let before = model.stored_len();
    let options = SaveOptions::overwriting(args.force);
    let progress = Bar::new(voice);
    let done = model.decompress_to(&args.output, options, &progress)?;
    drop(progress);
    let columns = Stream::Out.width();
    let shown = |path: &Path| {
        let path = path.display().to_string();
        columns.map_or(path.clone(), |columns| {
            elide::cut(&path, columns.saturating_sub(3))
        })
    };
    let (input, output) = (shown(&args.input), shown(&args.output));
    if done.weights == 0 {
        let text =
            format!("nothing to do: {input} has no compressed weights; {output} is a copy of it");
        return voice.say(Stream::Out, &(wrap(&text, columns, "  ") + "\n"));
    }
    let after = Model::open_with(&args.output, args.limits.into())?.stored_len();
    let figures = format!(
        ": {} → {} bytes ({} → {})",
        figures::grouped(before),
        figures::grouped(after),
        figures::bytes(before),
        figures::bytes(after),
    );
    let text = paragraph(&output, &figures, columns);
    voice.say(Stream::Out, &format!("{text}\n"))
}
