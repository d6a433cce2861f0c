//! Losses, and gradients with respect to constants and inputs.

use crate::error::Error;
use crate::options::RunOptions;
use crate::session::{Named, Run, Session, apart};
use crate::sought::Sought;
use crate::tensor::Tensor;
use crate::value::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a gradient is taken of.
#[derive(Clone, Debug)]
pub enum Loss {
    /// An output of one element.
    Output(String),
    /// The mean over rows of −log softmax(logits)\[label\], rows along the last axis.
    CrossEntropy {
        /// The output that holds the logits.
        output: String,
        /// A class for each row.
        labels: Vec<usize>,
    },
    /// The mean over rows of −log p\[label\], where the program itself ends in a softmax.
    Nll {
        /// The output that holds the probabilities.
        output: String,
        /// A class for each row.
        labels: Vec<usize>,
    },
    /// The mean of squared differences from a target.
    Mse {
        /// The output.
        output: String,
        /// As many elements as the output has.
        target: Vec<f32>,
    },
    /// The sum of outputs, each element with a factor: any direction in the space of outputs.
    Projection(BTreeMap<String, Vec<f32>>),
}

/// What [`Session::grad`] gives.
#[derive(Clone, Debug)]
pub struct Differentiated {
    /// The loss.
    pub loss: f64,
    /// The program's outputs.
    pub outputs: Named,
    /// The gradient with respect to each constant or input that was asked for, in its shape.
    pub gradients: BTreeMap<String, Tensor>,
}

/// The gradient of a loss with respect to outputs.
type Seeds = Vec<(String, Vec<f32>)>;

/// The least probability whose logarithm is taken.
const LEAST: f32 = 1e-30;

impl Loss {
    /// The loss of outputs, and its gradient with respect to each.
    fn of(&self, outputs: &Named) -> Result<(f64, Seeds), Error> {
        match self {
            Loss::Output(name) => match &*floats(outputs, name)?.1 {
                [value] => Ok((f64::from(*value), vec![(name.clone(), vec![1.0])])),
                many => Err(bad(
                    name,
                    format!("has {} elements; expected one", many.len()),
                )),
            },
            Loss::CrossEntropy { output, labels } => {
                rows(outputs, output, labels, |row, label, grad| {
                    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
                    for (grad, &x) in grad.iter_mut().zip(row) {
                        *grad = (f64::from(x - most).exp() / sum) as f32;
                    }
                    grad[label] -= 1.0;
                    sum.ln() - f64::from(row[label] - most)
                })
            }
            Loss::Nll { output, labels } => rows(outputs, output, labels, |row, label, grad| {
                let p = row[label].max(LEAST);
                grad[label] = -1.0 / p;
                -f64::from(p).ln()
            }),
            Loss::Mse { output, target } => {
                let (_, found) = floats(outputs, output)?;
                if found.len() != target.len() {
                    let what = format!("has {} elements, the target {}", found.len(), target.len());
                    return Err(bad(output, what));
                }
                let each = 1.0 / found.len().max(1) as f64;
                let differences = found
                    .iter()
                    .zip(target)
                    .map(|(&a, &b)| f64::from(a) - f64::from(b));
                let loss = differences.clone().map(|d| d * d * each).sum();
                let grad = differences.map(|d| (2.0 * d * each) as f32).collect();
                Ok((loss, vec![(output.clone(), grad)]))
            }
            Loss::Projection(factors) => {
                let (mut loss, mut grads) = (0.0, Vec::new());
                for (name, factors) in factors {
                    let (_, found) = floats(outputs, name)?;
                    if found.len() != factors.len() {
                        return Err(bad(
                            name,
                            format!(
                                "has {} elements, {} factors are given",
                                found.len(),
                                factors.len()
                            ),
                        ));
                    }
                    loss += found
                        .iter()
                        .zip(factors)
                        .map(|(&a, &b)| f64::from(a) * f64::from(b))
                        .sum::<f64>();
                    grads.push((name.clone(), factors.clone()));
                }
                Ok((loss, grads))
            }
        }
    }
}

fn bad(name: &str, what: String) -> Error {
    Error::Output {
        name: name.to_owned(),
        what,
    }
}

/// The shape and the numbers of an output; those of a classifier in the order of its classes.
fn floats<'a>(outputs: &'a Named, name: &str) -> Result<(Vec<usize>, Cow<'a, [f32]>), Error> {
    let known = || outputs.keys().cloned().collect::<Vec<_>>().join(", ");
    let value = outputs
        .get(name)
        .ok_or_else(|| bad(name, format!("is not one of the model's: {}", known())))?;
    if let Value::Dictionary(entries) = value {
        let numbers: Vec<f32> = entries.iter().map(|(_, number)| *number).collect();
        return Ok((vec![numbers.len()], numbers.into()));
    }
    let tensor = value
        .tensor()
        .and_then(|tensor| Some((tensor.shape().to_vec(), tensor.floats()?.into())));
    tensor.ok_or_else(|| {
        bad(
            name,
            format!("is {}; expected a tensor of floats", value.kind()),
        )
    })
}

/// The mean over rows, each with its label.
fn rows(
    outputs: &Named,
    name: &str,
    labels: &[usize],
    one: impl Fn(&[f32], usize, &mut [f32]) -> f64,
) -> Result<(f64, Seeds), Error> {
    let (shape, found) = floats(outputs, name)?;
    let classes = shape.last().copied().unwrap_or(1).max(1);
    let count = found.len() / classes;
    if labels.len() != count {
        return Err(bad(
            name,
            format!("has {count} rows, {} labels are given", labels.len()),
        ));
    }
    let mut grad = vec![0.0; found.len()];
    let mut loss = 0.0;
    for ((row, grad), &label) in found
        .chunks(classes)
        .zip(grad.chunks_mut(classes))
        .zip(labels)
    {
        if label >= classes {
            return Err(bad(
                name,
                format!("has {classes} classes; a label is {label}"),
            ));
        }
        loss += one(row, label, grad);
        grad.iter_mut().for_each(|grad| *grad /= count as f32);
    }
    Ok((loss / count.max(1) as f64, vec![(name.to_owned(), grad)]))
}

impl Session {
    /// Runs the main function, and differentiates a loss of its outputs with respect to constants and inputs, by their names.
    ///
    /// Of a pipeline the inputs are its own, and the constants those of all stages; of several that have one of a name it is the
    /// first. What is an image between two stages passes no gradient on.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::Wrt`] for a name that is neither, [`Error::Output`] if the loss does not fit the
    /// outputs, [`Error::Op`] for an operation on the way that cannot be differentiated.
    pub fn grad(&self, loss: &Loss, wrt: &[&str], inputs: Named) -> Result<Differentiated, Error> {
        self.grad_with(loss, wrt, None, inputs, RunOptions::default())
    }

    /// As [`grad`](Self::grad), of a function, within limits.
    ///
    /// # Errors
    /// As [`grad`](Self::grad).
    pub fn grad_with(
        &self,
        loss: &Loss,
        wrt: &[&str],
        function: Option<&str>,
        inputs: Named,
        options: RunOptions<'_>,
    ) -> Result<Differentiated, Error> {
        self.differentiate(wrt, function, inputs, options, |outputs| loss.of(outputs))
    }

    /// As [`grad_with`](Self::grad_with), of the sum of outputs, each element with a factor that follows from the outputs themselves:
    /// `factors` is given these, and gives as many numbers as an output has elements, for each that counts.
    ///
    /// # Errors
    /// As [`grad`](Self::grad), and what `factors` gives.
    pub fn grad_of(
        &self,
        factors: impl FnOnce(&Named) -> Result<BTreeMap<String, Vec<f32>>, Error>,
        wrt: &[&str],
        function: Option<&str>,
        inputs: Named,
        options: RunOptions<'_>,
    ) -> Result<Differentiated, Error> {
        self.differentiate(wrt, function, inputs, options, |outputs| {
            Loss::Projection(factors(outputs)?).of(outputs)
        })
    }

    fn differentiate(
        &self,
        wrt: &[&str],
        function: Option<&str>,
        inputs: Named,
        options: RunOptions<'_>,
        loss: impl FnOnce(&Named) -> Result<(f64, Seeds), Error>,
    ) -> Result<Differentiated, Error> {
        let mut state = self.state(function)?;
        let sought = Sought::new(&self.root, function, wrt)?;
        let inputs = sought.placed(inputs);
        let mut run = Run::new(options, &mut state, None);
        run.sought = Some(sought);
        let found = self.run_stage(&self.root, function, inputs, &mut run)?;
        let (outputs, nodes) = apart(found);
        let (loss, seeds) = loss(&outputs)?;
        let seeds = seeds.into_iter();
        let seeds = seeds.filter_map(|(name, grad)| Some((*nodes.get(&name)?, grad)));
        let gradients = match run.sought.take() {
            Some(sought) => sought.gradients(&self.model, &self.spare, seeds.collect())?,
            None => BTreeMap::new(),
        };
        Ok(Differentiated {
            loss,
            outputs,
            gradients,
        })
    }
}
