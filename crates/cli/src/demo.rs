//! `palettizer demo`: the built-in model at every number of bits.

use std::path::{Path, PathBuf};

use palettizer::coreml::Model;
use palettizer::{
    Mode, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, Report, SaveOptions,
};

use crate::demo_model::demo_model;
use crate::failure::Failure;
use crate::figures;
use crate::output::{STRONG, Stream, Voice};
use crate::table::{Column, Table};
use crate::width;

/// Palettize a small built-in model at 8, 6, 4, 3, 2 and 1 bits
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer demo
  palettizer demo --save digits

The model reads handwritten digits; it was trained on scikit-learn's 8×8 images.")]
pub(crate) struct Args {
    /// Write the model and its palettized forms into this folder
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Replace what --save wrote before
    #[arg(long, requires = "save")]
    force: bool,
}

/// The widest bar, in characters.
const BAR: usize = 24;

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    let model = demo_model()?;
    let options = SaveOptions::overwriting(args.force);
    if let Some(folder) = &args.save {
        std::fs::create_dir_all(folder).map_err(|error| Failure::about(folder.display(), error))?;
        model.save(folder.join("digits.mlpackage"), options)?;
    }
    let mut table = Table::new(vec![
        Column::number("bits"),
        Column::number("bytes"),
        Column::number("ratio"),
        Column::number("bits/weight").leaves(2),
        Column::number("mse").leaves(3),
        Column::number("SNR dB"),
        Column::number("time").leaves(1),
        Column::text("size").leaves(4),
    ]);
    for nbits in Nbits::ALL.into_iter().rev() {
        let (small, report) = palettized(&model, nbits)?;
        if table.is_empty() {
            table.row(original(&report));
        }
        table.row(row(nbits, &report));
        if let Some(folder) = &args.save {
            small.save(package(folder, nbits), options)?;
        }
    }
    let saved = match &args.save {
        Some(folder) => format!("The packages are in {}.\n", folder.display()),
        None => "To keep these packages:\n  palettizer demo --save digits\n".to_owned(),
    };
    let columns = Stream::Out.width();
    let (input, output) = ("compress Model.mlpackage", "-o Small.mlpackage --nbits 4");
    let own = width::command(&["  palettizer", input, output], columns);
    voice.say(
        Stream::Out,
        &format!(
            "{}\n\n{}\n{saved}For a model of your own:\n{STRONG}{own}{STRONG:#}\n",
            width::wrap(
                "A network that reads handwritten digits, its weights clustered:",
                columns,
                ""
            ),
            table.render(columns),
        ),
    )
}

fn palettized(model: &Model, nbits: Nbits) -> Result<(Model, Report), Failure> {
    let spec = PaletteSpec::new(Mode::Kmeans(nbits));
    let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    Ok(model.palettize(&config, &())?)
}

fn package(folder: &Path, nbits: Nbits) -> PathBuf {
    folder.join(format!("digits-{nbits}-bit.mlpackage"))
}

/// The line of the model as it is.
fn original(report: &Report) -> Vec<String> {
    let mut cells = vec!["as it is".to_owned(), figures::grouped(report.bytes_before)];
    cells.extend(["1.00×", "-", "-", "-", "-"].map(str::to_owned));
    cells.push(bar(1.0));
    cells
}

fn row(nbits: Nbits, report: &Report) -> Vec<String> {
    let (mse, snr_db) = error(report);
    vec![
        nbits.to_string(),
        figures::grouped(report.bytes_after),
        figures::ratio(report.bytes_before, report.bytes_after),
        format!("{:.2}", report.bits_per_weight),
        format!("{mse:.2e}"),
        figures::decibels(snr_db, Some(mse)),
        figures::seconds(report.seconds),
        bar(report.bytes_after as f64 / report.bytes_before.max(1) as f64),
    ]
}

/// The mean squared error of all palettized weights together, and their signal-to-noise ratio.
fn error(report: &Report) -> (f64, Option<f64>) {
    let (mut noise, mut signal, mut elements) = (0.0, 0.0, 0.0);
    for weight in &report.weights {
        let Some(figures) = weight.figures() else {
            continue;
        };
        let mse = figures.mse;
        let count = weight.elements() as f64;
        elements += count;
        noise += mse * count;
        if let Some(snr_db) = figures.snr_db {
            signal += mse * count * 10_f64.powf(snr_db / 10.0);
        }
    }
    if elements == 0.0 {
        return (0.0, None);
    }
    let snr_db = (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10());
    (noise / elements, snr_db)
}

/// A share of the widest bar, to an eighth of a character.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * BAR as f64 * 8.0).round() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(part.get(eighths % 8).copied().unwrap_or_default());
    bar
}
