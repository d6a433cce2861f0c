//! What a checkpoint holds: sizes, sparsity, distinct values, and how weights are palettized already.

use crate::Error;
use crate::checkpoint::{Checkpoint, Item, Kind};
use crate::compact::{Role, Stored};
use palettizer_palette::decode::DenseError;
use palettizer_palette::{Tensor, statistics};
use palettizer_pipeline::PaletteInfo;
use serde::Serialize;

/// One tensor of a checkpoint, or one palettized weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The file that it is in.
    pub file: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type, when it is dense.
    pub dtype: String,
    /// The number of elements.
    pub elements: u64,
    /// Bytes that it takes, palettized or not.
    pub bytes: u64,
    /// The fraction of elements of a magnitude of at most 1e-12; `null` for a type that is never palettized, and for a
    /// scaled weight that would unfold to more than its file may.
    pub sparsity: Option<f64>,
    /// Distinct values; `null` where `sparsity` is.
    pub unique_values: Option<u64>,
    /// How it is palettized.
    pub palette: Option<PaletteInfo>,
}

impl Checkpoint {
    /// Every tensor and palettized weight with more than `threshold` elements, in the order of the checkpoint.
    ///
    /// # Errors
    /// [`Error::Compact`] if a palettized weight cannot be made dense.
    pub fn weights(&self, threshold: usize) -> Result<Vec<TensorInfo>, Error> {
        let infos = self.0.items.iter().map(|item| self.info(item, threshold));
        self.0.settle(infos.filter_map(Result::transpose).collect())
    }

    fn info(&self, item: &Item, threshold: usize) -> Result<Option<TensorInfo>, Error> {
        let shard = &self.0.shards[item.shard];
        let (shape, element, bytes) = self.0.extent(item);
        let elements = match shape.contains(&0) {
            true => 0,
            false => shape.iter().product(),
        };
        if elements <= threshold {
            return Ok(None);
        }
        let found = match (&item.kind, element.palette_dtype()) {
            (_, None) => None,
            (Kind::Dense(at), Some(dtype)) => {
                let entry = &shard.header.tensors[*at];
                let tensor = Tensor::new(dtype, shape, shard.data(entry)).ok();
                let found = tensor.as_ref().map(statistics);
                shard.release(entry);
                found
            }
            (Kind::Palette(stored), Some(dtype)) => {
                let damaged = |error: DenseError| Error::compact(shard, &item.name, error);
                let palette = stored.palette(shard);
                stored.entries(shard).for_each(|entry| shard.release(entry));
                if palette.scale.is_none() {
                    Some(palette.statistics().map_err(damaged)?)
                } else if self.0.unfolds(&item.name, stored.dense_len()).is_ok() {
                    let dense = palette.try_decompress().map_err(damaged)?;
                    let tensor = Tensor::new(dtype, shape, &dense).ok();
                    tensor.as_ref().map(statistics)
                } else {
                    None
                }
            }
        };
        Ok(Some(TensorInfo {
            name: item.name.clone(),
            file: shard.name(),
            shape: shape.to_vec(),
            dtype: element.shown().to_owned(),
            elements: elements as u64,
            bytes,
            sparsity: found.map(|found| found.zeros as f64 / elements.max(1) as f64),
            unique_values: found.map(|found| found.distinct as u64),
            palette: match &item.kind {
                Kind::Palette(stored) => palette(stored),
                Kind::Dense(_) => None,
            },
        }))
    }
}

fn palette(stored: &Stored) -> Option<PaletteInfo> {
    let lut_dtype = stored.lut_dtype.shown();
    PaletteInfo::of_tables(
        &stored.lut_shape,
        stored.shape(),
        lut_dtype,
        stored.has(Role::Scale),
    )
}
