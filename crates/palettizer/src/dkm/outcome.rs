//! The end of training: palettes, a report, a file.

use std::collections::HashMap;
use std::path::Path;

use palettizer_palette::{DkmSpec, Granularity, Mode, Palette, PaletteSpec};
use palettizer_pipeline::{Fate, Figures, WeightReport};
use palettizer_safetensors::{Content, DenseTensor, ElementType};

use crate::safetensors::{Checkpoint, Error};
use crate::{Report, SaveOptions};

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
    /// [`Error::UnknownTensor`] for a weight that is not in the checkpoint, [`Error::BadTensor`] for one that
    /// has another shape there, and what reading and writing may give. Then `out` is as it was before.
    pub fn write_over(
        &self,
        checkpoint: &Checkpoint,
        out: impl AsRef<Path>,
        options: SaveOptions,
    ) -> Result<(), Error> {
        let mut own = HashMap::new();
        for (name, content) in &self.contents {
            let (found, expected) = (shape(&checkpoint.get(name)?).to_vec(), shape(content));
            if found != expected {
                return Err(Error::BadTensor {
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
        None => Granularity::PerTensor,
        Some(group_size) => Granularity::PerGroupedChannel {
            group_size,
            channel_axis: None,
        },
    };
    let spec = PaletteSpec::new(Mode::Kmeans(spec.nbits))
        .with_granularity(granularity)
        .with_cluster_dim(spec.cluster_dim);
    let (nbits, bytes) = (palette.nbits.bits(), palette.stored_bytes() as u64);
    let mut figures = Figures::new(&spec, nbits, palette.luts(), &palette.error, bytes);
    // Training minimises the loss: nothing is known of the optimum of the squared error.
    figures.optimality_gap = None;
    row(name, &palette.shape, Fate::Compressed(figures))
}

/// The report's row of a weight that stays as it is.
pub(super) fn skipped(name: &str, shape: &[usize], reason: String) -> WeightReport {
    let refused = false;
    row(name, shape, Fate::Skipped { reason, refused })
}

fn row(name: &str, shape: &[usize], fate: Fate) -> WeightReport {
    let bytes = (shape.iter().product::<usize>() * size_of::<f32>()) as u64;
    WeightReport::new(name, shape, ElementType::F32.shown(), bytes, fate)
}
