//! What can go wrong with any model, whatever its format: what was found, what was expected, what to do.

use crate::config::near;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with any model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a folder, or something stranger, where a file should be.
    #[error("{}: expected a regular file here, found {found}", path.display())]
    NotAFile {
        /// What is not a file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file or folder is something known, but no model of ours.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do with it.
        what: &'static str,
    },
    /// Something unfolds to more than its files may.
    #[error(
        "\"{name}\": unfolds to {asked} bytes, and files of {stored} bytes may unfold to {allowed}; \
         if it is meant to, allow more: --max-expansion N (max_expansion=N in Python) for N times the files"
    )]
    Expansion {
        /// What unfolds.
        name: String,
        /// The bytes that it, or all up to it, unfolds to.
        asked: u64,
        /// The bytes of the files.
        stored: u64,
        /// The bytes that are allowed.
        allowed: u64,
    },
    /// There is no memory for what is within the limits.
    #[error("\"{name}\": no memory for {bytes} bytes")]
    NoMemory {
        /// What needs it.
        name: String,
        /// How much it needs.
        bytes: usize,
    },
    /// A file was written to while it was in use.
    #[error(
        "{}: changed while it was in use: {what}; run again when nothing else writes to it",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        what: String,
    },
    /// A file is larger than any honest one.
    #[error("{}: {found} bytes, but a file of this kind has at most {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// The output exists.
    #[error("{}: exists already: use --force to replace it", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output cannot be put where it should go.
    #[error("{}: cannot write here: {reason}", path.display())]
    OutputPlace {
        /// The output.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// The disk is full, or a quota or a limit on file sizes is reached.
    #[error("{}: no space left: {source}: free some, or write to another disk", path.display())]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two users of one constant are configured differently.
    #[error(
        "\"{constant}\" is used by \"{first}\" and \"{second}\", whose configurations differ; \
         configure it by its own name: \"{constant}\""
    )]
    ConfigConflict {
        /// The constant.
        constant: String,
        /// The first user.
        first: String,
        /// A user that is configured otherwise.
        second: String,
    },
    /// A name in the configuration is none in the model, and as a pattern it is wrong.
    #[error(
        "\"{key}\" is no name in the model, and no pattern: {what}. A pattern is a regular expression that matches \
         the whole name, in which .* stands for anything"
    )]
    Pattern {
        /// The name.
        key: String,
        /// What is wrong with it as a regular expression.
        what: String,
    },
    /// Weights were skipped that the configuration did not skip, in strict mode.
    #[error("{}", strict_text(.skipped))]
    Strict {
        /// The name of each weight, and why it was skipped.
        skipped: Vec<(String, String)>,
    },
    /// Sensitivities that do not fit the model's weights.
    #[error("{}", sensitivities_text(.missing, .wrong, .known))]
    Sensitivities {
        /// Weights that have none.
        missing: Vec<String>,
        /// Those of another shape: the name, the shape that was found, and the weight's.
        wrong: Vec<(String, Vec<usize>, Vec<usize>)>,
        /// What all sensitivities are called.
        known: Vec<String>,
    },
    /// Sensitivities of another model: none has the name of a weight.
    #[error("{}", foreign_sensitivities_text(.weights, .known))]
    ForeignSensitivities {
        /// The weights.
        weights: Vec<String>,
        /// What the sensitivities are called.
        known: Vec<String>,
    },
    /// The sensitivities of one weight are of no use.
    #[error("the sensitivities of \"{name}\": {what}")]
    Sensitivity {
        /// Their name.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// Statistics of another model: none is of one of its weights.
    #[error("{}", foreign_statistics_text(.weights, .known, .reason))]
    ForeignStatistics {
        /// The weights.
        weights: Vec<String>,
        /// The weights that there are statistics of.
        known: Vec<String>,
        /// Why the first weight has none.
        reason: String,
    },
    /// The statistics of one weight are of no use.
    #[error("the statistics \"{name}\": {what}")]
    Statistics {
        /// Their name.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// The statistics are of no use.
    #[error("the statistics: {what}")]
    StatisticsFile {
        /// What was found, and what was expected.
        what: String,
    },
    /// The values of a weight are not those of its type and shape.
    #[error("the values of \"{name}\": {what}; the model is damaged, make it again")]
    Values {
        /// The weight.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// A budget that cannot be met.
    #[error("{what}")]
    Budget {
        /// What was asked, what can be had, and what to do.
        what: String,
    },
    /// [`Progress::stop`](crate::Progress::stop) was set.
    #[error("stopped on request; nothing was written")]
    Stopped,
}

/// The error of a format: one of its own, or one of these.
pub trait FormatError: From<Error> + Send {
    /// Parts those of any format from the format's own.
    ///
    /// # Errors
    /// An error of the format's own, as it is.
    fn common(self) -> Result<Error, Self>;
}

impl FormatError for Error {
    fn common(self) -> Result<Error, Self> {
        Ok(self)
    }
}

impl Error {
    /// An error of the system's while reading `path`.
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Error {
        Error::Io {
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// The output cannot be put at `path`.
    pub(crate) fn output_place(path: impl AsRef<Path>, reason: impl ToString) -> Error {
        Error::OutputPlace {
            path: path.as_ref().to_owned(),
            reason: reason.to_string(),
        }
    }

    /// There is an output at `path`.
    pub(crate) fn exists(path: impl AsRef<Path>) -> Error {
        Error::Exists {
            path: path.as_ref().to_owned(),
        }
    }

    /// An error of the system's while writing `path`: [`Error::DiskFull`] if there is no room, or [`Error::Io`].
    pub fn writing(path: impl AsRef<Path>, source: io::Error) -> Error {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Error::DiskFull { path, source },
            _ => Error::Io { path, source },
        }
    }
}

fn strict_text(skipped: &[(String, String)]) -> String {
    let mut text = format!(
        "{} weight(s) could not be palettized as asked (strict); skip them by name, or change their configuration:",
        skipped.len()
    );
    for (name, reason) in skipped {
        text.push_str(&format!("\n  {name}: {reason}"));
    }
    text
}

fn sensitivities_text(
    missing: &[String],
    wrong: &[(String, Vec<usize>, Vec<usize>)],
    known: &[String],
) -> String {
    let mut text = format!(
        "the {} sensitivities do not fit: {} weight(s) have none, {} have some of another shape; \
         give those of this model, or let missing ones be ones:",
        known.len(),
        missing.len(),
        wrong.len()
    );
    for name in missing {
        text.push_str(&format!("\n  {name}: missing"));
    }
    for (name, found, expected) in wrong {
        text.push_str(&format!(
            "\n  {name}: found {found:?}, expected {expected:?}"
        ));
    }
    text
}

/// How many names of each side are shown.
const SHOWN: usize = 4;

fn foreign_sensitivities_text(weights: &[String], known: &[String]) -> String {
    if known.is_empty() {
        return "the file of sensitivities has no tensor of type F16, BF16, F32 or F64".to_owned();
    }
    format!(
        "no sensitivity has the name of a weight: {}. Give those of this model, or none",
        sides(weights, known, "sensitivities")
    )
}

fn foreign_statistics_text(weights: &[String], known: &[String], reason: &str) -> String {
    if known.is_empty() {
        return "the file of statistics has no tensor of numbers called NAME.second_moments, NAME.fisher or NAME.frequency"
            .to_owned();
    }
    let first = weights.first().map_or("", String::as_str);
    format!(
        "no statistics are of a weight: {}. Why not of \"{first}\": {reason}. Give those of this model, or none",
        sides(weights, known, "statistics")
    )
}

/// Some names of the weights, and of what is there in their place.
fn sides(weights: &[String], known: &[String], what: &str) -> String {
    // Those first that may be meant.
    let near = weights.iter().take(SHOWN).flat_map(|weight| {
        let known = known.iter().map(String::as_str);
        near(weight, known).into_iter().take(1)
    });
    let mut shown: Vec<&str> = Vec::new();
    for name in near.chain(known.iter().map(String::as_str)) {
        if shown.len() < SHOWN && !shown.contains(&name) {
            shown.push(name);
        }
    }
    let weights: Vec<&str> = weights.iter().map(String::as_str).collect();
    format!(
        "the weights to palettize are {}; the {what} are of {}",
        quoted(&weights[..weights.len().min(SHOWN)], weights.len()),
        quoted(&shown, known.len()),
    )
}

/// Names between quotation marks, and how many more there are.
fn quoted(shown: &[&str], all: usize) -> String {
    let mut text = format!("\"{}\"", shown.join("\", \""));
    if all > shown.len() {
        text.push_str(&format!(" and {} more", all - shown.len()));
    }
    text
}
