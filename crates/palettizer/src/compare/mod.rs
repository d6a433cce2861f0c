//! Two programs on the same inputs: how far apart what they give is, and where that begins.
//!
//! Both run on each sample; figures are those of all samples together. What lies between inputs and outputs is compared by its name,
//! so that layers that were compressed, and all that is untouched, have their counterparts.

mod figures;
mod layers;

pub use figures::Difference;

use crate::coreml::Model;
use crate::runtime::{Elements, Label, Named, Observer, RunOptions, Session, Tensor, Value};
use crate::values::Samples;
use crate::{Error, Progress};
use figures::Tally;
use layers::{Against, Recorder};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The version of a comparison as JSON.
pub const COMPARISON_VERSION: u32 = 1;

/// What is compared, and how the programs run.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompareOptions<'a> {
    /// The function; the main one if none is named.
    pub function: Option<&'a str>,
    /// Whether intermediate values are compared too.
    pub layers: bool,
    /// Whether the arg-max of outputs is compared that are no distributions, where no output is one: logits, say.
    pub arg_max: bool,
    /// How the programs run.
    pub run: RunOptions<'a>,
}

/// How far two programs are apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// [`COMPARISON_VERSION`].
    pub version: u32,
    /// How many samples they ran on.
    pub samples: usize,
    /// The outputs, in the order of the program.
    pub outputs: Vec<Difference>,
    /// Intermediate values that both programs have, the worst first.
    pub layers: Vec<Difference>,
}

impl Comparison {
    /// Whether a comparison as JSON lies there, which another one may replace.
    pub fn is_at(path: &Path) -> bool {
        let mut start = Vec::new();
        // a pipe would wait for somebody to write to it
        let file = path.is_file().then(|| File::open(path).ok()).flatten();
        let read = file.map(|file| file.take(64).read_to_end(&mut start));
        start.retain(|byte| !byte.is_ascii_whitespace());
        matches!(read, Some(Ok(_))) && start.starts_with(br#"{"version":1,"samples":"#)
    }

    /// The output that is the farthest off, by its signal-to-noise ratio; `None` if all are exact.
    pub fn worst(&self) -> Option<&Difference> {
        let inexact = self.outputs.iter().filter(|output| !output.exact);
        inexact.min_by(|a, b| a.rank().total_cmp(&b.rank()))
    }

    /// The least agreement of an output's arg-max or labels, if any has one.
    pub fn agreement(&self) -> Option<f64> {
        let found = self.outputs.iter().filter_map(|output| output.agreement);
        found.min_by(f64::total_cmp)
    }
}

/// Runs two models on samples, and measures how far apart their values are.
///
/// ```no_run
/// use palettizer::compare::{CompareOptions, compare};
/// use palettizer::coreml::Model;
/// use palettizer::runtime::Session;
/// use palettizer::values::Samples;
///
/// let (before, after) = (Model::open("Model.mlpackage")?, Model::open("Small.mlpackage")?);
/// let session = Session::new(&before)?;
/// let samples = Samples::random(&session, None, 0, 8)?;
/// for output in compare(&before, &after, &samples, CompareOptions::default(), &())?.outputs {
///     println!("{}: {:?} dB", output.name, output.snr_db);
/// }
/// # Ok::<(), palettizer::Error>(())
/// ```
///
/// # Errors
/// What running them may give.
pub fn compare(
    before: &Model,
    after: &Model,
    samples: &Samples,
    options: CompareOptions<'_>,
    progress: &dyn Progress,
) -> Result<Comparison, Error> {
    let (first, second) = (Session::new(before)?, Session::new(after)?);
    let (first, second) = (
        first.keep_constants(samples.len() > 1),
        second.keep_constants(samples.len() > 1),
    );
    let mut run = options.run;
    run.stop = run.stop.or(progress.stop());
    let mut outputs: BTreeMap<String, Tally> = BTreeMap::new();
    let mut layers: BTreeMap<String, Tally> = BTreeMap::new();
    progress.start(samples.len(), 0);
    for at in 0..samples.len() {
        let inputs = samples.get(at)?;
        let mut recorder = Recorder::default();
        let observer: Option<&mut dyn Observer> = match options.layers {
            true => Some(&mut recorder),
            false => None,
        };
        let mut state = first.state(options.function)?;
        let ours = first.run_with(options.function, inputs.clone(), &mut state, run, observer)?;
        let mut against = Against::new(recorder, &mut layers);
        let observer: Option<&mut dyn Observer> = match options.layers {
            true => Some(&mut against),
            false => None,
        };
        let mut state = second.state(options.function)?;
        let theirs = second.run_with(options.function, inputs, &mut state, run, observer)?;
        add(&mut outputs, &ours, &theirs);
        progress.advance(&format!("sample {}", at + 1), 0);
    }
    progress.finish();
    let order = first.output_names(options.function)?;
    let mut outputs: Vec<Difference> = order
        .iter()
        .enumerate()
        .filter_map(|(at, name)| Some(outputs.get(*name)?.figures(name, at)))
        .collect();
    // what is no distribution has an arg-max only if it is asked for and nothing else has one
    let classifier = outputs
        .iter()
        .any(|output| output.distribution || output.label);
    for output in &mut outputs {
        if !output.distribution && !output.label && (classifier || !options.arg_max) {
            output.agreement = None;
        }
    }
    let mut layers: Vec<Difference> = layers
        .iter()
        .filter(|(name, _)| !order.contains(&name.as_str()))
        .map(|(name, tally)| tally.figures(name, tally.order))
        .collect();
    for layer in &mut layers {
        layer.agreement = layer.agreement.filter(|_| layer.distribution);
    }
    layers.sort_by(|a, b| a.rank().total_cmp(&b.rank()).then(a.order.cmp(&b.order)));
    Ok(Comparison {
        version: COMPARISON_VERSION,
        samples: samples.len(),
        outputs,
        layers,
    })
}

/// How far outputs are apart, as a part of their energy.
#[derive(Default)]
pub(crate) struct OutputNoise(BTreeMap<String, Tally>);

impl OutputNoise {
    /// Adds the outputs of one run and of another.
    pub(crate) fn add(&mut self, before: &Named, after: &Named) {
        add(&mut self.0, before, after);
    }

    /// The mean over outputs of numbers; infinite if one is broken.
    pub(crate) fn mean(&self) -> f64 {
        let all = self.0.values().filter_map(Tally::noise);
        let (sum, count) = all.fold((0.0, 0), |(sum, count), noise| (sum + noise, count + 1));
        sum / f64::from(count.max(1))
    }
}

fn add(tallies: &mut BTreeMap<String, Tally>, before: &Named, after: &Named) {
    for (name, ours) in before {
        let tally = tallies.entry(name.clone()).or_default();
        match after.get(name) {
            Some(theirs) => add_value(tally, ours, theirs),
            None => tally.missing(),
        }
    }
}

/// Adds what two values are apart.
fn add_value(tally: &mut Tally, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Tensor(before), Value::Tensor(after)) => add_tensors(tally, before, after),
        (Value::Dictionary(before), Value::Dictionary(after)) => {
            let by_label = |label: &Label| after.iter().find(|(other, _)| other == label);
            let theirs: Option<Vec<f32>> = before
                .iter()
                .map(|(label, _)| Some(by_label(label)?.1))
                .collect();
            let ours: Vec<f32> = before.iter().map(|(_, number)| *number).collect();
            match theirs {
                Some(theirs) => tally.floats(&[ours.len()], &ours, &theirs),
                None => tally.missing(),
            }
        }
        (Value::Image(_), Value::Image(_)) => {
            let (ours, theirs) = (pixels(before), pixels(after));
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => add_tensors(tally, &ours, &theirs),
                _ => tally.missing(),
            }
        }
        _ => tally.missing(),
    }
}

fn pixels(value: &Value) -> Option<Tensor> {
    match value {
        Value::Image(image) => image.to_tensor(match image.pixels() {
            crate::runtime::Pixels::Gray(_) => crate::runtime::ColorSpace::Gray,
            crate::runtime::Pixels::Rgb(_) => crate::runtime::ColorSpace::Rgb,
            crate::runtime::Pixels::GrayF16(_) => crate::runtime::ColorSpace::GrayF16,
        }),
        _ => None,
    }
}

fn add_tensors(tally: &mut Tally, before: &Tensor, after: &Tensor) {
    if before.shape() != after.shape() {
        return tally.missing();
    }
    match (before.elements(), after.elements()) {
        (Elements::Floats(ours), Elements::Floats(theirs)) => {
            tally.floats(before.shape(), ours, theirs)
        }
        (Elements::Ints(ours), Elements::Ints(theirs)) => {
            tally.labels(before.shape(), ours, theirs)
        }
        (Elements::Bools(ours), Elements::Bools(theirs)) => {
            tally.labels(before.shape(), ours, theirs)
        }
        (Elements::Texts(ours), Elements::Texts(theirs)) => {
            tally.labels(before.shape(), ours, theirs)
        }
        _ => tally.missing(),
    }
}
