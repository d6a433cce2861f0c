//! The crate's one error: what was found, what was expected, what to do.

use crate::config::near;
use crate::opset::Target;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a Core ML model.
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

    // Reading a package.
    /// A folder is no package.
    #[error("{}: no Core ML package: {reason}", path.display())]
    NotAPackage {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what to give instead.
        reason: &'static str,
    },
    /// A file or folder is something known, but no model of ours.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do with it.
        what: &'static str,
    },
    /// There is a folder, or something stranger, where a file should be.
    #[error("{}: expected a regular file here, found {found}", path.display())]
    NotAFile {
        /// What is not a file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
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
    /// A package holds more files than any honest one, or folders nested deeper.
    #[error("{}: more than {limit} {what}: remove what does not belong to the package", path.display())]
    TooMany {
        /// The package.
        path: PathBuf,
        /// What there are too many of.
        what: &'static str,
        /// The largest number that is read.
        limit: usize,
    },
    /// The manifest is no JSON.
    #[error("{}: not valid JSON: {source}", path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A field of the manifest is missing or of the wrong kind.
    #[error("{}: `{field}` is {found}, expected {expected}", path.display())]
    ManifestField {
        /// The manifest.
        path: PathBuf,
        /// The field's path in the JSON.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// The manifest is of a version that we do not know.
    #[error("{}: package format version \"{found}\", expected 1.x.y: written by a newer tool?", path.display())]
    ManifestVersion {
        /// The manifest.
        path: PathBuf,
        /// The version in it.
        found: String,
    },
    /// A path in the package leads, or may lead, out of it.
    #[error("{}: path \"{found}\" {reason}: paths must stay inside the package", path.display())]
    UnsafePath {
        /// The manifest, or the package.
        path: PathBuf,
        /// The path in it.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The manifest lists an item that is not there.
    #[error("{}: the manifest lists \"{item}\", but there is no such file or folder in Data", path.display())]
    MissingItem {
        /// The package.
        path: PathBuf,
        /// The item's path.
        item: String,
    },
    /// The model is not valid protobuf.
    #[error("{}: not a Core ML model: {source}", path.display())]
    Protobuf {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: prost::DecodeError,
    },
    /// The model has no type: the file is empty, or something else.
    #[error("{}: not a Core ML model: it names no model type", path.display())]
    EmptyModel {
        /// The file.
        path: PathBuf,
    },
    /// The model is neither an ML Program nor a pipeline that holds one.
    #[error("{}: this is a {kind} model, not an ML Program: {advice}", path.display())]
    NotAnMlProgram {
        /// The file.
        path: PathBuf,
        /// The type's name in the specification.
        kind: String,
        /// What the user can do.
        advice: &'static str,
    },

    // Weight files.
    /// The program names a weight file in a way that leads nowhere.
    #[error(
        "weight file \"{found}\" {reason}: expected a path such as \"@model_path/weights/weight.bin\""
    )]
    WeightFileName {
        /// The name.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program names a weight file that is not there.
    #[error("{}: the program refers to weight file \"{name}\", which is missing", path.display())]
    MissingWeightFile {
        /// The package.
        path: PathBuf,
        /// The file's name in the program.
        name: String,
    },
    /// A weight file is too short for its header.
    #[error("{}: {len} bytes, too short for a weight file: its header has 64", file.display())]
    BlobHeader {
        /// The weight file.
        file: PathBuf,
        /// Its length.
        len: u64,
    },
    /// A weight file is of another version.
    #[error("{}: weight file of version {found}, expected 2", file.display())]
    BlobVersion {
        /// The weight file.
        file: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// A blob's offset leads past the end of the file.
    #[error("{}: no blob at offset {offset}: the file ends at {len}", file.display())]
    BlobOffset {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// The file's length.
        len: u64,
    },
    /// There is no blob where the program says.
    #[error("{}: no blob at offset {offset}: found {found:#010x} there, expected 0xdeadbeef", file.display())]
    BlobSentinel {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// What is there in place of the sentinel.
        found: u32,
    },
    /// A blob's element type is unknown.
    #[error("{}: the blob at offset {offset} has element type {found}, expected 1 to 17", file.display())]
    BlobDtype {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// The type's number.
        found: u32,
    },
    /// A blob has no data.
    #[error("{}: the blob at offset {offset} has no data, expected at least one byte", file.display())]
    BlobEmpty {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
    },
    /// A blob's data end past the end of the file.
    #[error(
        "{}: the blob at offset {offset} has {size} bytes at {data_offset}, but the file ends at {len}: truncated?",
        file.display()
    )]
    BlobTruncated {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// Where its data begin.
        data_offset: u64,
        /// Their size.
        size: u64,
        /// The file's length.
        len: u64,
    },
    /// A blob's size is no whole number of elements.
    #[error(
        "{}: the blob at offset {offset} has {size} bytes less {unused_bits} unused bits, \
         which is no whole number of {dtype} elements with less than a byte unused",
        file.display()
    )]
    BlobPadding {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// The element type.
        dtype: &'static str,
        /// The size of the data in bytes.
        size: u64,
        /// The bits that belong to no element.
        unused_bits: u64,
    },
    /// Two blobs share bytes.
    #[error("{}: the blobs at offsets {first} and {second} overlap at byte {at}", file.display())]
    BlobOverlap {
        /// The weight file.
        file: PathBuf,
        /// The offset of one blob's record; 0 for the file's header.
        first: u64,
        /// The offset of the other's.
        second: u64,
        /// The first byte that they share.
        at: u64,
    },
    /// A blob's size disagrees with the shape and type that the program gives.
    #[error(
        "constant \"{name}\": its type in the program is {expected}, but the blob at offset {offset} of {} holds {found}",
        file.display()
    )]
    BlobSize {
        /// The constant.
        name: String,
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// What the blob holds, such as `12 fp16 elements`.
        found: String,
        /// What the program says, such as `16 fp16 elements`.
        expected: String,
    },

    // Saving.
    /// The output exists.
    #[error("{}: exists already: use --force to replace it", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output does not have a package's name.
    #[error("{}: the output is a package: expected a name that ends in .mlpackage", path.display())]
    OutputName {
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

    /// A name stands for nothing where it is used: it is missing, or defined only later (a cycle).
    #[error(
        "function \"{function}\": {used_by} uses \"{name}\", which nothing before it defines; \
         the program is damaged, convert the model again"
    )]
    UndefinedName {
        /// The name.
        name: String,
        /// What uses it.
        used_by: String,
        /// The function.
        function: String,
    },

    /// A constant's data does not fit its type.
    #[error("constant \"{name}\": {what}; the model is damaged, convert it again")]
    BadValue {
        /// The constant.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },

    /// There is no constant of this name.
    #[error("no constant is called \"{name}\"; list the model's weights for their names")]
    NoConstant {
        /// The name.
        name: String,
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

    /// The program's opset has no op for what was asked.
    #[error(
        "{feature} needs the {needed} opset, and the program that holds \"{weight}\" is written for {found}; \
         pass --minimum-deployment-target {needed}, or convert the model again with \
         minimum_deployment_target={needed}"
    )]
    OpsetTooOld {
        /// A weight that needs it.
        weight: String,
        /// What was asked.
        feature: &'static str,
        /// The first target that has it.
        needed: Target,
        /// The program's target.
        found: Target,
    },

    /// The program is written in an opset that we do not know.
    #[error(
        "the program that holds \"{op}\" is written in an unknown opset; expected CoreML5 to CoreML9 \
         (iOS15 to iOS26)"
    )]
    UnknownOpset {
        /// An op of it.
        op: String,
    },

    /// A compressed constant cannot be made dense.
    #[error("{op_type} \"{name}\": {what}")]
    Constexpr {
        /// The op's type.
        op_type: String,
        /// The op's name.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },

    /// What was made is no valid program: a fault of ours.
    #[error(
        "palettizer made an operation that no reader accepts, and wrote nothing: {op_type} \"{name}\": {what}; \
         this is a fault in palettizer: please report it with these words"
    )]
    Emitted {
        /// The op's type.
        op_type: String,
        /// The op's name.
        name: String,
        /// What is wrong with it.
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

    /// [`Progress::stop`](crate::Progress::stop) was set.
    #[error("stopped on request; nothing was written")]
    Stopped,

    /// The program cannot be raised to the target that was asked for.
    #[error(transparent)]
    Opset(#[from] crate::opset::OpsetError),
}

impl Error {
    /// An error of the system's while reading `path`.
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Error {
        Error::Io {
            path: path.as_ref().to_owned(),
            source,
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
        "no sensitivity has the name of a weight: the weights to palettize are {}; the sensitivities are of {}. \
         Give those of this model, or none",
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
