//! Curves in files: what the forms of weights cost, kept for the next budget.

use super::Curves;
use crate::{Error, PipelineError, SaveOptions, StagedOutput};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// The largest file of curves that is read: enough for a hundred thousand weights.
const MAX_BYTES: u64 = 1 << 28;

/// The curves in a JSON file; `None` if there is no file.
///
/// ```
/// assert!(palettizer::budget::read_curves("missing.json")?.is_none());
/// # Ok::<(), palettizer::Error>(())
/// ```
///
/// # Errors
/// What reading gives, and [`PipelineError::Budget`] for what is no file of curves.
pub fn read_curves(path: impl AsRef<Path>) -> Result<Option<Curves>, Error> {
    let path = path.as_ref();
    let bad = |what: String| {
        Error::from(PipelineError::Budget {
            what: format!(
                "{}: no file of curves: {what}; name another, or remove it to have them made again",
                path.display()
            ),
        })
    };
    let file = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PipelineError::io(path, error).into()),
        Ok(found) if !found.is_file() => return Err(bad("it is no regular file".to_owned())),
        Ok(_) => File::open(path).map_err(|error| PipelineError::io(path, error))?,
    };
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| match error.kind() {
        ErrorKind::InvalidData => bad("it is no text".to_owned()),
        _ => PipelineError::io(path, error).into(),
    })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(bad(format!("it has more than {MAX_BYTES} bytes")));
    }
    let curves = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    Ok(Some(curves))
}

/// Writes curves to a JSON file in one step, in the place of one that is there.
///
/// # Errors
/// What writing gives; then the old file is as it was.
pub fn write_curves(path: impl AsRef<Path>, curves: &Curves) -> Result<(), Error> {
    let path = path.as_ref();
    let staged = StagedOutput::file(path, SaveOptions::overwriting(true))?;
    let text =
        serde_json::to_string(curves).map_err(|error| PipelineError::io(path, error.into()))?;
    Ok(staged.commit_bytes((text + "\n").as_bytes())?)
}
