//! The end of training: palettes, a report, a file.

use std::collections::HashMap;
use std::path::Path;

use palettizer_coreml::report::{Status, WeightReport};
use palettizer_palette::{DkmSpec, Palette};
use palettizer_torch::{Content, DenseTensor, ElementType};

use crate::{Checkpoint, CheckpointError, Report, SaveOptions};

/// What training came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DkmOutcome<'a> {
    /// Every weight by its name: its palette, or itself where it is not palettized. This is what
    /// [`Checkpoint::write`] takes, with the model's other tensors beside it.
    pub contents: Vec<(String, Content<'a>)>,
    /// What became of every weight, and why. Its bytes are those of the weights.
    pub report: Report,
}

impl DkmOutcome<'_> {
    /// Writes what a checkpoint holds, with these weights in the place of its own, to the `.safetensors` file `out`.
    ///
    /// # Errors
    /// [`CheckpointError::UnknownTensor`] for a weight that is not in the checkpoint, [`CheckpointError::BadTensor`] for one that
    /// has another shape there, and what reading and writing may give. Then `out` is as it was before.
    pub fn write_over(
        &self,
        checkpoint: &Checkpoint,
        out: impl AsRef<Path>,
        options: SaveOptions,
    ) -> Result<(), CheckpointError> {
        let mut own = HashMap::new();
        for (name, content) in &self.contents {
            let (found, expected) = (shape(&checkpoint.get(name)?).to_vec(), shape(content));
            if found != expected {
                return Err(CheckpointError::BadTensor {
                    name: name.clone(),
                    what: format!("its shape is {expected:?}, and in the checkpoint {found:?}"),
                });
            }
            own.insert(name.as_str(), content);
        }
        let mut contents = Vec::new();
        for name in checkpoint.names() {
            let content = match own.get(name) {
                Some(&content) => content.clone(),
                None => checkpoint.get(name)?,
            };
            contents.push((name, content));
        }
        Checkpoint::write(out, &contents, &checkpoint.metadata(), options)
    }
}

fn shape<'c>(content: &'c Content<'_>) -> &'c [usize] {
    match content {
        Content::Dense(tensor) => &tensor.shape,
        Content::Palette(palette) => &palette.shape,
    }
}

/// A weight as it is, for the file.
pub(super) fn dense<'a>(shape: &[usize], values: &'a [f32]) -> Content<'a> {
    Content::Dense(DenseTensor::new(
        ElementType::F32,
        shape.to_vec(),
        bytemuck::cast_slice(values),
    ))
}

/// The report's row of a palettized weight.
pub(super) fn palettized(name: &str, spec: &DkmSpec, palette: &Palette) -> WeightReport {
    let granularity = match spec.group_size {
        None => "per_tensor",
        Some(_) => "per_grouped_channel",
    };
    let error = palette.error;
    let snr = error.snr_db();
    let mut row = untouched(name, &palette.shape);
    row.status = Status::Compressed;
    row.nbits = Some(palette.nbits.bits());
    row.mode = Some("kmeans".to_owned());
    row.granularity = Some(granularity.to_owned());
    row.group_size = spec.group_size;
    row.cluster_dim = Some(spec.cluster_dim);
    row.luts = Some(palette.luts());
    row.bytes_after = palette.stored_bytes() as u64;
    row.mse = Some(error.mse());
    row.snr_db = snr.is_finite().then_some(snr);
    row
}

/// The report's row of a weight that stays as it is.
pub(super) fn skipped(name: &str, shape: &[usize], reason: String) -> WeightReport {
    let mut row = untouched(name, shape);
    row.reason = Some(reason);
    row
}

fn untouched(name: &str, shape: &[usize]) -> WeightReport {
    let bytes = (shape.iter().product::<usize>() * size_of::<f32>()) as u64;
    let (name, dtype) = (name.to_owned(), ElementType::F32.shown());
    WeightReport::untouched(name, shape.to_vec(), dtype, bytes)
}
