//! The JSON report: checked before the work starts, written beside its place, renamed when it is whole.

use std::path::Path;

use palettizer::{Report, SaveOptions, StagedOutput};

use crate::failure::Failure;
use crate::output::{Stream, print};

/// Where the report goes.
pub(crate) enum ReportFile {
    /// Nowhere.
    None,
    /// `-`.
    Stdout,
    /// A file.
    File(StagedOutput),
}

impl ReportFile {
    /// Finds out now, and not after the work, whether there can be such a file. An earlier report is replaced; for any
    /// other file that takes `force`.
    pub(crate) fn prepare(path: Option<&Path>, force: bool) -> Result<Self, Failure> {
        match path {
            None => Ok(ReportFile::None),
            Some(path) if path == Path::new("-") => Ok(ReportFile::Stdout),
            Some(path) => {
                let overwrite = SaveOptions::overwriting(force || Report::is_at(path));
                Ok(ReportFile::File(StagedOutput::file(path, overwrite)?))
            }
        }
    }

    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, ReportFile::Stdout)
    }

    /// Writes the report and puts it in its place.
    pub(crate) fn write(self, report: &Report) -> Result<(), Failure> {
        let text = || match serde_json::to_string_pretty(report) {
            Ok(text) => Ok(text + "\n"),
            Err(error) => Err(Failure::about("the report", error)),
        };
        match self {
            ReportFile::None => Ok(()),
            ReportFile::Stdout => print(Stream::Out, &text()?),
            ReportFile::File(staged) => staged.commit_bytes(text()?.as_bytes()).map_err(|error| {
                Failure::about("the model was written, but not its report", error)
            }),
        }
    }
}
