//! How much each element of the weights matters: in files, and found from a program itself.

mod probe;

pub use probe::{SensitivityLoss, SensitivityOptions, WeightSensitivities, probe_sensitivities};

use crate::Error;
use crate::safetensors::SafetensorsSensitivities;
use palettizer_pipeline::{MissingSensitivity, Sensitivities};
use std::path::Path;
use std::sync::Arc;

/// The sensitivities in a safetensors file or a folder of them: for each weight, by its name, a tensor of its shape and
/// of type F16, BF16, F32 or F64.
///
/// ```
/// use palettizer::{MissingSensitivity, sensitivities};
///
/// let error = sensitivities("missing.safetensors", MissingSensitivity::Ones).unwrap_err();
/// assert!(error.to_string().starts_with("missing.safetensors"));
/// ```
///
/// # Errors
/// As [`Checkpoint::open`](crate::safetensors::Checkpoint::open).
pub fn sensitivities(
    path: impl AsRef<Path>,
    missing: MissingSensitivity,
) -> Result<Sensitivities, Error> {
    let source = SafetensorsSensitivities::open(path)?;
    Ok(Sensitivities::new(Arc::new(source), missing))
}
