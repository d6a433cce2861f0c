//! `palettizer inspect`: the weights of a model, what uses them, and how they are compressed already.

use std::path::PathBuf;

use palettizer::coreml::{Compression, Consumer, WeightInfo};
use palettizer::safetensors::TensorInfo;
use palettizer::{DEFAULT_WEIGHT_THRESHOLD, Model, PaletteInfo};
use serde::Serialize;

use crate::failure::Failure;
use crate::figures;
use crate::limits::LimitFlags;
use crate::output::{Stream, Voice, print};
use crate::table::{Column, Table};
use crate::width::paragraph;

/// List the weights of a model, or the tensors of a checkpoint
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer inspect Model.mlpackage
  palettizer inspect Model.mlpackage --weight-threshold 0 --json
  palettizer inspect model.safetensors")]
pub(crate) struct Args {
    /// The model: an .mlpackage, .mlmodel, .safetensors or .aimodel file, or a folder of shards with its index
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// List only weights with more elements
    #[arg(long, value_name = "N", default_value_t = DEFAULT_WEIGHT_THRESHOLD)]
    weight_threshold: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitFlags,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing<'a, T> {
    version: u32,
    weights: &'a [T],
}

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    match Model::open_with(&args.input, args.limits.into())? {
        Model::CoreMl(model) => {
            let weights = model.weights(args.weight_threshold)?;
            let sizes = weights.iter().map(|weight| (weight.elements, weight.bytes));
            show(args, voice, &weights, table(&weights), ("weight", sizes))
        }
        Model::CoreAi(program) => {
            let weights = program.weights(args.weight_threshold)?;
            let sizes = weights.iter().map(|weight| (weight.elements, weight.bytes));
            show(args, voice, &weights, table(&weights), ("weight", sizes))
        }
        Model::Checkpoint(checkpoint) => {
            let tensors = checkpoint.weights(args.weight_threshold)?;
            let sizes = tensors.iter().map(|tensor| (tensor.elements, tensor.bytes));
            show(
                args,
                voice,
                &tensors,
                tensor_table(&tensors),
                ("tensor", sizes),
            )
        }
    }
}

/// Prints the list, and what it comes to: the noun, and elements and bytes of each.
fn show<T: Serialize>(
    args: &Args,
    voice: Voice,
    weights: &[T],
    table: Table,
    (noun, sizes): (&str, impl Iterator<Item = (u64, u64)>),
) -> Result<(), Failure> {
    if args.json {
        let listing = Listing {
            version: 1,
            weights,
        };
        let text = serde_json::to_string_pretty(&listing)
            .map_err(|error| Failure::about("the weights", error))?;
        return print(Stream::Out, &format!("{text}\n"));
    }
    let (elements, bytes) = sizes.fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
    let count = figures::count(weights.len(), noun);
    let rest = format!(
        " of more than {} elements: {} elements in {} bytes ({})",
        figures::grouped(args.weight_threshold as u64),
        figures::grouped(elements),
        figures::grouped(bytes),
        figures::bytes(bytes),
    );
    let columns = Stream::Out.width();
    let total = paragraph(&count, &rest, columns);
    let table = table.render(columns);
    voice.say(Stream::Out, &format!("{table}\n{total}\n"))
}

/// The tensors of a checkpoint; the file of each, if there are several.
fn tensor_table(tensors: &[TensorInfo]) -> Table {
    let files = tensors.windows(2).any(|pair| pair[0].file != pair[1].file);
    let mut columns = vec![Column::name("tensor")];
    if files {
        columns.push(Column::text("file").leaves(4));
    }
    columns.extend([
        Column::number("shape").leaves(5),
        Column::number("dtype").leaves(3),
        Column::number("bytes"),
        Column::number("zeros").leaves(1),
        Column::number("distinct").leaves(2),
        Column::text("palette").leaves(6),
    ]);
    let mut table = Table::new(columns);
    let none = || "-".to_owned();
    for tensor in tensors {
        let mut cells = vec![tensor.name.clone()];
        if files {
            cells.push(tensor.file.clone());
        }
        let percent = |sparsity| format!("{:.1}%", 100.0 * sparsity);
        cells.extend([
            figures::shape(&tensor.shape),
            tensor.dtype.clone(),
            figures::grouped(tensor.bytes),
            tensor.sparsity.map_or_else(none, percent),
            tensor.unique_values.map_or_else(none, figures::grouped),
            tensor.palette.as_ref().map_or_else(none, palette),
        ]);
        table.row(cells);
    }
    table
}

/// Bits, tables and what else there is: `4 bits for 2, 16 LUTs of int8 for groups of 8, scaled`.
fn palette(palette: &PaletteInfo) -> String {
    let luts = match palette.luts {
        1 => "1 LUT".to_owned(),
        luts => format!("{} LUTs", figures::grouped(luts)),
    };
    let vector = match palette.cluster_dim {
        1 => String::new(),
        dim => format!(" for {dim}"),
    };
    let groups = palette.group_size;
    let groups = groups.map(|size| format!(" for groups of {}", figures::grouped(size)));
    format!(
        "{} bit{}{vector}, {luts} of {}{}{}",
        palette.nbits,
        if palette.nbits == 1 { "" } else { "s" },
        palette.lut_dtype,
        groups.unwrap_or_default(),
        if palette.per_channel_scale {
            ", scaled"
        } else {
            ""
        },
    )
}

fn table(weights: &[WeightInfo]) -> Table {
    let mut table = Table::new(vec![
        Column::name("weight"),
        Column::number("shape").leaves(5),
        Column::number("dtype").leaves(3),
        Column::number("bytes"),
        Column::number("zeros").leaves(1),
        Column::number("distinct").leaves(4),
        Column::text("consumers").leaves(2),
        Column::text("compression").leaves(6),
    ]);
    for weight in weights {
        let consumers: Vec<String> = weight
            .consumers
            .iter()
            .map(|user| consumer(user, &weight.name))
            .collect();
        table.row(vec![
            weight.name.clone(),
            figures::shape(&weight.shape),
            weight.dtype.clone(),
            figures::grouped(weight.bytes),
            format!("{:.1}%", 100.0 * weight.sparsity),
            figures::grouped(weight.unique_values),
            consumers.join("; "),
            weight
                .compression
                .as_ref()
                .map_or("-".to_owned(), compression),
        ]);
    }
    table
}

/// The op's name, and its type with the parameters that take the weight: `conv1 (conv.weight)`.
fn consumer(user: &Consumer, weight: &str) -> String {
    let params = user
        .params
        .iter()
        .filter(|(_, constant)| *constant == weight);
    let params: Vec<&str> = params.map(|(param, _)| param.as_str()).collect();
    match params.as_slice() {
        [] => format!("{} ({})", user.name, user.op_type),
        params => format!("{} ({}.{})", user.name, user.op_type, params.join(", ")),
    }
}

/// What is stored, and the ops that make the weight of it.
fn compression(compression: &Compression) -> String {
    let ops: Vec<&str> = compression
        .ops
        .iter()
        .map(|op| op.strip_prefix("constexpr_").unwrap_or(op))
        .collect();
    let ops = ops.join(" + ");
    match (&compression.palette, &compression.stored_dtype) {
        (Some(form), _) => format!("{}: {ops}", palette(form)),
        (None, Some(dtype)) => format!("{dtype}: {ops}"),
        (None, None) => ops,
    }
}
