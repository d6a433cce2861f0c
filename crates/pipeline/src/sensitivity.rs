//! How much each element of a model's weights matters: where that is known from, and what if it is not.
//!
//! A source names tensors; which of them belongs to which weight is settled for all weights at once, before any work,
//! so that a file that belongs to another model is one error.

use crate::Error;
use crate::format::Weight;
use crate::planned::{Decision, Job, Planned};
use palettizer_palette::Mode;
use palettizer_palette::sensitivity::normalise;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

/// Numbers by name, such as sensitivities: a file, a module's gradients, a map in memory.
pub trait SensitivitySource: Send + Sync + Debug {
    /// The names of all tensors that there are.
    fn names(&self) -> Vec<String>;

    /// The shape of one of them; `None` if there is none of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// What else is said of them, by name: nothing, unless it is a file that says something.
    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Its values, row-major, widened to `f32`. It may be called from several threads at once.
    ///
    /// # Errors
    /// What went wrong, in words for the user.
    fn read(&self, name: &str) -> Result<Vec<f32>, String>;
}

/// What to do with a weight that has no sensitivities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingSensitivity {
    /// Give up before anything is written.
    #[default]
    Error,
    /// Let all its elements matter alike.
    Ones,
}

/// Sensitivities for the weights of a model, as k-means uses them. Two are equal if they have the same source, the very
/// same object, and treat what is missing alike.
///
/// ```
/// use palettizer_pipeline::config::OptimizationConfig;
/// use palettizer_pipeline::{
///     MissingSensitivity, Sensitivities, SensitivitySource,
/// };
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// #[derive(Debug)]
/// struct Vectors(BTreeMap<String, Vec<f32>>);
/// impl SensitivitySource for Vectors {
///     fn names(&self) -> Vec<String> {
///         self.0.keys().cloned().collect()
///     }
///     fn shape(&self, name: &str) -> Option<Vec<usize>> {
///         Some(vec![self.0.get(name)?.len()])
///     }
///     fn read(&self, name: &str) -> Result<Vec<f32>, String> {
///         self.0.get(name).cloned().ok_or_else(|| "not there".to_owned())
///     }
/// }
///
/// let source = Arc::new(Vectors([("w".to_owned(), vec![4.0, 0.0, 1.0])].into()));
/// let sensitivities = Sensitivities::new(source, MissingSensitivity::Error);
/// assert_eq!(sensitivities.read("w", &[3])?, [1.0, 0.25, 0.25]);
/// assert!(sensitivities.assign([(vec!["w"], &[2, 2][..])]).is_err());
/// let config = OptimizationConfig::new().with_sensitivity(sensitivities);
/// # Ok::<(), palettizer_pipeline::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sensitivities {
    source: Arc<dyn SensitivitySource>,
    missing: MissingSensitivity,
}

impl PartialEq for Sensitivities {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.missing == other.missing
    }
}

impl Sensitivities {
    /// Those of `source`.
    pub fn new(source: Arc<dyn SensitivitySource>, missing: MissingSensitivity) -> Self {
        Self { source, missing }
    }

    /// Where they come from.
    pub fn source(&self) -> &dyn SensitivitySource {
        &*self.source
    }

    /// What is done with a weight that has none.
    pub fn missing(&self) -> MissingSensitivity {
        self.missing
    }

    /// Which tensor of the source belongs to each of the weights, in their order. A weight goes by its names, the first
    /// that the source knows, and its shape; `None` if it is to do without.
    ///
    /// # Errors
    /// [`Error::Sensitivities`], which lists every weight that is missing from the source or has another shape there. If
    /// none of the weights is there, that is [`Error::ForeignSensitivities`] in any case.
    pub fn assign<'n>(
        &self,
        weights: impl IntoIterator<Item = (Vec<&'n str>, &'n [usize])>,
    ) -> Result<Vec<Option<String>>, Error> {
        let known: HashSet<String> = self.source.names().into_iter().collect();
        let mut assigned = Vec::new();
        let (mut missing, mut wrong) = (Vec::new(), Vec::new());
        for (names, shape) in weights {
            let name = names.iter().copied().find(|name| known.contains(*name));
            let found = name.and_then(|name| self.source.shape(name));
            match (name, found) {
                (Some(name), Some(found)) => {
                    if found != shape {
                        wrong.push((name.to_owned(), found, shape.to_vec()));
                    }
                    assigned.push(Some(name.to_owned()));
                }
                _ => {
                    missing.push(names.first().copied().unwrap_or_default().to_owned());
                    assigned.push(None);
                }
            }
        }
        let foreign = !missing.is_empty() && missing.len() == assigned.len();
        if self.missing == MissingSensitivity::Ones && !foreign {
            missing.clear();
        }
        if missing.is_empty() && wrong.is_empty() {
            return Ok(assigned);
        }
        let mut known: Vec<String> = known.into_iter().collect();
        known.sort_unstable();
        Err(match foreign {
            true => Error::ForeignSensitivities {
                weights: missing,
                known,
            },
            false => Error::Sensitivities {
                missing,
                wrong,
                known,
            },
        })
    }

    /// The sensitivities of a weight of this shape, [normalised](palettizer_palette::sensitivity::normalise).
    ///
    /// # Errors
    /// [`Error::Sensitivity`] if the source cannot give them, or gives too few, too many, or numbers that are none.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        Ok(self.read_scaled(name, shape)?.0)
    }

    /// The same, and the largest before they were normalised: weights are compared by it.
    pub(crate) fn read_scaled(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<(Vec<f32>, f32), Error> {
        let bad = |what: String| Error::Sensitivity {
            name: name.to_owned(),
            what,
        };
        let mut values = self.source.read(name).map_err(bad)?;
        let elements: usize = shape.iter().product();
        if values.len() != elements {
            let found = values.len();
            return Err(bad(format!(
                "{found} values, expected {elements} for the shape {shape:?}"
            )));
        }
        let largest = values.iter().copied().fold(0.0, f32::max);
        normalise(&mut values).map_err(|error| bad(error.to_string()))?;
        Ok((values, largest))
    }
}

/// Gives every weight that k-means will cluster its sensitivities: by its own name, or by that of a weight that shares
/// its data. The other modes know none.
///
/// # Errors
/// [`Error::Sensitivities`] for all that are missing or of another shape.
pub(crate) fn assign<P>(weights: &mut [Planned<P>], from: &Sensitivities) -> Result<(), Error> {
    let clustered = |job: &Job| matches!(job.spec.mode(), Mode::Kmeans(_));
    let wanted = named(weights, clustered);
    let wanted = wanted.into_iter().map(|(at, names)| {
        let shape = weights[at].weight.shape.as_slice();
        (names, shape)
    });
    let mut assigned = from.assign(wanted)?.into_iter();
    for planned in weights {
        if let Decision::Compress(job) = &mut planned.decision
            && clustered(job)
        {
            job.sensitivity = assigned.next().flatten();
        }
    }
    Ok(())
}

/// The weights that are to be palettized and `wanted`, by their numbers, with the names that something of theirs may have: their own,
/// then those of weights that share their data.
pub(crate) fn named<P>(
    weights: &[Planned<P>],
    wanted: impl Fn(&Job) -> bool,
) -> Vec<(usize, Vec<&str>)> {
    let mut sharing: HashMap<usize, Vec<&str>> = HashMap::new();
    for planned in weights {
        if let (Some(_), Some(data)) = (planned.job(), planned.weight.data) {
            let names = planned.places().map(Weight::name);
            sharing.entry(data).or_default().extend(names);
        }
    }
    let one = |(at, planned): (usize, &'_ Planned<P>)| {
        planned.job().filter(|job| wanted(job))?;
        Some(at)
    };
    let found: Vec<usize> = weights.iter().enumerate().filter_map(one).collect();
    found
        .into_iter()
        .map(|at| {
            let planned = &weights[at];
            let others = planned.weight.data.and_then(|data| sharing.get(&data));
            let names = planned.places().map(Weight::name);
            (
                at,
                names.chain(others.into_iter().flatten().copied()).collect(),
            )
        })
        .collect()
}
