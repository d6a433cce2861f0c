//! Where a new checkpoint goes: a file or a folder, as the checkpoint that it is made of.

use crate::Error;
use crate::checkpoint::{EXTENSION, Opened};
use crate::index;
use palettizer_pipeline::staged_output::{SaveOptions, StagedOutput};
use std::path::Path;

/// Prepares to write a checkpoint like `like` at `out`.
///
/// # Errors
/// [`Error::OutputKind`] if the name is one of another kind, and what [`StagedOutput::new`] gives.
pub(crate) fn prepare(
    like: &Opened,
    out: &Path,
    options: SaveOptions,
) -> Result<StagedOutput, Error> {
    match &like.index {
        None => file(out, options),
        Some(_) => folder(out, options),
    }
}

/// Prepares to write a file.
pub(crate) fn file(out: &Path, options: SaveOptions) -> Result<StagedOutput, Error> {
    let kind = |what| {
        Err(Error::OutputKind {
            path: out.to_owned(),
            what,
        })
    };
    if !ends_in(out, EXTENSION) {
        return kind(
            "the output is a file like the input: expected a name that ends in .safetensors",
        );
    }
    Ok(StagedOutput::file(out, options)?)
}

fn folder(out: &Path, options: SaveOptions) -> Result<StagedOutput, Error> {
    if out.extension().is_some_and(|extension| {
        ["safetensors", "json", "mlpackage", "mlmodel"]
            .map(Some)
            .contains(&extension.to_str())
    }) {
        return Err(Error::OutputKind {
            path: out.to_owned(),
            what: "the output is a folder of shards like the input: expected the name of a folder",
        });
    }
    Ok(StagedOutput::folder(out, options, no_shards)?)
}

/// Why a folder of shards must not replace what is there.
fn no_shards(out: &Path) -> Option<String> {
    let Ok(entries) = std::fs::read_dir(out) else {
        return Some("this is no folder, where a folder should go".to_owned());
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    let other = names.find(|name| {
        let name = Path::new(name);
        !ends_in(name, EXTENSION) && !ends_in(name, index::SUFFIX)
    });
    other.map(|name| {
        format!(
            "this folder also holds {}, which would be lost; choose another",
            name.to_string_lossy()
        )
    })
}

fn ends_in(path: &Path, suffix: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().ends_with(suffix)
}
