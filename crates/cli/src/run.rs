//! `palettizer run`: a model on inputs, and how long each of its operations takes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use palettizer::runtime::{Elements, Label, Named, Observer, Session, Tensor, Value};
use palettizer::{SaveOptions, values};
use serde::Serialize;

use crate::compress::on_threads;
use crate::failure::Failure;
use crate::figures;
use crate::output::{Stream, Voice, print};
use crate::paths;
use crate::program::{InputFlags, RunFlags};
use crate::table::{Column, Table};
use crate::width::paragraph;

/// Run a Core ML model on the CPU
#[derive(clap::Args)]
#[command(after_help = "Examples:
  palettizer run Model.mlpackage --inputs x.npz -o y.npz
  palettizer run Model.mlpackage --inputs cat.jpg
  palettizer run Model.mlpackage --random --time 10

Files: docs/runtime.md. Pictures are cut and scaled to the size that the model takes.")]
pub(crate) struct Args {
    /// The model: an .mlpackage or .mlmodel file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    inputs: InputFlags,
    /// Where random inputs begin
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where the outputs go: an .npz, .npy, .safetensors or .png file. Those of several samples are stacked
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Run the first sample N times more, and list what its operations take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    time: Option<u32>,
    /// Keep weights in memory once they were read or expanded
    #[arg(long, help_heading = "Run")]
    keep_weights: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Replace the file of --output if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    flags: RunFlags,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    version: u32,
    samples: usize,
    /// Of the last sample.
    outputs: Vec<Output>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

#[derive(Serialize)]
struct Output {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest: Option<f64>,
    /// A class, or the most likely one.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
}

#[derive(Serialize)]
struct Profile {
    runs: u32,
    seconds: f64,
    /// By type, those that take longest first.
    types: Vec<Taken>,
    /// By name, the same.
    operations: Vec<Taken>,
}

#[derive(Clone, Serialize)]
struct Taken {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    op_type: String,
    count: u64,
    seconds: f64,
    share: f64,
}

/// The operations that a table of times lists.
const MOST_OPERATIONS: usize = 10;

pub(crate) fn run(args: &Args, voice: Voice) -> Result<(), Failure> {
    if !args.inputs.given() {
        return Err(Failure::Usage(
            "on what? Give --inputs FILE or --random".to_owned(),
        ));
    }
    if let Some(output) = &args.output {
        values::writable(output)?;
        let inputs = [
            (args.inputs.inputs.as_deref(), "--inputs"),
            (Some(args.model.as_path()), "MODEL"),
        ];
        paths::apart(output, "--output", &inputs)?;
    }
    let model = args.flags.open(&args.model)?;
    let session = Session::new(&model)?.keep_constants(args.keep_weights);
    let samples = args.inputs.samples(&session, &args.flags, args.seed, 1)?;
    let (function, options) = (args.flags.function(), args.flags.options());
    let once = |inputs: Named, observer: Option<&mut dyn Observer>| {
        let mut state = session.state(function)?;
        session.run_with(function, inputs, &mut state, options, observer)
    };
    let (outputs, profile) = on_threads(args.flags.threads, || {
        let mut outputs = Vec::new();
        for at in 0..samples.len() {
            outputs.push(once(samples.get(at)?, None)?);
        }
        let mut clock = Clock::default();
        for _ in 0..args.time.unwrap_or(0) {
            let inputs = samples.get(0)?;
            let began = Instant::now();
            once(inputs, Some(&mut clock))?;
            clock.total += began.elapsed();
        }
        let profile = args.time.map(|runs| clock.profile(runs));
        Ok::<_, Failure>((outputs, profile))
    })??;
    let shown = outputs.last().map(described).unwrap_or_default();
    if let Some(path) = &args.output {
        let written = match outputs.as_slice() {
            [only] => only.clone(),
            several => {
                values::stacked(several).map_err(|what| Failure::about(path.display(), what))?
            }
        };
        values::write(path, &written, SaveOptions::overwriting(args.force))?;
    }
    if args.json {
        let summary = Summary {
            version: 1,
            samples: samples.len(),
            outputs: shown,
            profile,
        };
        let text = serde_json::to_string_pretty(&summary)
            .map_err(|error| Failure::about("the outputs", error))?;
        return print(Stream::Out, &format!("{text}\n"));
    }
    let columns = Stream::Out.width();
    let mut text = table(&shown).render(columns);
    if samples.len() > 1 {
        let what = format!(
            " ran; the table is of the last of {}",
            args.inputs.described(&samples)
        );
        text += &format!(
            "\n{}\n",
            paragraph(&figures::count(samples.len(), "sample"), &what, columns)
        );
    }
    if let Some(profile) = &profile {
        text += &times(profile, columns);
    }
    voice.say(Stream::Out, &text)
}

fn described(outputs: &Named) -> Vec<Output> {
    let one = |(name, value): (&String, &Value)| {
        let class = match value {
            Value::Dictionary(entries) => {
                let best = entries.iter().max_by(|a, b| a.1.total_cmp(&b.1));
                best.map(|(label, p)| format!("{} ({:.1}%)", label_text(label), 100.0 * p))
            }
            Value::Tensor(tensor) => tensor.texts().and_then(<[String]>::first).cloned(),
            _ => None,
        };
        let (dtype, shape, numbers) = match value {
            Value::Tensor(tensor) => (
                tensor.dtype().name().to_owned(),
                tensor.shape().to_vec(),
                numbers(tensor),
            ),
            Value::Image(image) => (
                "image".to_owned(),
                vec![image.height(), image.width()],
                Vec::new(),
            ),
            Value::Dictionary(entries) => {
                let numbers = entries.iter().map(|(_, number)| f64::from(*number));
                (
                    "dictionary".to_owned(),
                    vec![entries.len()],
                    numbers.collect(),
                )
            }
            Value::List(items) => ("list".to_owned(), vec![items.len()], Vec::new()),
            _ => ("unknown".to_owned(), Vec::new(), Vec::new()),
        };
        let some = !numbers.is_empty();
        Output {
            name: name.clone(),
            dtype,
            shape,
            least: some.then(|| numbers.iter().copied().fold(f64::INFINITY, f64::min)),
            mean: some.then(|| numbers.iter().sum::<f64>() / numbers.len() as f64),
            largest: some.then(|| numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            class,
        }
    };
    outputs.iter().map(one).collect()
}

fn label_text(label: &Label) -> String {
    match label {
        Label::Text(text) => text.clone(),
        Label::Int(number) => number.to_string(),
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.elements() {
        Elements::Floats(values) => values.iter().map(|&value| value.into()).collect(),
        Elements::Ints(values) => values.iter().map(|&value| value.into()).collect(),
        Elements::Bools(values) => values
            .iter()
            .map(|&value| f64::from(u8::from(value)))
            .collect(),
        Elements::Texts(_) => Vec::new(),
    }
}

fn table(outputs: &[Output]) -> Table {
    let classes = outputs.iter().any(|output| output.class.is_some());
    let mut columns = vec![
        Column::name("output"),
        Column::text("dtype").leaves(1),
        Column::number("shape").leaves(2),
        Column::number("least"),
        Column::number("mean"),
        Column::number("largest"),
    ];
    columns.extend(classes.then(|| Column::text("class")));
    let mut table = Table::new(columns);
    let number = |number: Option<f64>| number.map_or("-".to_owned(), figures::general);
    for output in outputs {
        let mut cells = vec![
            output.name.clone(),
            output.dtype.clone(),
            figures::shape(&output.shape),
            number(output.least),
            number(output.mean),
            number(output.largest),
        ];
        cells.extend(classes.then(|| output.class.clone().unwrap_or_default()));
        table.row(cells);
    }
    table
}

/// The time of each operation over several runs.
#[derive(Default)]
struct Clock {
    total: Duration,
    operations: BTreeMap<(String, String), (u64, Duration)>,
}

impl Observer for Clock {
    fn value(&mut self, op_type: &str, name: &str, _value: &Value, took: Duration) {
        // further outputs of an operation come without a time
        if took > Duration::ZERO {
            let key = (op_type.to_owned(), name.to_owned());
            let (count, sum) = self.operations.entry(key).or_default();
            *count += 1;
            *sum += took;
        }
    }
}

impl Clock {
    fn profile(self, runs: u32) -> Profile {
        let each = |took: Duration| took.as_secs_f64() / f64::from(runs.max(1));
        let whole = self
            .operations
            .values()
            .map(|(_, took)| took.as_secs_f64())
            .sum::<f64>();
        let taken = |op_type: &str, name: &str, count: u64, took: Duration| Taken {
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            count: count / u64::from(runs.max(1)),
            seconds: each(took),
            share: took.as_secs_f64() / whole.max(f64::MIN_POSITIVE),
        };
        let mut types: BTreeMap<&str, (u64, Duration)> = BTreeMap::new();
        for ((op_type, _), (count, took)) in &self.operations {
            let (counts, sum) = types.entry(op_type).or_default();
            *counts += count;
            *sum += *took;
        }
        let longest = |mut all: Vec<Taken>| {
            all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
            all
        };
        let types = types
            .iter()
            .map(|(op_type, (count, took))| taken(op_type, "", *count, *took));
        let operations = (self.operations.iter())
            .map(|((op_type, name), (count, took))| taken(op_type, name, *count, *took));
        Profile {
            runs,
            seconds: each(self.total),
            types: longest(types.collect()),
            operations: longest(operations.collect()),
        }
    }
}

fn times(profile: &Profile, columns: Option<usize>) -> String {
    let titles = || {
        [
            Column::number("count").leaves(1),
            Column::number("time"),
            Column::number("share"),
        ]
    };
    let cells = |taken: &Taken| {
        [
            figures::grouped(taken.count),
            figures::seconds(taken.seconds),
            format!("{:.1}%", 100.0 * taken.share),
        ]
    };
    let mut types = Table::new(
        std::iter::once(Column::text("op type"))
            .chain(titles())
            .collect(),
    );
    for taken in &profile.types {
        types.row(
            std::iter::once(taken.op_type.clone())
                .chain(cells(taken))
                .collect(),
        );
    }
    let names = [Column::name("operation"), Column::text("op type").leaves(2)];
    let mut slowest = Table::new(names.into_iter().chain(titles()).collect());
    for taken in profile.operations.iter().take(MOST_OPERATIONS) {
        let names = [taken.name.clone(), taken.op_type.clone()];
        slowest.row(names.into_iter().chain(cells(taken)).collect());
    }
    let rest = format!(
        " a run, the mean of {}",
        figures::count(profile.runs as usize, "run")
    );
    let total = paragraph(&figures::seconds(profile.seconds), &rest, columns);
    format!(
        "\n{}\n{}\n{total}\n",
        types.render(columns),
        slowest.render(columns)
    )
}
