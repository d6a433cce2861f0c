//! `palettizer compare`: two models on the same inputs.

use std::path::{Path, PathBuf};

use palettizer::compare::{CompareOptions, Comparison, Difference, compare};
use palettizer::coreml::Model as Program;
use palettizer::runtime::Session;

use crate::compress::on_threads;
use crate::failure::Failure;
use crate::figures;
use crate::output::{Stream, Voice};
use crate::page::Page;
use crate::paths;
use crate::program::{InputFlags, RunFlags};
use crate::progress::Bar;
use crate::report_file::ReportFile;
use crate::table::{Column, Table};
use crate::width::paragraph;

/// Random inputs, if nothing is said.
const RANDOM: u32 = 8;

/// Layers that a terminal lists; a file lists them all.
const MOST_LAYERS: usize = 20;

/// Run two models on the same inputs, and say how far apart their outputs are
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer compare Model.mlpackage Small.mlpackage
  palettizer compare Model.mlpackage Small.mlpackage --inputs validation.npz --layers
  palettizer compare Model.mlpackage Small.mlpackage --inputs photos/ --min-agreement 0.99 --report comparison.json

SNR is 10 log10 of the outputs' energy over that of their differences: 40 dB are 1% off. Exit code 3 below a minimum.")]
pub(crate) struct Args {
    /// The model as it was: an .mlpackage or .mlmodel file
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The model as it is now
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    #[command(flatten)]
    inputs: InputFlags,
    /// Where random inputs begin
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Compare every value between that both programs have, too, the worst first
    #[arg(long)]
    layers: bool,
    #[command(flatten)]
    least: Minimum,
    /// Write the comparison: as a page (.html), or as JSON; - for stdout. An earlier one is replaced
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    report: Option<PathBuf>,
    /// Replace the file of --report whatever it is
    #[arg(long, help_heading = "Output")]
    force: bool,
    #[command(flatten)]
    flags: RunFlags,
}

/// What a comparison has to reach.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Minimum {
    /// Fail with exit code 3 if an output's SNR is lower
    #[arg(long, value_name = "DB", allow_negative_numbers = true, value_parser = finite, help_heading = "Minimum")]
    pub(crate) min_snr: Option<f64>,
    /// Fail with exit code 3 if an arg-max agrees for a smaller share of rows, 0 to 1
    #[arg(long, value_name = "P", value_parser = share, help_heading = "Minimum")]
    pub(crate) min_agreement: Option<f64>,
}

fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a number of decibels, such as 30".to_owned())
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1, such as 0.99".to_owned())
}

impl Minimum {
    /// Whether the arg-max of outputs is asked for that need not be distributions.
    pub(crate) fn agreement(&self) -> bool {
        self.min_agreement.is_some()
    }

    /// Fails if the comparison does not reach it.
    pub(crate) fn reached(&self, found: &Comparison) -> Result<(), Failure> {
        if let (Some(least), Some(worst)) = (self.min_snr, found.worst())
            && worst.rank() < least
        {
            let name = &worst.name;
            return Err(Failure::Strict(match worst.snr_db {
                Some(snr) if worst.broken == 0 => {
                    format!("output \"{name}\": the SNR is {snr:.2} dB; --min-snr asks for {least}")
                }
                _ => format!(
                    "output \"{name}\" is broken: {}; --min-snr asks for {least}",
                    broken(worst)
                ),
            }));
        }
        match (self.min_agreement, found.agreement()) {
            (Some(least), Some(found)) if found < least => Err(Failure::Strict(format!(
                "the arg-max agrees for {:.2}% of rows; --min-agreement asks for {:.2}%",
                100.0 * found,
                100.0 * least
            ))),
            (Some(_), None) => Err(Failure::Strict(
                "--min-agreement: no output has rows of several numbers, or labels, that could agree".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

fn broken(worst: &Difference) -> String {
    match worst.broken {
        0 => "there is noise and no signal".to_owned(),
        count => format!(
            "{} not the same, and no numbers or of another shape",
            figures::count(count as usize, "element")
        ),
    }
}

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    if let Some(report) = args
        .report
        .as_deref()
        .filter(|path| *path != Path::new("-"))
    {
        let inputs = [
            (Some(args.before.as_path()), "BEFORE"),
            (Some(args.after.as_path()), "AFTER"),
            (args.inputs.inputs.as_deref(), "--inputs"),
        ];
        paths::apart(report, "--report", &inputs)?;
        paths::outside(report, "--report", &args.before, "BEFORE")?;
        paths::outside(report, "--report", &args.after, "AFTER")?;
    }
    let (before, after) = (
        args.flags.open(&args.before)?,
        args.flags.open(&args.after)?,
    );
    let report_file =
        ReportFile::prepare_of(args.report.as_deref(), args.force, Comparison::is_at)?;
    let (found, described) = compared((&before, &after), args, voice)?;
    let stream = match report_file.is_stdout() {
        true => Stream::Err,
        false => Stream::Out,
    };
    report_file.write(&found, || {
        let name = |path: &Path| {
            path.file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned()
        };
        Ok(Page::of_comparison(
            name(&args.after),
            format!("compared with {} on {described}", name(&args.before)),
            &found,
        ))
    })?;
    voice.say(stream, &text(&found, &described, stream.width()))?;
    args.least.reached(&found)
}

fn compared(
    (before, after): (&Program, &Program),
    args: &Args,
    voice: Voice,
) -> Result<(Comparison, String), Failure> {
    let session = Session::new(before)?;
    let samples = args
        .inputs
        .samples(&session, &args.flags, args.seed, RANDOM)?;
    drop(session);
    let options = CompareOptions {
        function: args.flags.function(),
        layers: args.layers,
        arg_max: args.least.agreement(),
        run: args.flags.options(),
    };
    let found = on_threads(args.flags.threads, || {
        let progress = Bar::new(voice);
        compare(before, after, &samples, options, &progress)
    })??;
    Ok((found, args.inputs.described(&samples)))
}

/// The table of outputs, that of layers, and what it is about.
pub(crate) fn text(found: &Comparison, described: &str, columns: Option<usize>) -> String {
    let mut text = table("output", &found.outputs).render(columns);
    if !found.layers.is_empty() {
        let most = columns.map_or(usize::MAX, |_| MOST_LAYERS);
        let shown = &found.layers[..found.layers.len().min(most)];
        text += &format!("\n{}", table("layer", shown).render(columns));
        if found.layers.len() > shown.len() {
            let more = figures::grouped((found.layers.len() - shown.len()) as u64);
            text += &format!("and {more} more, all of them better\n");
        }
    }
    let first = match found.worst().map(|worst| (worst.snr_db, &worst.name)) {
        None => "Nothing differs".to_owned(),
        Some((Some(snr), _)) if found.outputs.len() == 1 => format!("{snr:.1} dB"),
        Some((Some(snr), name)) => format!("{snr:.1} dB at \"{name}\""),
        Some((None, name)) => format!("\"{name}\" is broken"),
    };
    text + &format!(
        "\n{}\n",
        paragraph(&first, &format!(" on {described}"), columns)
    )
}

fn table(what: &'static str, differences: &[Difference]) -> Table {
    let layers = what == "layer";
    let any = |has: fn(&Difference) -> bool| differences.iter().any(has);
    let (kl, agreement) = (
        any(|one| one.kl.is_some()),
        any(|one| one.agreement.is_some()),
    );
    let broken = any(|one| one.broken > 0);
    let mut columns = vec![Column::name(what)];
    if layers {
        columns.push(Column::text("op type").leaves(2));
        columns.push(Column::number("place").leaves(1));
    }
    columns.extend([
        Column::number("shape").leaves(4),
        Column::number("SNR dB"),
        Column::number("PSNR dB").leaves(3),
        Column::number("cosine").leaves(5),
        Column::number("largest error"),
    ]);
    columns.extend(kl.then(|| Column::number("KL")));
    columns.extend(agreement.then(|| Column::number("arg-max")));
    columns.extend(broken.then(|| Column::number("broken")));
    let mut table = Table::new(columns);
    for one in differences {
        let mut cells = vec![one.name.clone()];
        if layers {
            cells.extend([one.op_type.clone(), one.order.to_string()]);
        }
        let exact = one.exact.then_some(0.0);
        let none = || "-".to_owned();
        cells.extend([
            figures::shape(&one.shape),
            figures::decibels(one.snr_db, exact),
            figures::decibels(one.psnr_db, exact),
            one.cosine
                .map_or_else(none, |cosine| format!("{cosine:.6}")),
            figures::general(one.largest_error),
        ]);
        cells.extend(kl.then(|| one.kl.map_or_else(none, figures::general)));
        cells.extend(agreement.then(|| {
            one.agreement
                .map_or_else(none, |share| format!("{:.2}%", 100.0 * share))
        }));
        cells.extend(broken.then(|| figures::grouped(one.broken)));
        table.row(cells);
    }
    table
}
