//! The report, as JSON or as a page: checked before the work starts, written beside its place, renamed when it is whole.

use std::path::Path;

use palettizer::{Report, SaveOptions, StagedOutput};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Stream, print};
use crate::page::{self, Page};

/// Where the report goes.
pub(crate) enum ReportFile {
    /// Nowhere.
    None,
    /// `-`.
    Stdout,
    /// A file of JSON.
    Json(StagedOutput),
    /// A page.
    Page(StagedOutput),
}

impl ReportFile {
    /// Finds out now, and not after the work, whether there can be such a file. An earlier report is replaced; for any
    /// other file that takes `force`.
    pub(crate) fn prepare(path: Option<&Path>, force: bool) -> Result<Self, Failure> {
        Self::prepare_of(path, force, |path| Report::is_at(path))
    }

    /// As [`prepare`](Self::prepare), where `ours` tells an earlier report as JSON.
    pub(crate) fn prepare_of(
        path: Option<&Path>,
        force: bool,
        ours: impl Fn(&Path) -> bool,
    ) -> Result<Self, Failure> {
        match path {
            None => Ok(ReportFile::None),
            Some(path) if path == Path::new("-") => Ok(ReportFile::Stdout),
            Some(path) if page::is_named(path) => {
                let overwrite = SaveOptions::overwriting(force || page::is_at(path));
                Ok(ReportFile::Page(StagedOutput::file(path, overwrite)?))
            }
            Some(path) => {
                let overwrite = SaveOptions::overwriting(force || ours(path));
                Ok(ReportFile::Json(StagedOutput::file(path, overwrite)?))
            }
        }
    }

    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, ReportFile::Stdout)
    }

    /// Writes the report and puts it in its place. `page` makes a page of it, if that was asked for.
    pub(crate) fn write<'a>(
        self,
        report: &impl Serialize,
        page: impl FnOnce() -> Result<Page<'a>, Failure>,
    ) -> Result<(), Failure> {
        let text = || match serde_json::to_string_pretty(report) {
            Ok(text) => Ok(text + "\n"),
            Err(error) => Err(Failure::about("the report", error)),
        };
        let (staged, text) = match self {
            ReportFile::None => return Ok(()),
            ReportFile::Stdout => return print(Stream::Out, &text()?),
            ReportFile::Json(staged) => (staged, text()?),
            ReportFile::Page(staged) => (staged, page()?.html()?),
        };
        staged.commit_bytes(text.as_bytes()).map_err(|error| {
            Failure::about(
                "the work was done, but its report could not be written",
                error,
            )
        })
    }
}
