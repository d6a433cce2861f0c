//! A palettized checkpoint made dense again.

use crate::Error;
use crate::checkpoint::{Checkpoint, Kind};
use crate::compact::foreign;
use crate::compress::write_shards;
use crate::output;
use crate::write::{Piece, Source};
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{Decompressed, Progress};
use std::path::Path;

impl Checkpoint {
    /// Makes every palettized weight dense: to `out`, a file if the checkpoint is one, or else a folder. All else is
    /// copied.
    ///
    /// # Errors
    /// [`Error::OutputKind`], [`Error::Compact`] if a palette cannot be read, and in [`Error::Pipeline`] what writing may
    /// give. Then `out` is as it was before.
    pub fn decompress_to(
        &self,
        out: impl AsRef<Path>,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Decompressed, Error> {
        let opened = &self.0;
        let staged = output::prepare(opened, out.as_ref(), options)?;
        let mut pieces: Vec<Vec<Piece<'_>>> = opened.shards.iter().map(|_| Vec::new()).collect();
        let (mut weights, mut bytes) = (0, 0_u64);
        for item in &opened.items {
            let shard = &opened.shards[item.shard];
            pieces[item.shard].push(match &item.kind {
                Kind::Dense(at) => Piece::copy(&shard.bytes, &shard.header.tensors[*at]),
                Kind::Palette(stored) => {
                    let element = stored.dtype.into();
                    let shape = stored.shape().to_vec();
                    (weights, bytes) = (weights + 1, bytes + stored.dense_len());
                    opened.unfolds(&item.name, bytes)?;
                    Piece {
                        name: item.name.clone(),
                        element,
                        shape,
                        len: stored.dense_len() as usize,
                        source: Source::Palette(shard, stored),
                    }
                }
            });
        }
        progress.start(weights, bytes);
        let shards = opened
            .shards
            .iter()
            .zip(pieces)
            .map(|(shard, pieces)| Ok((foreign(&shard.header.metadata).collect(), pieces)));
        let built = opened.settle(write_shards(opened, shards, &staged, progress));
        staged.named(built)?;
        progress.finish();
        staged.commit()?;
        Ok(Decompressed::new(weights))
    }
}
