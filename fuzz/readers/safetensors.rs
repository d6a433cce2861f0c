//! A safetensors file: its header, and the palettized weights in it.

use crate::support::{compress, config, file, kmeans, tensors, weight};
use palettizer_palette::{LutDtype, Mode, Nbits, PaletteSpec};
use palettizer_safetensors::{Checkpoint, Content};

/// Opens the file, and makes dense what is palettized in it.
pub(crate) fn read(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, data).unwrap();
    let Ok(checkpoint) = Checkpoint::open(&path) else {
        return false;
    };
    for name in checkpoint.names() {
        // What was opened can be used, unless its indices are none of its tables.
        if let Ok(Content::Palette(palette)) = checkpoint.get(name) {
            drop(palette.try_decompress());
        }
    }
    drop(checkpoint.weights(0));
    true
}

/// Valid files: dense, and palettized in several forms.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.safetensors");
    std::fs::write(&path, file(&tensors(), &[("format", "pt")])).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut seeds = vec![
        std::fs::read(&path).unwrap(),
        file(&[weight("w", "F16", &[3, 4], 1)], &[]),
    ];
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3));
    let vectors = spec.clone().with_cluster_dim(2);
    for (at, config) in [
        kmeans(Nbits::B4),
        config(spec.with_per_channel_scale(true)),
        config(vectors.with_lut_dtype(LutDtype::Uint8)),
    ]
    .iter()
    .enumerate()
    {
        let out = folder.path().join(format!("{at}.safetensors"));
        compress(&checkpoint, config, &out).unwrap();
        seeds.push(std::fs::read(out).unwrap());
    }
    seeds
}
