//! Differentiable k-means for any training loop: a palettizer over named `f32` slices, without a framework.
//!
//! In training, each weight is replaced by its *soft weight* ([`forward`](DkmPalettizer::forward)), and the gradient of the loss
//! for that is taken back to the weight ([`backward`](DkmPalettizer::backward)); the optimizer is the caller's.
//! [`step`](DkmPalettizer::step) counts milestones. [`assign`](DkmPalettizer::assign) gives the weight of evaluation, and
//! [`finalize`](DkmPalettizer::finalize) the palettes, which [`Checkpoint::write`](crate::safetensors::Checkpoint::write) writes.
//!
//! The centroids of a weight move on with the first forward after it has changed. For the same values a forward gives the same
//! soft weight, however often it is called: gradients may be accumulated, and forwards made again.
//!
//! ```
//! use palettizer::dkm::{DkmConfig, DkmPalettizer, DkmSpec, Nbits};
//!
//! // Weights that are to come near a target, in two bits.
//! let target: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
//! let mut weights = vec![0.1; 64];
//! weights.iter_mut().step_by(2).for_each(|w| *w = -0.1);
//! weights.iter_mut().step_by(5).for_each(|w| *w = 0.3);
//! weights.iter_mut().step_by(7).for_each(|w| *w = -0.3);
//! let spec = DkmSpec { nbits: Nbits::B2, temperature: Some(0.05), ..DkmSpec::default() };
//! let config = DkmConfig { spec, weight_threshold: 0, ..DkmConfig::default() };
//! let mut palettizer = DkmPalettizer::new([("fc.weight", [8, 8], config)])?;
//!
//! let (mut soft, mut gradient) = (vec![0.0; 64], vec![0.0; 64]);
//! for _ in 0..50 {
//!     palettizer.forward("fc.weight", &weights, &mut soft)?;
//!     let loss: Vec<f32> = soft.iter().zip(&target).map(|(w, t)| w - t).collect();
//!     palettizer.backward("fc.weight", &weights, &loss, &mut gradient)?;
//!     weights.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= 0.1 * g);
//!     palettizer.step();
//! }
//! let done = palettizer.finalize([("fc.weight", weights.as_slice())])?;
//! assert_eq!(done.report.weights[0].figures().unwrap().nbits, 2);
//! # Ok::<(), palettizer::dkm::DkmError>(())
//! ```
//!
//! Source: Cho et al., DKM: Differentiable k-means clustering layer for neural network compression, arXiv 2108.12659.

mod config;
mod error;
mod outcome;
mod state;
mod weight;

use std::collections::HashMap;
use std::time::Instant;

pub use palettizer_palette::Refusal;
pub use palettizer_palette::{DkmLut, DkmMode, DkmSpec, Nbits, Palette, ScaleScheme};
use palettizer_safetensors::Content;

use crate::Report;
use config::NotPalettized;
pub use config::{DkmConfig, DkmConfigs};
pub use error::DkmError;
pub use outcome::DkmOutcome;
pub use state::{DkmState, DkmWeightState};
use weight::{Backward, Weight};

/// A weight as it was named, and what is done with it.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    shape: Vec<usize>,
    fate: Result<Weight, NotPalettized>,
}

/// Palettizes weights while they are trained. See the [module](self) for a loop.
///
/// Values are row-major; axis 0 is that of the output channels.
#[derive(Clone, Debug)]
pub struct DkmPalettizer {
    steps: u64,
    weights: Vec<Named>,
    places: HashMap<String, usize>,
}

impl DkmPalettizer {
    /// Decides for each weight, given its name, its shape and its configuration (or several, or `None` to leave it alone).
    ///
    /// What does not suit a weight, such as a group size that does not divide, leaves it alone: the report of
    /// [`finalize`](Self::finalize) has the reason.
    ///
    /// # Errors
    /// [`DkmError::Twice`], and [`DkmError::Spec`] for settings that no weight can be palettized by.
    ///
    /// ```
    /// use palettizer::dkm::{DkmConfig, DkmConfigs, DkmPalettizer};
    ///
    /// let palettizer = DkmPalettizer::new([
    ///     ("fc1.weight", [128, 64], DkmConfigs::from(DkmConfig::default())),
    ///     ("fc2.weight", [10, 128], DkmConfigs::from(None)),
    /// ])?;
    /// assert!(palettizer.is_palettized("fc1.weight")? && !palettizer.is_palettized("fc2.weight")?);
    /// # Ok::<(), palettizer::dkm::DkmError>(())
    /// ```
    pub fn new<N, S, C>(weights: impl IntoIterator<Item = (N, S, C)>) -> Result<Self, DkmError>
    where
        N: Into<String>,
        S: AsRef<[usize]>,
        C: Into<DkmConfigs>,
    {
        let mut made = DkmPalettizer {
            steps: 0,
            weights: Vec::new(),
            places: HashMap::new(),
        };
        for (name, shape, configs) in weights {
            let (name, shape) = (name.into(), shape.as_ref().to_vec());
            let fate = match configs.into().choose(&shape) {
                Ok(Ok((dkm, milestone))) => Ok(Weight::new(&name, dkm, milestone)),
                Ok(Err(reason)) => Err(reason),
                Err(source) => return Err(DkmError::Spec { name, source }),
            };
            let place = made.weights.len();
            if made.places.insert(name.clone(), place).is_some() {
                return Err(DkmError::Twice { name });
            }
            made.weights.push(Named { name, shape, fate });
        }
        Ok(made)
    }

    /// Counts a step of training. Weights with milestone m begin to be palettized with the call after m others.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    /// Whether a weight is palettized now: its configuration asks for it, and its milestone has come.
    ///
    /// # Errors
    /// [`DkmError::UnknownWeight`].
    pub fn is_palettized(&self, name: &str) -> Result<bool, DkmError> {
        let named = &self.weights[self.place(name)?];
        Ok(named.enabled(self.steps).is_some())
    }

    /// Writes the soft weight to `out`; the values themselves while the weight is not palettized.
    ///
    /// The first forward of a palettized weight finds its centroids.
    ///
    /// # Errors
    /// [`DkmError::UnknownWeight`], [`DkmError::Length`] and [`DkmError::NonFinite`]. Then what is known of the weight is as it was.
    pub fn forward(&mut self, name: &str, values: &[f32], out: &mut [f32]) -> Result<(), DkmError> {
        let (place, steps) = (self.place(name)?, self.steps);
        let named = &mut self.weights[place];
        named.check_values(values)?;
        named.demand("out", out.len())?;
        let done = match &mut named.fate {
            Ok(weight) if weight.enabled(steps) => weight.forward(values, out),
            fate => {
                out.copy_from_slice(values);
                match fate {
                    Ok(weight) => weight.fix_scale(values),
                    Err(_) => Ok(()),
                }
            }
        };
        done.map_err(|refusal| self.weights[place].failed(refusal))
    }

    /// Writes the gradient for the weight to `out`, given `grad`, that for its soft weight. `values` are those of the last forward.
    ///
    /// # Errors
    /// [`DkmError::UnknownWeight`], [`DkmError::Length`], [`DkmError::NoForward`] and [`DkmError::OtherValues`].
    pub fn backward(
        &self,
        name: &str,
        values: &[f32],
        grad: &[f32],
        out: &mut [f32],
    ) -> Result<(), DkmError> {
        let named = &self.weights[self.place(name)?];
        named.demand("values", values.len())?;
        named.demand("grad", grad.len())?;
        named.demand("out", out.len())?;
        let Some(weight) = named.enabled(self.steps) else {
            out.copy_from_slice(grad);
            return Ok(());
        };
        let name = name.to_owned();
        match weight.backward(values, grad, out) {
            Ok(Backward::Done) => Ok(()),
            Ok(Backward::NoForward) => Err(DkmError::NoForward { name }),
            Ok(Backward::OtherValues) => Err(DkmError::OtherValues { name }),
            Err(refusal) => Err(named.failed(refusal)),
        }
    }

    /// Writes the weight of evaluation to `out`, every vector at its nearest centroid: what [`finalize`](Self::finalize) makes of it.
    ///
    /// # Errors
    /// [`DkmError::UnknownWeight`], [`DkmError::Length`], [`DkmError::NonFinite`] and [`DkmError::Centroids`].
    pub fn assign(&self, name: &str, values: &[f32], out: &mut [f32]) -> Result<(), DkmError> {
        let named = &self.weights[self.place(name)?];
        named.check_values(values)?;
        named.demand("out", out.len())?;
        let Some(weight) = named.enabled(self.steps) else {
            out.copy_from_slice(values);
            return Ok(());
        };
        let done = weight.assign(values, out);
        done.map_err(|refusal| named.failed(refusal))
    }

    /// The palettes of all weights, given the values of each.
    ///
    /// # Errors
    /// [`DkmError::UnknownWeight`], [`DkmError::Twice`], [`DkmError::Missing`], [`DkmError::Length`], [`DkmError::NonFinite`] and
    /// [`DkmError::Centroids`].
    pub fn finalize<'a, N: AsRef<str>>(
        &self,
        values: impl IntoIterator<Item = (N, &'a [f32])>,
    ) -> Result<DkmOutcome<'a>, DkmError> {
        let start = Instant::now();
        let mut given: HashMap<usize, &'a [f32]> = HashMap::new();
        for (name, values) in values {
            let name = name.as_ref();
            if given.insert(self.place(name)?, values).is_some() {
                let name = name.to_owned();
                return Err(DkmError::Twice { name });
            }
        }
        let (mut contents, mut rows) = (Vec::new(), Vec::new());
        for (place, named) in self.weights.iter().enumerate() {
            let name = || named.name.clone();
            let values = *given
                .get(&place)
                .ok_or_else(|| DkmError::Missing { name: name() })?;
            named.check_values(values)?;
            let reason = match &named.fate {
                Ok(weight) if weight.enabled(self.steps) => {
                    let palette = weight
                        .palette(values)
                        .map_err(|refusal| named.failed(refusal))?;
                    rows.push(outcome::palettized(
                        &named.name,
                        weight.dkm.spec(),
                        &palette,
                    ));
                    contents.push((name(), Content::Palette(Box::new(palette))));
                    continue;
                }
                Ok(weight) => NotPalettized::Early {
                    milestone: weight.milestone,
                    steps: self.steps,
                },
                Err(reason) => reason.clone(),
            };
            rows.push(outcome::skipped(
                &named.name,
                &named.shape,
                reason.to_string(),
            ));
            contents.push((name(), outcome::dense(&named.shape, values)));
        }
        let report = Report::of_weights(rows, start);
        Ok(DkmOutcome { contents, report })
    }

    /// All that is known beyond the settings, to be saved.
    pub fn state(&self) -> DkmState {
        let palettized = self.weights.iter();
        let states = palettized.filter_map(|named| {
            let weight = named.fate.as_ref().ok()?;
            Some((named.name.clone(), weight.state.clone()))
        });
        DkmState {
            steps: self.steps,
            weights: states.collect(),
        }
    }

    /// Takes up a saved state. On an error nothing has changed.
    ///
    /// # Errors
    /// [`DkmError::UnknownWeight`], [`DkmError::Missing`] and [`DkmError::State`].
    pub fn restore(&mut self, mut state: DkmState) -> Result<(), DkmError> {
        let mut restored = self.clone();
        for named in &mut restored.weights {
            let Ok(weight) = &mut named.fate else {
                continue;
            };
            let name = || named.name.clone();
            let own = state.weights.remove(&named.name);
            let own = own.ok_or_else(|| DkmError::Missing { name: name() })?;
            weight
                .restore(own)
                .map_err(|what| DkmError::State { name: name(), what })?;
        }
        if let Some((name, _)) = state.weights.pop_first() {
            self.place(&name)?;
            let what = "it is not palettized here".to_owned();
            return Err(DkmError::State { name, what });
        }
        restored.steps = state.steps;
        *self = restored;
        Ok(())
    }

    fn place(&self, name: &str) -> Result<usize, DkmError> {
        self.places.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self
                .weights
                .iter()
                .map(|named| named.name.as_str())
                .collect();
            DkmError::UnknownWeight {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
    }
}

impl Named {
    /// The weight, if it is palettized after so many steps.
    fn enabled(&self, steps: u64) -> Option<&Weight> {
        let weight = self.fate.as_ref().ok();
        weight.filter(|weight| weight.enabled(steps))
    }

    fn demand(&self, what: &'static str, found: usize) -> Result<(), DkmError> {
        let expected = self.shape.iter().product();
        match found == expected {
            true => Ok(()),
            false => Err(DkmError::Length {
                name: self.name.clone(),
                shape: self.shape.clone(),
                what,
                expected,
                found,
            }),
        }
    }

    /// Checks the values of a weight. Of one that is left alone they may be anything.
    fn check_values(&self, values: &[f32]) -> Result<(), DkmError> {
        self.demand("values", values.len())?;
        // One of them would make all centroids of its group NaN for good.
        let count = values.iter().filter(|value| !value.is_finite()).count();
        match count > 0 && self.fate.is_ok() {
            false => Ok(()),
            true => Err(DkmError::NonFinite {
                name: self.name.clone(),
                count,
                elements: values.len(),
            }),
        }
    }

    fn failed(&self, source: Refusal) -> DkmError {
        DkmError::Centroids {
            name: self.name.clone(),
            source,
        }
    }
}
