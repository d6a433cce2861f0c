//! Sensitivities of a program's weights, from its own gradients: no training code, and no labels.
//!
//! How much the outputs move when a weight does is the diagonal of the Gauss-Newton matrix JᵀJ, Σ (∂yᵢ/∂w)² over outputs i. With random
//! signs v it is the mean of (∂⟨v, y⟩/∂w)², for the mean of vᵢvⱼ is 0 for i ≠ j (Hutchinson 1990; of its diagonal, Bekas, Kokiopoulou
//! and Saad 2007): one gradient a sample and probe. Of a classifier there is a better measure, how much its distribution moves: the
//! diagonal of the Fisher matrix, the mean of (∂ ln p(c)/∂w)² over classes c that are drawn from the model's own p (Amari 1998). Both
//! are means over samples. With true labels it is what is often called the empirical Fisher.

use crate::coreml::Model;
use crate::runtime::{Named, RunOptions, Session, Tensor, Value};
use crate::safetensors::{Checkpoint, Content, DenseTensor, ElementType};
use crate::values::Samples;
use crate::{DEFAULT_WEIGHT_THRESHOLD, Error, Progress, SaveOptions, runtime};
use palettizer_kernels::Random;
use std::collections::BTreeMap;
use std::path::Path;

/// How far a row may be from a sum of 1 to be probabilities: fp16 has three digits.
const SUM_TOLERANCE: f64 = 1e-2;

/// What is to stay as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SensitivityLoss {
    /// All outputs, alike.
    #[default]
    Probe,
    /// The distribution that an output is, or is the logits of: its labels are drawn from it.
    Nll {
        /// The output; `None`: the only one that has classes.
        output: Option<String>,
    },
    /// The probabilities of these labels, one for each row of the samples' outputs, in their order.
    Labels {
        /// The output; `None`: the only one that has classes.
        output: Option<String>,
        /// The labels.
        labels: Vec<usize>,
    },
}

/// How sensitivities are found.
#[derive(Clone, Debug)]
pub struct SensitivityOptions<'a> {
    /// The function; the main one if none is named.
    pub function: Option<&'a str>,
    /// What is to stay as it is.
    pub loss: SensitivityLoss,
    /// Random directions, or draws of labels, for each sample.
    pub probes: usize,
    /// Where random numbers begin.
    pub seed: u64,
    /// Weights with more elements than this have sensitivities.
    pub weight_threshold: usize,
    /// How the program runs.
    pub run: RunOptions<'a>,
}

impl Default for SensitivityOptions<'_> {
    fn default() -> Self {
        SensitivityOptions {
            function: None,
            loss: SensitivityLoss::default(),
            probes: 1,
            seed: 0,
            weight_threshold: DEFAULT_WEIGHT_THRESHOLD,
            run: RunOptions::default(),
        }
    }
}

/// The sensitivities of weights, by name, each in the shape of its weight.
#[derive(Clone, Debug, Default)]
pub struct WeightSensitivities {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl WeightSensitivities {
    /// The names of the weights, each with its shape and its sensitivities.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        let tensors = self.tensors.iter();
        tensors.map(|(name, (shape, values))| (name.as_str(), shape.as_slice(), values.as_slice()))
    }

    /// Writes them to a safetensors file, which [`sensitivities`](crate::sensitivities) reads.
    ///
    /// # Errors
    /// What writing may give.
    pub fn write(&self, path: impl AsRef<Path>, options: SaveOptions) -> Result<(), Error> {
        let contents: Vec<(&str, Content<'_>)> = self
            .iter()
            .map(|(name, shape, values)| {
                let bytes = bytemuck::cast_slice(values);
                let tensor = DenseTensor::new(ElementType::F32, shape.to_vec(), bytes);
                (name, Content::Dense(tensor))
            })
            .collect();
        Checkpoint::write(path, &contents, &BTreeMap::new(), options)?;
        Ok(())
    }
}

/// The sensitivities of a model's weights on samples.
///
/// ```no_run
/// use palettizer::coreml::Model;
/// use palettizer::runtime::Session;
/// use palettizer::values::Samples;
/// use palettizer::{SaveOptions, SensitivityOptions, probe_sensitivities};
///
/// let model = Model::open("Model.mlpackage")?;
/// let samples = Samples::open("calibration.npz", Session::new(&model)?.interface(None)?)?;
/// let found = probe_sensitivities(&model, &samples, &SensitivityOptions::default(), &())?;
/// found.write("sensitivities.safetensors", SaveOptions::default())?;
/// # Ok::<(), palettizer::Error>(())
/// ```
///
/// # Errors
/// [`runtime::Error::Op`] in [`Error::Runtime`] for an operation on the way that cannot be differentiated,
/// [`runtime::Error::Output`] if no output is what the loss asks for, and what running may give.
pub fn probe_sensitivities(
    model: &Model,
    samples: &Samples,
    options: &SensitivityOptions<'_>,
    progress: &dyn Progress,
) -> Result<WeightSensitivities, Error> {
    let session = Session::new(model)?.keep_constants(true);
    let weights = model.weights(options.weight_threshold)?;
    let floats = weights
        .iter()
        .filter(|weight| ["fp16", "fp32"].contains(&weight.dtype.as_str()));
    let of_function = session.constants(options.function)?;
    let names: Vec<&str> = floats
        .map(|weight| weight.name.as_str())
        .filter(|name| of_function.contains(name))
        .collect();
    let mut run = options.run;
    run.stop = run.stop.or(progress.stop());
    let mut found = WeightSensitivities::default();
    let mut taken = 0;
    let probes = options.probes.max(1);
    progress.start(samples.len() * probes, 0);
    for at in 0..samples.len() {
        let inputs = samples.get(at)?;
        let first = taken;
        for probe in 0..probes {
            let mut random =
                Random::stream(Random::stream(options.seed, at as u64).bits(), probe as u64);
            let factors = |outputs: &Named| match &options.loss {
                SensitivityLoss::Probe => signs(outputs, &mut random),
                SensitivityLoss::Nll { output } => {
                    let drawn = |row: &[f64]| Ok(draw(row, &mut random));
                    likelihood(outputs, output.as_deref(), drawn)
                }
                SensitivityLoss::Labels { output, labels } => {
                    taken = first;
                    let given = |row: &[f64]| {
                        let label = labels.get(taken).copied();
                        taken += 1;
                        match label {
                            Some(label) if label < row.len() => Ok(label),
                            Some(label) => Err(format!(
                                "has {} classes; label {} is {label}",
                                row.len(),
                                taken - 1
                            )),
                            None => Err(format!(
                                "has more rows than there are labels: {}",
                                labels.len()
                            )),
                        }
                    };
                    likelihood(outputs, output.as_deref(), given)
                }
            };
            let done = session.grad_of(factors, &names, options.function, inputs.clone(), run)?;
            for (name, gradient) in done.gradients {
                add(&mut found, name, &gradient);
            }
            progress.advance(&format!("sample {}", at + 1), 0);
        }
    }
    let each = 1.0 / (samples.len() * probes).max(1) as f32;
    for (_, values) in found.tensors.values_mut() {
        values.iter_mut().for_each(|value| *value *= each);
    }
    progress.finish();
    Ok(found)
}

fn add(found: &mut WeightSensitivities, name: String, gradient: &Tensor) {
    let values = gradient.floats().unwrap_or_default();
    let (_, sums) = found
        .tensors
        .entry(name)
        .or_insert_with(|| (gradient.shape().to_vec(), vec![0.0; values.len()]));
    sums.iter_mut()
        .zip(values)
        .for_each(|(sum, value)| *sum += value * value);
}

/// A random sign for each element of every output of floats.
fn signs(
    outputs: &Named,
    random: &mut Random,
) -> Result<BTreeMap<String, Vec<f32>>, runtime::Error> {
    let mut factors = BTreeMap::new();
    for (name, value) in outputs {
        if let Some((count, _)) = numbers(value) {
            let signs = (0..count.len()).map(|_| if random.bits() >> 63 == 0 { 1.0 } else { -1.0 });
            factors.insert(name.clone(), signs.collect());
        }
    }
    Ok(factors)
}

/// The numbers of an output, and how many are in a row.
fn numbers(value: &Value) -> Option<(Vec<f32>, usize)> {
    match value {
        Value::Tensor(tensor) => Some((
            tensor.floats()?.to_vec(),
            tensor.shape().last().copied().unwrap_or(1),
        )),
        Value::Dictionary(entries) => Some((
            entries.iter().map(|(_, number)| *number).collect(),
            entries.len(),
        )),
        _ => None,
    }
}

/// The gradient of Σ −ln p(label) over rows with respect to an output that is p, or the logits of p.
fn likelihood(
    outputs: &Named,
    name: Option<&str>,
    mut label: impl FnMut(&[f64]) -> Result<usize, String>,
) -> Result<BTreeMap<String, Vec<f32>>, runtime::Error> {
    let bad = |name: &str, what: String| runtime::Error::Output {
        name: name.to_owned(),
        what,
    };
    let classes = |value: &Value| numbers(value).filter(|(_, width)| *width > 1);
    let mut several = outputs
        .iter()
        .filter_map(|(name, value)| Some((name, classes(value)?)));
    let (name, (values, width)) = match name {
        Some(name) => {
            let found = several.find(|(known, _)| *known == name);
            found.ok_or_else(|| {
                bad(
                    name,
                    "has no classes, or is not one of the model's".to_owned(),
                )
            })?
        }
        None => match (several.next(), several.next()) {
            (Some(only), None) => only,
            (None, _) => {
                return Err(bad(
                    "",
                    "is not there: no output has classes to draw from".to_owned(),
                ));
            }
            (Some((first, _)), Some((second, _))) => {
                return Err(bad(
                    first,
                    format!(
                        "has classes, and so has \"{second}\": name the one that the loss is of"
                    ),
                ));
            }
        },
    };
    let mut factors = vec![0.0; values.len()];
    for (row, factors) in values
        .chunks_exact(width)
        .zip(factors.chunks_exact_mut(width))
    {
        let sum: f64 = row.iter().map(|&p| f64::from(p)).sum();
        let probabilities = (sum - 1.0).abs() < SUM_TOLERANCE && row.iter().all(|&p| p >= 0.0);
        let row: Vec<f64> = match probabilities {
            true => row.iter().map(|&p| f64::from(p) / sum).collect(),
            false => softmax(row),
        };
        let label = label(&row).map_err(|what| bad(name, what))?;
        if probabilities {
            factors[label] = (-1.0 / row[label].max(f64::from(f32::MIN_POSITIVE))) as f32;
        } else {
            factors
                .iter_mut()
                .zip(&row)
                .for_each(|(factor, &p)| *factor = p as f32);
            factors[label] -= 1.0;
        }
    }
    Ok([(name.clone(), factors)].into())
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| f64::from(x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// A class, each as often as its probability says.
fn draw(row: &[f64], random: &mut Random) -> usize {
    let mut left = random.unit();
    for (class, &p) in row.iter().enumerate() {
        left -= p;
        if left < 0.0 {
            return class;
        }
    }
    // what rounding left over: the last that can be
    row.iter().rposition(|&p| p > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_as_often_as_they_should() {
        let mut random = Random::new(1);
        let mut counts = [0; 3];
        (0..30_000).for_each(|_| counts[draw(&[0.5, 0.0, 0.5], &mut random)] += 1);
        assert!(
            counts[1] == 0 && (14_500..15_500).contains(&counts[0]),
            "{counts:?}"
        );
    }
}
