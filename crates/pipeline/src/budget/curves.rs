//! What each form of each weight costs: made once, kept in a file, good for any budget.

use crate::batch::in_batches;
use crate::config::OptimizationConfig;
use crate::execute::{Loaded, Worker, memory};
use crate::format::{Format, Weight};
use crate::planned::{Job, Plan, Planned};
use crate::{Error, Progress};
use palettizer_palette::{Palette, PaletteSpec, weighted_error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The version of the layout of curves in files.
const VERSION: u32 = 1;

/// More bytes than any weight takes; sums of so many do not overflow.
const MAX_BYTES: u64 = 1 << 44;

/// Elements of a weight that are looked at to tell whether it is the same.
const SAMPLES: usize = 1 << 12;

/// What the forms of a model's weights cost, by the names of the weights.
///
/// They are good for any budget, and for other choices too: only what is not there is found anew. What belongs to a weight of
/// another shape, of other values or with other sensitivities is not used. (Values are compared at 4,096 places.)
///
/// ```
/// use palettizer_pipeline::budget::Curves;
///
/// let curves: Curves = serde_json::from_str(r#"{"version": 1, "weights": {}}"#)?;
/// assert_eq!(curves, Curves::default());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Curves {
    /// The version of this layout.
    #[serde(deserialize_with = "version")]
    pub version: u32,
    /// The curve of each weight, by its name.
    pub weights: BTreeMap<String, Curve>,
}

impl Curves {
    /// Without the curves whose numbers cannot be what they are said to be: they may have been read from any file.
    #[must_use]
    pub fn sound(mut self) -> Self {
        self.weights.retain(|_, curve| curve.is_sound());
        self
    }
}

impl Default for Curves {
    fn default() -> Self {
        Curves {
            version: VERSION,
            weights: BTreeMap::new(),
        }
    }
}

fn version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let found = u32::deserialize(from)?;
    match found {
        VERSION => Ok(found),
        _ => Err(serde::de::Error::custom(format!(
            "version {found}, expected {VERSION}: make the curves again"
        ))),
    }
}

/// What the forms of one weight cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Curve {
    /// What it was made from: shape, type, values, and what is known of them, as a number to compare.
    pub basis: String,
    /// How often an element is used in a run, times the elements.
    pub work: f64,
    /// Σ s·w² of a weight with sensitivities s.
    pub weighted_energy: Option<f64>,
    /// Each form by what it is called.
    pub forms: BTreeMap<String, Priced>,
}

impl Curve {
    /// Whether its numbers can be what they are said to be.
    fn is_sound(&self) -> bool {
        let number = |number: f64| (0.0..f64::MAX).contains(&number);
        let sound = |form: &Priced| match form {
            Priced::Costs { bytes, error } => *bytes <= MAX_BYTES && number(*error),
            Priced::Refused(_) => true,
        };
        self.weighted_energy.is_none_or(number) && self.forms.values().all(sound)
    }

    /// What a form is called in curves.
    pub fn form(spec: &PaletteSpec) -> String {
        super::choices::form(spec)
    }
}

/// What one form of a weight costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Priced {
    /// It can be had.
    Costs {
        /// Bytes, as they will be written.
        bytes: u64,
        /// The squared error as a part of the weight's energy: weighed by sensitivities if there are any, and of the outputs
        /// of the layer if it is fitted to them.
        error: f64,
    },
    /// It cannot, for this reason.
    Refused(String),
}

/// Prices every form that the weights of a plan may take, but for those that the budget's curves know. All that these know of
/// other forms of the same weights is kept.
///
/// # Errors
/// What reading may give, and [`Error::Stopped`] when `progress` asks for it.
pub fn curves<F: Format>(
    format: &F,
    plan: &Plan<F::Place>,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Curves, F::Error> {
    let jobs = plan.weights.iter();
    let jobs = jobs.filter_map(|planned| Some((planned, planned.job()?)));
    let jobs: Vec<(&Planned<F::Place>, &Job)> = jobs.collect();
    progress.start(
        jobs.len(),
        jobs.iter().map(|(planned, _)| planned.weight.bytes).sum(),
    );
    let pricing = Pricing {
        worker: Worker {
            format,
            sensitivities: config.sensitivity(),
            statistics: config.statistics(),
            stop: progress.stop(),
        },
        known: config.budget().and_then(|budget| budget.curves()),
    };
    let mut curves = Curves::default();
    in_batches(
        &jobs,
        |(planned, job)| memory(&planned.weight, job),
        |(planned, job)| pricing.curve(planned, job),
        |(planned, _), curve| {
            let name = planned.weight.name().to_owned();
            progress.advance(&name, planned.weight.bytes);
            curves.weights.insert(name, curve?);
            Ok::<(), F::Error>(())
        },
        progress,
    )?;
    Ok(curves)
}

struct Pricing<'a, F> {
    worker: Worker<'a, F>,
    known: Option<&'a Curves>,
}

impl<F: Format> Pricing<'_, F> {
    fn curve(&self, planned: &Planned<F::Place>, job: &Job) -> Result<Curve, F::Error> {
        let weight = &planned.weight;
        let loaded = self.worker.load(weight, job)?;
        let basis = self.basis(planned, job, &loaded)?;
        let known = self
            .known
            .and_then(|known| known.weights.get(weight.name()));
        let mut curve = match known.filter(|known| known.basis == basis && known.is_sound()) {
            Some(known) => known.clone(),
            None => Curve {
                basis,
                ..Curve::default()
            },
        };
        curve.work = self.worker.format.uses(planned).max(1.0) * weight.elements() as f64;
        for spec in job.forms() {
            if let Entry::Vacant(form) = curve.forms.entry(Curve::form(spec)) {
                let (priced, energy) = self.price(planned, &loaded, spec)?;
                form.insert(priced);
                curve.weighted_energy = curve.weighted_energy.or(energy);
            }
        }
        Ok(curve)
    }

    /// What a form costs, and Σ s·w².
    fn price(
        &self,
        planned: &Planned<F::Place>,
        loaded: &Loaded<'_, F::Place>,
        spec: &PaletteSpec,
    ) -> Result<(Priced, Option<f64>), F::Error> {
        let palette = match self.worker.make(loaded, spec)? {
            Ok((palette, _)) => palette,
            Err(refusal) => return Ok((Priced::Refused(refusal.to_string()), None)),
        };
        let bytes = self.worker.format.palette_bytes(planned, &palette)?;
        let (error, energy) = self.error(planned, loaded, &palette)?;
        Ok((Priced::Costs { bytes, error }, energy))
    }

    fn error(
        &self,
        planned: &Planned<F::Place>,
        loaded: &Loaded<'_, F::Place>,
        palette: &Palette,
    ) -> Result<(f64, Option<f64>), F::Error> {
        let part = |error: f64, of: f64| if error > 0.0 { error / of } else { 0.0 };
        if let Some((sensitivity, largest)) = &loaded.sensitivity {
            let sums = weighted_error(&loaded.tensor()?, palette, sensitivity);
            let (error, energy) = sums.map_err(|error| Error::Values {
                name: planned.weight.name().to_owned(),
                what: error.to_string(),
            })?;
            return Ok((part(error, energy), Some(energy * f64::from(*largest))));
        }
        Ok(match &palette.fit {
            Some(fit) => (part(fit.output_error(), fit.energy), None),
            None => (
                part(palette.error.squared_error, palette.error.energy),
                None,
            ),
        })
    }

    /// A number that changes with what a curve is made from.
    fn basis(
        &self,
        planned: &Planned<F::Place>,
        job: &Job,
        loaded: &Loaded<'_, F::Place>,
    ) -> Result<String, F::Error> {
        let Weight { shape, dtype, .. } = &planned.weight;
        let mut hash = Fnv::default();
        hash.add(
            format!(
                "{dtype} {shape:?} {:?} {:?}",
                planned.weight.output_axis, job.inputs
            )
            .as_bytes(),
        );
        hash.sampled(loaded.tensor()?.bytes());
        if let Some((sensitivity, largest)) = &loaded.sensitivity {
            hash.add(&largest.to_le_bytes());
            let every = sensitivity.len().div_ceil(SAMPLES).max(1);
            sensitivity
                .iter()
                .step_by(every)
                .for_each(|s| hash.add(&s.to_le_bytes()));
        }
        if let (Some(statistics), Some(inputs)) = (self.worker.statistics, &job.inputs)
            && let Some((name, shape)) = &inputs.moments
        {
            hash.add(format!("{:?}", statistics.settings()).as_bytes());
            let moments = statistics.moments(name, *shape)?;
            let every = moments.len().div_ceil(SAMPLES).max(1);
            moments
                .iter()
                .step_by(every)
                .for_each(|m| hash.add(&m.to_le_bytes()));
        }
        Ok(format!("{:016x}", hash.0))
    }
}

/// A hash that is the same everywhere and always (Fowler, Noll and Vo, FNV-1a of 64 bits): nothing secret depends on it.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// So many pieces of eight bytes, evenly spread.
    fn sampled(&mut self, bytes: &[u8]) {
        const PIECE: usize = 8;
        let every = (bytes.len() / SAMPLES).next_multiple_of(PIECE).max(PIECE);
        for piece in bytes.chunks(every) {
            self.add(&piece[..piece.len().min(PIECE)]);
        }
        self.add(&(bytes.len() as u64).to_le_bytes());
    }
}
