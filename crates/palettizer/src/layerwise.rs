//! Tables and indices fitted to what a layer computes, not to its weights alone.
//!
//! The inputs of a layer are described by their second moments H = (1/T) Σ xxᵀ; what is minimized is how far the layer's outputs
//! move, Σ (w − ŵ)ᵀ H (w − ŵ) over its rows. A whole model takes a file of them, whose form `docs/statistics.md` describes:
//!
//! ```no_run
//! use palettizer::layerwise::{StatisticsOptions, statistics};
//! use palettizer::{Granularity, Mode, Model, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, SaveOptions};
//!
//! let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
//!     .with_granularity(Granularity::PerGroupedChannel { group_size: 1, channel_axis: None });
//! let config = OptimizationConfig::new()
//!     .with_global(OpPalettizerConfig::new(spec))
//!     .with_statistics(statistics("statistics.safetensors", StatisticsOptions::default())?);
//! let model = Model::open("model.safetensors")?;
//! model.palettize_to(&config, "small.safetensors", SaveOptions::default(), &())?;
//! # Ok::<(), palettizer::Error>(())
//! ```
//!
//! [`fit`] does it to one weight in memory.

use crate::safetensors::SafetensorsSensitivities;
use crate::{Error, PaletteSpec};
use palettizer_palette::{Context, palettize};
use std::path::Path;
use std::sync::Arc;

pub use palettizer_palette::{
    Layerwise, LayerwiseAlgorithm, LayerwiseFit, LayerwiseSettings, MomentsShape, Palette, Refusal,
    Tensor,
};
pub use palettizer_pipeline::{Statistics, StatisticsOptions};

/// The statistics in a safetensors file or a folder of them.
///
/// ```
/// use palettizer::layerwise::{StatisticsOptions, statistics};
///
/// let error = statistics("missing.safetensors", StatisticsOptions::default()).unwrap_err();
/// assert!(error.to_string().starts_with("missing.safetensors"));
/// ```
///
/// # Errors
/// As [`Checkpoint::open`](crate::safetensors::Checkpoint::open), and [`Statistics::new`].
pub fn statistics(path: impl AsRef<Path>, options: StatisticsOptions) -> Result<Statistics, Error> {
    let source = SafetensorsSensitivities::open(path)?;
    Ok(Statistics::new(Arc::new(source), options)?)
}

/// Palettizes one weight, whose output channels lie on `output_axis`, for the inputs of its layer.
///
/// Runs on the caller's rayon pool; the result does not depend on its size.
///
/// ```
/// use palettizer::layerwise::{Layerwise, LayerwiseSettings, MomentsShape, Tensor, fit};
/// use palettizer::{Dtype, Mode, Nbits, PaletteSpec};
///
/// // Sixteen outputs of eight inputs, which mostly go up and down together.
/// let weight: Vec<f32> = (0..128).map(|i| (i as f32 * 0.37).sin()).collect();
/// let inputs: Vec<Vec<f32>> = (0..100)
///     .map(|t| (0..8).map(|i| (t as f32).sin() + 0.2 * (t as f32 * (i + 2) as f32).cos()).collect())
///     .collect();
/// let mut second_moments = [0.0_f32; 64];
/// for x in &inputs {
///     for (i, row) in second_moments.chunks_exact_mut(8).enumerate() {
///         row.iter_mut().zip(x).for_each(|(sum, value)| *sum += x[i] * value / 100.0);
///     }
/// }
///
/// let bytes: Vec<u8> = weight.iter().flat_map(|w| w.to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[16, 8], &bytes)?;
/// let known = Layerwise {
///     moments: &second_moments,
///     shape: MomentsShape { row_runs: 1, blocks: 1, columns: 8 },
///     settings: LayerwiseSettings::default(),
/// };
/// let palette = fit(&tensor, 0, &PaletteSpec::new(Mode::Kmeans(Nbits::B2)), known)?;
/// let quality = palette.fit.as_ref().ok_or("fitted")?;
/// // Better than the clusters that it starts from.
/// assert!(quality.output_error() < quality.objective[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`palettizer_palette::palettize`].
pub fn fit(
    tensor: &Tensor<'_>,
    output_axis: usize,
    spec: &PaletteSpec,
    inputs: Layerwise<'_>,
) -> Result<Palette, Refusal> {
    let context = Context {
        output_axis: Some(output_axis),
        layerwise: Some(inputs),
        ..Context::default()
    };
    palettize(tensor, spec, &context)
}
