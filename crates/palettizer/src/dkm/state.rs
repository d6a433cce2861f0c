//! What a palettizer knows, to be saved and taken up again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that a [`DkmPalettizer`](super::DkmPalettizer) knows beyond its settings: what a training run saves beside its weights to
/// go on as if it had never stopped, bit for bit. JSON keeps it exactly, and so does every format that keeps `f32` and `u64`.
///
/// ```
/// use palettizer::dkm::{DkmConfig, DkmPalettizer, DkmState};
///
/// let weights = || [("fc.weight", [64, 64], DkmConfig::default())];
/// let mut palettizer = DkmPalettizer::new(weights())?;
/// palettizer.step();
/// let saved = serde_json::to_string(&palettizer.state())?;
///
/// let mut resumed = DkmPalettizer::new(weights())?;
/// resumed.restore(serde_json::from_str::<DkmState>(&saved)?)?;
/// assert_eq!(resumed.state(), palettizer.state());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DkmState {
    /// Calls of [`step`](super::DkmPalettizer::step).
    pub steps: u64,
    /// The weights that are palettized, or will be, by name.
    pub weights: BTreeMap<String, DkmWeightState>,
}

/// What is known of one weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DkmWeightState {
    /// The centroids that the next step starts from, (group, cluster, element of a vector); empty before the first forward.
    pub centroids: Vec<f32>,
    /// Those that the last step started from.
    pub start: Vec<f32>,
    /// With a per-channel scale: that of each row; empty before the first forward.
    pub scale: Vec<f32>,
    /// The temperature of each group, where it is found by the weight; empty before the first forward.
    #[serde(default)]
    pub temperatures: Vec<f32>,
    /// A sum of the bits of the last forward's values.
    pub seen: u64,
    /// How often the centroids have moved on since they were seeded.
    pub moves: u64,
}
