//! The JSON report: checked before the work starts, written beside its place, renamed when it is whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use palettizer::Report;

use crate::failure::{Failure, print};
use crate::interrupt;

/// Where the report goes.
pub(crate) enum ReportFile {
    /// Nowhere.
    None,
    /// `-`.
    Stdout,
    /// A file.
    File(Unfinished),
}

impl ReportFile {
    /// Finds out now, and not after the work, whether there can be such a file.
    pub(crate) fn prepare(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            None => Ok(ReportFile::None),
            Some(path) if path == Path::new("-") => Ok(ReportFile::Stdout),
            Some(path) if path.is_dir() => Err(Failure::about(
                path.display(),
                "a folder, where the report should be a file",
            )),
            Some(path) => Unfinished::create(path)
                .map(ReportFile::File)
                .map_err(|error| Failure::about(path.display(), error)),
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
            ReportFile::Stdout => print(&text()?),
            ReportFile::File(file) => {
                let place = file.place.clone();
                file.finish(&text()?).map_err(|error| {
                    let what = format!("the model was written, but not its report: {error}");
                    Failure::about(place.display(), what)
                })
            }
        }
    }
}

/// A file beside its place. Dropped before it is finished, it is removed.
pub(crate) struct Unfinished {
    file: File,
    beside: PathBuf,
    place: PathBuf,
}

impl Unfinished {
    fn create(place: &Path) -> io::Result<Self> {
        let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut attempt = 0;
        loop {
            let mut beside = OsString::from(".");
            beside.push(name);
            beside.push(format!(".{}-{attempt}", std::process::id()));
            let beside = place.with_file_name(beside);
            match File::create_new(&beside) {
                Ok(file) => {
                    interrupt::remember(&beside);
                    return Ok(Unfinished {
                        file,
                        beside,
                        place: place.to_owned(),
                    });
                }
                // a killed run of the same number left it
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn finish(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.place)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // not there any more once it is in its place
        let _ = fs::remove_file(&self.beside);
        interrupt::forget(&self.beside);
    }
}
