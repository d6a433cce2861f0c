//! What the inputs of a model's layers look like: where that is known from, and which weights are fitted to it.
//!
//! For a weight called `W` a source has `W.second_moments`, and where wanted `W.fisher`, which weighs the k-means that tables start
//! from, and `W.frequency`, how often each row of an embedding is used. `docs/statistics.md` says what they are. Weights that
//! cannot be fitted fall back to k-means, with a reason, and weighted if there is anything to weigh it with.

mod assign;

use crate::Error;
use crate::sensitivity::SensitivitySource;
use palettizer_palette::sensitivity::normalise;
use palettizer_palette::{
    DEFAULT_DAMPING, DEFAULT_GUIDED_DAMPING, DEFAULT_ROUNDS, LayerwiseAlgorithm, LayerwiseSettings,
    MomentsShape,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use assign::assign;

/// The key of the metadata that says which version of the form it is.
const VERSION_KEY: &str = "palettizer.statistics";
/// The one that is read.
const VERSION: &str = "1";
/// The key of the metadata that says whether gradients weigh the moments: `true` or `false`.
const GUIDED_KEY: &str = "guided";
/// After a weight's name: the key of the metadata that says which axis has its output channels.
const AXIS: &str = ".output_axis";
/// After a weight's name: second moments of the inputs.
const MOMENTS: &str = ".second_moments";
/// Likewise: what an error in each element costs.
const FISHER: &str = ".fisher";
/// Likewise: how often each row is used.
const FREQUENCY: &str = ".frequency";

/// Rows count as this part of the mean at least: one that no sample used is not one that may become anything.
const LEAST_FREQUENCY: f64 = 0.01;
/// How far two elements that should be the same may be apart, relative to both.
const SYMMETRY: f32 = 1e-3;
/// The same, relative to the largest element of the diagonal.
const SYMMETRY_FLOOR: f32 = 1e-5;

/// How weights are fitted to the inputs of their layers; what is `None` is as the palette crate's defaults say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatisticsOptions {
    /// How tables and indices are found.
    pub algorithm: LayerwiseAlgorithm,
    /// Rounds of tables and indices.
    pub rounds: Option<usize>,
    /// What is added to the diagonal of second moments, as a part of its mean.
    pub damping: Option<f64>,
}

/// What the inputs of layers look like. Two are equal if they have the same source, the very same object, and the same options.
#[derive(Clone, Debug)]
pub struct Statistics {
    source: Arc<dyn SensitivitySource>,
    options: StatisticsOptions,
    settings: LayerwiseSettings,
    metadata: BTreeMap<String, String>,
}

impl PartialEq for Statistics {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.options == other.options
    }
}

/// What is known of the inputs of one weight, and what is done with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// What its second moments are called, if they are those of its inputs, with their shape.
    pub moments: Option<(String, MomentsShape)>,
    /// What its Fisher information is called.
    pub fisher: Option<String>,
    /// What the frequency of its rows is called.
    pub frequency: Option<String>,
    /// The axis of its output channels.
    pub output_axis: usize,
    /// Why it is not fitted to them.
    pub fallback: Option<String>,
}

impl Statistics {
    /// Those of `source`.
    ///
    /// # Errors
    /// [`Error::StatisticsFile`] for metadata of another version or without sense, and for a damping that is negative or not finite.
    ///
    /// ```
    /// use palettizer_pipeline::{SensitivitySource, Statistics, StatisticsOptions};
    /// use std::sync::Arc;
    ///
    /// #[derive(Debug)]
    /// struct Identity;
    /// impl SensitivitySource for Identity {
    ///     fn names(&self) -> Vec<String> {
    ///         vec!["fc.weight.second_moments".to_owned()]
    ///     }
    ///     fn shape(&self, _name: &str) -> Option<Vec<usize>> {
    ///         Some(vec![2, 2])
    ///     }
    ///     fn read(&self, _name: &str) -> Result<Vec<f32>, String> {
    ///         Ok(vec![1.0, 0.0, 0.0, 1.0])
    ///     }
    /// }
    ///
    /// let statistics = Statistics::new(Arc::new(Identity), StatisticsOptions::default())?;
    /// assert_eq!(statistics.settings().damping, 0.1);
    /// # Ok::<(), palettizer_pipeline::Error>(())
    /// ```
    pub fn new(
        source: Arc<dyn SensitivitySource>,
        options: StatisticsOptions,
    ) -> Result<Self, Error> {
        let bad = |what: String| Err(Error::StatisticsFile { what });
        let metadata = source.metadata();
        if let Some(version) = metadata.get(VERSION_KEY)
            && version != VERSION
        {
            return bad(format!(
                "the metadata's {VERSION_KEY} is {version:?}, expected {VERSION:?}; make the file again"
            ));
        }
        let guided = match metadata.get(GUIDED_KEY).map(String::as_str) {
            Some("true") => true,
            Some("false") | None => false,
            Some(other) => {
                return bad(format!(
                    "the metadata's {GUIDED_KEY} is {other:?}, expected \"true\" or \"false\""
                ));
            }
        };
        let usual = match guided {
            true => DEFAULT_GUIDED_DAMPING,
            false => DEFAULT_DAMPING,
        };
        let damping = options.damping.unwrap_or(usual);
        if !(damping >= 0.0 && damping.is_finite()) {
            return bad(format!(
                "damping is {damping}, expected a finite number from 0 on"
            ));
        }
        let settings = LayerwiseSettings {
            algorithm: options.algorithm,
            rounds: options.rounds.unwrap_or(DEFAULT_ROUNDS),
            damping,
        };
        Ok(Statistics {
            source,
            options,
            settings,
            metadata,
        })
    }

    /// How weights are fitted.
    pub fn settings(&self) -> LayerwiseSettings {
        self.settings
    }

    /// The axis of a weight's output channels, if the source says so.
    fn axis(&self, name: &str, rank: usize) -> Result<Option<usize>, Error> {
        let key = format!("{name}{AXIS}");
        let Some(text) = self.metadata.get(&key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(axis) if axis < rank => Ok(Some(axis)),
            _ => Err(Error::StatisticsFile {
                what: format!(
                    "the metadata's {key} is {text:?}, expected an axis from 0 to {}",
                    rank.saturating_sub(1)
                ),
            }),
        }
    }

    /// Second moments, checked.
    ///
    /// # Errors
    /// [`Error::Statistics`] for numbers that are not finite, a diagonal with negative ones, or a matrix that is not symmetric.
    pub fn moments(&self, name: &str, shape: MomentsShape) -> Result<Vec<f32>, Error> {
        let values = self.read(name, shape.numbers())?;
        let n = shape.columns;
        for (matrix, values) in values.chunks_exact(n * n).enumerate() {
            check(values, n).map_err(|what| Error::Statistics {
                name: name.to_owned(),
                what: match shape.row_runs * shape.blocks {
                    1 => what,
                    _ => format!("{what}, in matrix {matrix}"),
                },
            })?;
        }
        Ok(values)
    }

    /// How much each element of a weight of this shape counts: its Fisher information, or the diagonal of its second
    /// moments (where `diagonal`), or how often its row is used; `None` if nothing is known.
    ///
    /// # Errors
    /// [`Error::Statistics`] for numbers of another weight, and for negative ones or those that are not finite.
    pub fn weights(
        &self,
        inputs: &Inputs,
        shape: &[usize],
        diagonal: bool,
    ) -> Result<Option<Vec<f32>>, Error> {
        let elements = shape.iter().product();
        let (name, mut values) = if let Some(name) = &inputs.fisher {
            (name, self.read(name, Some(elements))?)
        } else if let Some((name, moments)) = &inputs.moments {
            if !diagonal {
                return Ok(None);
            }
            let values = self.moments(name, *moments)?;
            (name, moments.diagonal(&values, shape, inputs.output_axis))
        } else if let Some(name) = &inputs.frequency {
            let rows = shape[inputs.output_axis];
            let each = self.read(name, Some(rows))?;
            let mean = each.iter().map(|&x| f64::from(x)).sum::<f64>() / rows as f64;
            let least = (LEAST_FREQUENCY * mean) as f32;
            let inner: usize = shape[inputs.output_axis + 1..].iter().product();
            // What is no number stays what it is, and is refused below.
            let raised = |x: f32| if x >= 0.0 && x < least { least } else { x };
            let values = (0..elements).map(|at: usize| raised(each[at / inner % rows]));
            (name, values.collect())
        } else {
            return Ok(None);
        };
        normalise(&mut values).map_err(|error| Error::Statistics {
            name: name.clone(),
            what: error.to_string(),
        })?;
        Ok(Some(values))
    }

    fn read(&self, name: &str, expected: Option<usize>) -> Result<Vec<f32>, Error> {
        let bad = |what| Error::Statistics {
            name: name.to_owned(),
            what,
        };
        let values = self.source.read(name).map_err(bad)?;
        match expected {
            Some(expected) if values.len() == expected => Ok(values),
            Some(expected) => Err(bad(format!(
                "{} numbers, expected {expected}",
                values.len()
            ))),
            None => Err(bad("more numbers than there can be".to_owned())),
        }
    }
}

/// What is wrong with a matrix of second moments.
fn check(values: &[f32], n: usize) -> Result<(), String> {
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        let (i, j, value) = (at / n, at % n, values[at]);
        return Err(format!("{value} at [{i}, {j}], expected finite numbers"));
    }
    let most = (0..n).map(|i| values[i * (n + 1)]).fold(0.0, f32::max);
    for i in 0..n {
        let own = values[i * (n + 1)];
        if own < 0.0 {
            return Err(format!(
                "{own} at [{i}, {i}]; the diagonal has means of squares, expected numbers from 0 on"
            ));
        }
        for j in 0..i {
            let (a, b) = (values[i * n + j], values[j * n + i]);
            if (a - b).abs() > SYMMETRY * (a.abs() + b.abs()) + SYMMETRY_FLOOR * most {
                return Err(format!(
                    "{a} at [{i}, {j}] and {b} at [{j}, {i}], expected a symmetric matrix"
                ));
            }
        }
    }
    Ok(())
}

impl Inputs {
    /// Whether the weight is fitted.
    pub fn fits(&self) -> bool {
        self.fallback.is_none()
    }

    /// Whether it is clustered, or starts to be fitted, with weights.
    pub(crate) fn weighs(&self) -> bool {
        let diagonal = self.moments.is_some() && !self.fits();
        self.fisher.is_some() || diagonal || self.frequency.is_some()
    }
}
