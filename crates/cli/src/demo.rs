//! `palettizer demo`: the built-in model at every number of bits.

use std::path::{Path, PathBuf};

use palettizer::compare::{CompareOptions, compare};
use palettizer::coreml::Model;
use palettizer::{
    Mode, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, Report, SaveOptions,
};
use serde::Serialize;

use crate::demo_model::demo_model;
use crate::failure::Failure;
use crate::figures;
use crate::held_out;
use crate::output::{STRONG, Stream, Voice};
use crate::page::{self, Page, shapes};
use crate::paths;
use crate::report_file::ReportFile;
use crate::table::{Column, Table};
use crate::width;

/// Palettize a small built-in model at 8, 6, 4, 3, 2 and 1 bits, and see what it still reads
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("files").args(["save", "report"]).multiple(true))]
#[command(after_help = "Examples:
  palettizer demo
  palettizer demo --save digits
  palettizer demo --report demo.html

The model reads handwritten digits; it was trained on scikit-learn's 8×8 images. What it reads right is of the 360 that it was not trained on.
They are by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0.")]
pub(crate) struct Args {
    /// Write the model, its palettized forms, the images and their labels into this folder
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Write what each number of bits costs, and what 4 bits did to each weight and layer, as a page to look at
    #[arg(long, value_name = "FILE.html", value_parser = page_name)]
    report: Option<PathBuf>,
    /// Replace what --save wrote before, and the file of --report whatever it is
    #[arg(long, requires = "files")]
    force: bool,
}

fn page_name(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match page::is_named(&path) {
        true => Ok(path),
        false => Err("it is a page: expected a name that ends in .html".to_owned()),
    }
}

/// The widest bar, in characters.
const BAR: usize = 24;

/// The number of bits that a page shows in detail.
const SHOWN: Nbits = Nbits::B4;

/// The model with weights of so many bits.
#[derive(Serialize)]
pub(crate) struct Width {
    /// Bits, in words.
    name: String,
    /// Bits of an index; `None` for the model as it is.
    nbits: Option<u32>,
    /// Bytes of the program and its weights.
    bytes: u64,
    /// The signal-to-noise ratio of all palettized weights together.
    snr_db: Option<f64>,
    /// How many of the held-out digits it reads right.
    right: usize,
    /// How many there are.
    digits: usize,
}

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    let model = demo_model()?;
    let options = SaveOptions::overwriting(args.force);
    if let Some(folder) = &args.save {
        std::fs::create_dir_all(folder).map_err(|error| Failure::about(folder.display(), error))?;
    }
    let bits = Nbits::ALL.into_iter().map(Some).chain([None]);
    if let (Some(folder), Some(report)) = (&args.save, &args.report) {
        for nbits in bits {
            paths::outside(report, "--report", &package(folder, nbits), "a package")?;
        }
    }
    let report_file = ReportFile::prepare(args.report.as_deref(), args.force)?;
    if let Some(folder) = &args.save {
        model.save(package(folder, None), options)?;
        held_out::save(folder, options)?;
    }
    let mut table = Table::new(vec![
        Column::number("bits"),
        Column::number("bytes"),
        Column::number("ratio"),
        Column::number("bits/weight").leaves(2),
        Column::number("mse").leaves(3),
        Column::number("SNR dB"),
        Column::number("read right"),
        Column::number("time").leaves(1),
        Column::text("size").leaves(4),
    ]);
    let mut widths = Vec::new();
    let mut shown = None;
    for nbits in Nbits::ALL.into_iter().rev() {
        let (small, report) = palettized(&model, nbits)?;
        if widths.is_empty() {
            let dense = Width::of(&model, None, &report)?;
            table.row(original(&dense));
            widths.push(dense);
        }
        let width = Width::of(&small, Some(nbits), &report)?;
        table.row(row(&width, &report));
        widths.push(width);
        if let Some(folder) = &args.save {
            small.save(package(folder, Some(nbits)), options)?;
        }
        if nbits == SHOWN {
            shown = Some((small, report));
        }
    }
    if let (Some(_), Some((small, report))) = (&args.report, shown) {
        let options = CompareOptions {
            layers: true,
            ..CompareOptions::default()
        };
        let found = compare(&model, &small, &held_out::samples(), options, &())?;
        report_file.write(&report, || {
            let (before, after) = (
                palettizer::Model::CoreMl(Box::new(model)),
                palettizer::Model::CoreMl(Box::new(small)),
            );
            Ok(Page {
                title: "Handwritten digits at 8 to 1 bits".to_owned(),
                subtitle: format!("the network of palettizer demo; its weights and layers as {SHOWN} bits leave them"),
                widths,
                report: Some(&report),
                shapes: shapes(&report, &before, &after),
                comparison: Some(&found),
                ..Page::default()
            })
        })?;
    }
    let columns = Stream::Out.width();
    let said = |what: &str| width::wrap(what, columns, "");
    let (input, output) = ("compress Model.mlpackage", "-o Small.mlpackage --nbits 4");
    let own = width::command(&["  palettizer", input, output], columns);
    let tested = format!(
        "Read right: of {} digits that it was not trained on.",
        held_out::count()
    );
    let heading = "A network that reads handwritten digits, its weights clustered:";
    voice.say(
        Stream::Out,
        &format!(
            "{}\n\n{}\n{}\n\n{}For a model of your own:\n{STRONG}{own}{STRONG:#}\n",
            said(heading),
            table.render(columns),
            said(&tested),
            kept(args),
        ),
    )
}

/// Where the files are, or how to get them.
fn kept(args: &Args) -> String {
    let packages = match &args.save {
        Some(folder) => format!("The packages and the digits are in {}.\n", folder.display()),
        None => {
            "To keep these packages and the digits:\n  palettizer demo --save digits\n".to_owned()
        }
    };
    let page = match &args.report {
        Some(path) => format!("The page is {}.\n", path.display()),
        None => {
            "To see what became of each weight and layer:\n  palettizer demo --report demo.html\n"
                .to_owned()
        }
    };
    packages + &page
}

fn palettized(model: &Model, nbits: Nbits) -> Result<(Model, Report), Failure> {
    let spec = PaletteSpec::new(Mode::Kmeans(nbits));
    let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    Ok(model.palettize(&config, &())?)
}

fn package(folder: &Path, nbits: Option<Nbits>) -> PathBuf {
    folder.join(match nbits {
        Some(nbits) => format!("digits-{nbits}-bit.mlpackage"),
        None => "digits.mlpackage".to_owned(),
    })
}

impl Width {
    /// What a model is worth that so many bits made, or none; `report` is that of the palettized one.
    fn of(model: &Model, nbits: Option<Nbits>, report: &Report) -> Result<Self, Failure> {
        Ok(Width {
            name: nbits.map_or("as it is".to_owned(), |nbits| {
                figures::count(nbits.bits() as usize, "bit")
            }),
            nbits: nbits.map(Nbits::bits),
            bytes: match nbits {
                Some(_) => report.bytes_after,
                None => report.bytes_before,
            },
            snr_db: nbits.and_then(|_| error(report).1),
            right: held_out::read_right(model)?,
            digits: held_out::count(),
        })
    }

    fn read_right(&self) -> String {
        format!(
            "{:.1}%",
            100.0 * self.right as f64 / self.digits.max(1) as f64
        )
    }
}

/// The line of the model as it is.
fn original(width: &Width) -> Vec<String> {
    let mut cells = vec![width.name.clone(), figures::grouped(width.bytes)];
    cells.extend(["1.00×", "-", "-", "-"].map(str::to_owned));
    cells.extend([width.read_right(), "-".to_owned(), bar(1.0)]);
    cells
}

fn row(width: &Width, report: &Report) -> Vec<String> {
    let (mse, snr_db) = error(report);
    vec![
        width.nbits.unwrap_or_default().to_string(),
        figures::grouped(report.bytes_after),
        figures::ratio(report.bytes_before, report.bytes_after),
        format!("{:.2}", report.bits_per_weight),
        format!("{mse:.2e}"),
        figures::decibels(snr_db, Some(mse)),
        width.read_right(),
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
