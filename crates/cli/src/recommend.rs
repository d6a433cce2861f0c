//! `palettizer recommend`: a model at a dozen sizes, what each would lose, and what to type for it.

use std::path::{Path, PathBuf};

use palettizer::budget::{
    Budget, CALIBRATION_SAMPLES, Choices, Goal, RECOMMENDATIONS, RecommendOptions, Recommendation,
    recommend,
};
use palettizer::runtime::Session;
use palettizer::values::Samples;
use palettizer::{
    MissingSensitivity, Model, OpOptions, OptimizationConfig, Target, config_file, sensitivities,
};
use serde::Serialize;

use crate::compress::{on_threads, target};
use crate::failure::Failure;
use crate::figures;
use crate::limits::LimitFlags;
use crate::output::{Stream, Voice};
use crate::page::Page;
use crate::paths;
use crate::progress::Bar;
use crate::report_file::ReportFile;
use crate::table::{Column, Table};
use crate::width::wrap;

/// The version of the report's layout.
const VERSION: u32 = 1;

/// Show what a model would lose at a dozen sizes, and what to type for each
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer recommend Model.mlpackage
  palettizer recommend Model.mlpackage --inputs calibration.npz --report sizes.html
  palettizer recommend checkpoint/ --choices nbits=2/3/4/6,group-size=none/16 --curves curves.json

Nothing is written but reports. Without --inputs the SNR is that of the weights, by their share of the work: good for a choice
between sizes, and no measure of what the model can still do. With --inputs it is that of the outputs, expected and measured.")]
pub(crate) struct Args {
    /// The model: an .mlpackage, .mlmodel or .safetensors file, or a folder of shards with its index
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Measure on the inputs in FILE what each weight's error does to the outputs
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Use no more than the first N of them [default: 16]
    #[arg(long, value_name = "N", requires = "inputs", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// What there is to choose from, as with `palettizer compress`
    #[arg(long, value_name = "LIST")]
    choices: Option<Choices>,
    /// How many sizes
    #[arg(long, value_name = "N", default_value_t = RECOMMENDATIONS as u16, value_parser = clap::value_parser!(u16).range(2..=100))]
    sizes: u16,
    /// Keep what each form of each weight costs in FILE, and take from it what is known
    #[arg(long, value_name = "FILE")]
    curves: Option<PathBuf>,
    /// A configuration in coremltools' layout: weights that it names keep what it says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much each element matters: a .safetensors file with a tensor for each weight, by its name
    #[arg(long, value_name = "FILE")]
    sensitivity: Option<PathBuf>,
    /// The opset that the new model would have
    #[arg(long, value_name = "T", ignore_case = true, value_parser = target())]
    minimum_deployment_target: Option<Target>,
    /// Threads; 0 for one on each core [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: Option<u16>,
    /// Write the table: FILE.html is a page to look at, other names are JSON, - is JSON on stdout
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace the file of --report whatever it is
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    limits: LimitFlags,
}

/// The table as JSON.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    bytes_before: u64,
    command: &'a str,
    recommendations: &'a [Recommendation],
}

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    let inputs = [
        (Some(args.model.as_path()), "MODEL"),
        (args.inputs.as_deref(), "--inputs"),
        (args.config.as_deref(), "--config"),
        (args.sensitivity.as_deref(), "--sensitivity"),
        (args.curves.as_deref(), "--curves"),
    ];
    if let Some(report) = args
        .report
        .as_deref()
        .filter(|path| *path != Path::new("-"))
    {
        paths::apart(report, "--report", &inputs)?;
    }
    if let Some(curves) = &args.curves {
        paths::apart(curves, "--curves", &inputs[..4])?;
    }
    let model = Model::open_with(&args.model, args.limits.into())?;
    let samples = samples(args, &model)?;
    let config = configuration(args)?;
    let report_file = ReportFile::prepare_of(args.report.as_deref(), args.force, |_| false)?;
    let rows = on_threads(args.threads, || {
        let progress = Bar::new(voice);
        let options = RecommendOptions {
            samples: samples.as_ref(),
            curves: args.curves.as_deref(),
            sizes: usize::from(args.sizes),
        };
        recommend(&model, &config, options, &progress)
    })??;
    let stream = match report_file.is_stdout() {
        true => Stream::Err,
        false => Stream::Out,
    };
    let command = command(args);
    let written = Written {
        version: VERSION,
        bytes_before: model.stored_len(),
        command: &command,
        recommendations: &rows,
    };
    report_file.write(&written, || {
        let name = args.model.file_name().unwrap_or(args.model.as_os_str());
        Ok(Page {
            title: name.to_string_lossy().into_owned(),
            subtitle: format!(
                "{} at {}",
                figures::bytes(model.stored_len()),
                figures::count(rows.len(), "size")
            ),
            command: Some(&command),
            recommendations: &rows,
            ..Page::default()
        })
    })?;
    let width = stream.width();
    let hint = wrap(&format!("{command} --target-size BYTES"), width, "    ");
    voice.say(stream, &format!("{}\n{hint}\n", table(&rows).render(width)))
}

/// The rows, as a table.
fn table(rows: &[Recommendation]) -> Table {
    let measured = rows.iter().any(|row| row.measured_snr_db.is_some());
    let mut columns = vec![
        Column::number("--target-size"),
        Column::number("smaller").leaves(2),
        Column::number("expected dB"),
    ];
    if measured {
        columns.push(Column::number("measured dB"));
    }
    columns.push(Column::text("bits: weights").leaves(1));
    let mut table = Table::new(columns);
    for row in rows {
        let decibels = |snr: Option<f64>| figures::decibels(snr, None);
        let mut cells = vec![
            row.target_size.to_string(),
            format!("{:.2}×", row.ratio),
            decibels(row.expected_snr_db),
        ];
        if measured {
            cells.push(decibels(row.measured_snr_db));
        }
        let mut bits: Vec<(&String, &usize)> = row.bits.iter().collect();
        bits.sort_by_key(|(bits, _)| bits.parse().unwrap_or(u32::MAX));
        let bits = bits
            .iter()
            .map(|(bits, weights)| format!("{bits}: {weights}"));
        cells.push(bits.collect::<Vec<_>>().join(", "));
        table.row(cells);
    }
    table
}

/// What to type for a row, but for the size.
fn command(args: &Args) -> String {
    let quoted = |path: &Path| {
        let text = path.display().to_string();
        match text
            .chars()
            .all(|c| c.is_alphanumeric() || "/._-+~".contains(c))
        {
            true => text,
            false => format!("'{}'", text.replace('\'', r"'\''")),
        }
    };
    let extension = args.model.extension().map(|end| end.to_string_lossy());
    let out = match extension.as_deref() {
        Some("safetensors") => "small.safetensors",
        Some("mlpackage" | "mlmodel") => "Small.mlpackage",
        Some("aimodel") => "Small.aimodel",
        _ => "small/",
    };
    let mut text = format!("palettizer compress {} -o {out}", quoted(&args.model));
    let paths = [
        ("--config", &args.config),
        ("--sensitivity", &args.sensitivity),
        ("--inputs", &args.inputs),
        ("--curves", &args.curves),
    ];
    for (flag, path) in paths {
        if let Some(path) = path {
            text += &format!(" {flag} {}", quoted(path));
        }
    }
    if let Some(samples) = args.samples {
        text += &format!(" --samples {samples}");
    }
    if let Some(choices) = &args.choices {
        text += &format!(" --choices {choices}");
    }
    if let Some(target) = args.minimum_deployment_target {
        text += &format!(" --minimum-deployment-target {target}");
    }
    text
}

fn samples(args: &Args, model: &Model) -> Result<Option<Samples>, Failure> {
    let Some(path) = &args.inputs else {
        return Ok(None);
    };
    let Model::CoreMl(model) = model else {
        return Err(Failure::Usage(
            "--inputs is for Core ML models: no others are run here".to_owned(),
        ));
    };
    let session = Session::new(model)?;
    let samples = Samples::open_with(path, session.interface(None)?, args.limits.into())?;
    let most = args
        .samples
        .map_or(CALIBRATION_SAMPLES, |most| most as usize);
    Ok(Some(samples.first(most)))
}

fn configuration(args: &Args) -> Result<OptimizationConfig, Failure> {
    let config = match &args.config {
        Some(path) => config_file::from_path(path, &OpOptions::default())
            .map_err(|error| Failure::Work(error.to_string()))?,
        None => OptimizationConfig::new(),
    };
    let config = match &args.sensitivity {
        Some(path) => config.with_sensitivity(sensitivities(path, MissingSensitivity::Error)?),
        None => config,
    };
    let mut budget = match config.budget() {
        Some(budget) => budget.clone(),
        None => Budget::new(Goal::Size(1)),
    };
    if let Some(choices) = &args.choices {
        budget = budget.with_choices(choices.clone());
    }
    Ok(config
        .with_budget(budget)
        .with_minimum_deployment_target(args.minimum_deployment_target))
}
