//! What is asked for each weight.

use palettizer_palette::{Dkm, DkmSpec, Refusal, SpecError};

use crate::DEFAULT_WEIGHT_THRESHOLD;

/// How a weight is palettized, and when.
///
/// ```
/// use palettizer::dkm::{DkmConfig, DkmSpec, Nbits};
///
/// let spec = DkmSpec { nbits: Nbits::B2, ..DkmSpec::default() };
/// let config = DkmConfig { spec, milestone: 100, ..DkmConfig::default() };
/// assert_eq!(config.weight_threshold, 2048);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DkmConfig {
    /// How.
    pub spec: DkmSpec,
    /// Calls of [`step`](super::DkmPalettizer::step) before the one that begins it; 0: from the start.
    pub milestone: u64,
    /// Only a weight with more elements is palettized.
    pub weight_threshold: usize,
}

/// Four bits from the start, for weights with more than [`DEFAULT_WEIGHT_THRESHOLD`] elements.
impl Default for DkmConfig {
    fn default() -> Self {
        DkmConfig {
            spec: DkmSpec::default(),
            milestone: 0,
            weight_threshold: DEFAULT_WEIGHT_THRESHOLD,
        }
    }
}

/// The configurations that a weight may be palettized by. Of those that it suits, the one with the highest
/// `weight_threshold` that it exceeds is taken, and of equal ones the last; with none, it is skipped.
///
/// ```
/// use palettizer::dkm::{DkmConfig, DkmConfigs};
///
/// let config = DkmConfig::default();
/// let large = DkmConfig { weight_threshold: 100_000, ..config.clone() };
/// let all: [DkmConfigs; 3] = [None.into(), config.clone().into(), [config, large].into()];
/// # let _ = all;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DkmConfigs(Vec<DkmConfig>);

impl From<DkmConfig> for DkmConfigs {
    fn from(config: DkmConfig) -> Self {
        DkmConfigs(vec![config])
    }
}

impl From<Option<DkmConfig>> for DkmConfigs {
    fn from(config: Option<DkmConfig>) -> Self {
        DkmConfigs(config.into_iter().collect())
    }
}

impl From<Vec<DkmConfig>> for DkmConfigs {
    fn from(configs: Vec<DkmConfig>) -> Self {
        DkmConfigs(configs)
    }
}

impl<const N: usize> From<[DkmConfig; N]> for DkmConfigs {
    fn from(configs: [DkmConfig; N]) -> Self {
        DkmConfigs(configs.into())
    }
}

/// Why a weight is left as it is; the text stands in the report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum NotPalettized {
    #[error("the configuration skips it")]
    Null,
    #[error("{elements} elements, not more than the weight_threshold of {threshold}")]
    Small { elements: usize, threshold: usize },
    #[error("its milestone of {milestone} steps has not come: {steps} steps have been counted")]
    Early { milestone: u64, steps: u64 },
    #[error("{0}")]
    Refused(Refusal),
}

impl DkmConfigs {
    /// What is done with a weight of this shape: how, and from which milestone on. Or else why nothing is.
    ///
    /// # Errors
    /// Settings that no weight can be palettized by.
    pub(super) fn choose(
        &self,
        shape: &[usize],
    ) -> Result<Result<(Dkm, u64), NotPalettized>, SpecError> {
        let elements = shape.iter().product();
        let mut configs: Vec<&DkmConfig> = self.0.iter().collect();
        configs.sort_by_key(|config| config.weight_threshold);
        let mut reason = match configs.first() {
            None => NotPalettized::Null,
            Some(&&DkmConfig {
                weight_threshold: threshold,
                ..
            }) => NotPalettized::Small {
                elements,
                threshold,
            },
        };
        for config in configs
            .iter()
            .rev()
            .filter(|config| elements > config.weight_threshold)
        {
            match Dkm::new(config.spec.clone(), shape) {
                Ok(dkm) => return Ok(Ok((dkm, config.milestone))),
                Err(Refusal::Spec(error)) => return Err(error),
                Err(refusal) => reason = NotPalettized::Refused(refusal),
            }
        }
        Ok(Err(reason))
    }
}
