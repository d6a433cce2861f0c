//! A package: its manifest, and the files that it leads to.
//!
//! An input is the manifest's length as a little-endian u32, the manifest, and the program; the weight file is whole.

use crate::support::{linear_model, manifest};
use palettizer_coreml::Model;
use palettizer_pipeline::staged_output::SaveOptions;
use std::fs;

/// Opens a package of these files.
pub(crate) fn read(data: &[u8]) -> bool {
    let Some((length, rest)) = data.split_first_chunk::<4>() else {
        return false;
    };
    let length = u32::from_le_bytes(*length) as usize;
    let (manifest, program) = rest.split_at(length.min(rest.len()));
    let folder = tempfile::tempdir().unwrap();
    let path = linear_model().write(&folder.path().join("m.mlpackage"));
    fs::write(path.join("Manifest.json"), manifest).unwrap();
    fs::write(path.join("Data/com.apple.CoreML/model.mlmodel"), program).unwrap();
    let Ok(model) = Model::open(&path) else {
        return false;
    };
    // What was opened can be written, and is then opened again.
    let out = folder.path().join("out.mlpackage");
    model.save(&out, SaveOptions::overwriting(false)).unwrap();
    Model::open(&out).unwrap();
    true
}

/// Valid packages.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let manifest = manifest().into_bytes();
    let length = (manifest.len() as u32).to_le_bytes();
    vec![[length.to_vec(), manifest, linear_model().model].concat()]
}
