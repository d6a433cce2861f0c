//! `palettizer inspect`: the weights of a model, what uses them, and how they are compressed already.

use std::path::PathBuf;

use palettizer::{Compression, Consumer, DEFAULT_WEIGHT_THRESHOLD, Model, WeightInfo};
use serde::Serialize;

use crate::failure::{Failure, print};
use crate::figures;
use crate::output::{STRONG, Stream};
use crate::table::{Align, Table};

/// List the weights of a model
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer inspect Model.mlpackage
  palettizer inspect Model.mlpackage --weight-threshold 0 --json")]
pub(crate) struct Args {
    /// The model: an .mlpackage folder or an .mlmodel file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// List only weights with more elements
    #[arg(long, value_name = "N", default_value_t = DEFAULT_WEIGHT_THRESHOLD)]
    weight_threshold: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing<'a> {
    version: u32,
    weights: &'a [WeightInfo],
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let model = Model::open(&args.input)?;
    let weights = model.weights(args.weight_threshold)?;
    if args.json {
        let listing = Listing {
            version: 1,
            weights: &weights,
        };
        let text = serde_json::to_string_pretty(&listing)
            .map_err(|error| Failure::about("the weights", error))?;
        return print(&format!("{text}\n"));
    }
    let elements: u64 = weights.iter().map(|weight| weight.elements).sum();
    let bytes: u64 = weights.iter().map(|weight| weight.bytes).sum();
    print(&format!(
        "{}\n{STRONG}{}{STRONG:#} of more than {} elements: {} elements in {} bytes ({})\n",
        table(&weights).render(Stream::Out.width()),
        figures::count(weights.len(), "weight"),
        figures::grouped(args.weight_threshold as u64),
        figures::grouped(elements),
        figures::grouped(bytes),
        figures::bytes(bytes),
    ))
}

fn table(weights: &[WeightInfo]) -> Table {
    let mut table = Table::new(vec![
        ("weight", Align::Left { least: 16 }),
        ("shape", Align::Right),
        ("dtype", Align::Right),
        ("bytes", Align::Right),
        ("zeros", Align::Right),
        ("distinct", Align::Right),
        ("consumers", Align::Left { least: 16 }),
        ("compression", Align::Left { least: 12 }),
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
    match &compression.stored_dtype {
        Some(dtype) => format!("{dtype}: {}", ops.join(" + ")),
        None => ops.join(" + "),
    }
}
