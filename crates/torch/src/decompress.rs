//! A palettized checkpoint made dense again.

use crate::Error;
use crate::checkpoint::{Checkpoint, Kind, foreign_metadata};
use crate::compress::build;
use crate::output;
use crate::write::{Piece, Source};
use palettizer_coreml::{Decompressed, Progress};
use std::collections::BTreeMap;
use std::path::Path;

impl Checkpoint {
    /// Makes every palettized weight dense: to `out`, a file if the checkpoint is one, or else a folder. All else is
    /// copied.
    ///
    /// # Errors
    /// [`Error::OutputKind`], [`Error::Compact`] if a palette cannot be read, and in [`Error::Model`] what writing may
    /// give. Then `out` is as it was before.
    pub fn decompress_to(
        &self,
        out: &Path,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<Decompressed, Error> {
        let opened = &self.0;
        let beside = output::prepare(opened, out, overwrite)?;
        let mut pieces: Vec<Vec<Piece<'_>>> = opened.shards.iter().map(|_| Vec::new()).collect();
        let (mut weights, mut bytes) = (0, 0_u64);
        for item in &opened.items {
            let shard = &opened.shards[item.shard];
            pieces[item.shard].push(match &item.kind {
                Kind::Dense(at) => Piece::copy(shard, opened.entry(item, *at)),
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
        let shards = opened.shards.iter().zip(pieces).map(|(shard, pieces)| {
            let metadata: BTreeMap<String, String> = foreign_metadata(shard).collect();
            Ok((metadata, pieces))
        });
        let built = opened.settle(build(opened, shards, &beside, progress));
        output::named(&beside, built)?;
        progress.finish();
        beside.put()?;
        Ok(Decompressed::new(weights))
    }
}
