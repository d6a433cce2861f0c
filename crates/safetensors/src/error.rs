//! The crate's one error: what was found, what was expected, what to do.

use crate::shard::Shard;
use std::path::PathBuf;

/// What can go wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What can go wrong with any model: reading and writing files, the output's place, strict mode, sensitivities.
    #[error(transparent)]
    Pipeline(#[from] palettizer_pipeline::Error),

    /// There is no checkpoint at the path.
    #[error("{}: no checkpoint: {what}", path.display())]
    NotACheckpoint {
        /// The path.
        path: PathBuf,
        /// What is there, and what to give instead.
        what: String,
    },
    /// A file does not hold what its header says, or has none.
    #[error("{}: damaged safetensors file: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        what: String,
    },
    /// The index of the shards is damaged, or says something else than the shards.
    #[error("{}: damaged index of shards: {what}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What was found, and what was expected.
        what: String,
    },
    /// A palettized weight's parts contradict each other.
    #[error("{}: palettized weight \"{weight}\": {what}; write the file again", path.display())]
    Compact {
        /// The file.
        path: PathBuf,
        /// The weight.
        weight: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// A palettized checkpoint is of a format that we do not know.
    #[error("{}: palettizer.format is \"{found}\", expected \"1\": written by a newer version?", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format in it.
        found: String,
    },
    /// There is no tensor of this name.
    #[error("{}: no tensor is called \"{name}\"; palettizer inspect lists them", path.display())]
    UnknownTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The name.
        name: String,
    },

    /// The configuration asks for what a checkpoint cannot have.
    #[error("{what} cannot be used with a checkpoint: {advice}")]
    Unsuited {
        /// What was asked for.
        what: String,
        /// Why not, and what to do.
        advice: &'static str,
    },
    /// A tensor has the name that a part of a palettized weight would get.
    #[error(
        "palettizing \"{weight}\" needs the name \"{taken}\", which another tensor has; skip the weight by its name"
    )]
    NameTaken {
        /// The weight.
        weight: String,
        /// The name.
        taken: String,
    },
    /// The output would be of another kind than the input.
    #[error("{}: {what}", path.display())]
    OutputKind {
        /// The output.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// A new file's header would be larger than readers accept.
    #[error("{}: the header would have {found} bytes, and readers accept {limit}: use fewer or shorter names", path.display())]
    HeaderTooLarge {
        /// The file.
        path: PathBuf,
        /// The header's size.
        found: usize,
        /// The largest that is read.
        limit: usize,
    },
    /// Tensors that were to be written cannot be.
    #[error("tensor \"{name}\" cannot be written: {what}")]
    BadTensor {
        /// The tensor.
        name: String,
        /// What was found, and what was expected.
        what: String,
    },
    /// A weight that a part was to be made of is none that the configuration palettizes.
    #[error("\"{name}\" is no weight that this configuration palettizes: {reason}")]
    NoJob {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A part is none, or one of something else.
    #[error("{}: {what}; make this part again", path.display())]
    Part {
        /// The part.
        path: PathBuf,
        /// What was found, and what was expected.
        what: String,
    },
    /// Parts are missing.
    #[error("{} of the weights to palettize are in no part, the first of them \"{first}\"; make the parts that are missing", .count)]
    MissingParts {
        /// How many weights.
        count: usize,
        /// One of them.
        first: String,
    },
}

impl Error {
    /// A palettized weight of a shard whose parts contradict each other.
    pub(crate) fn compact(shard: &Shard, weight: &str, what: impl ToString) -> Self {
        Error::Compact {
            path: shard.path.clone(),
            weight: weight.to_owned(),
            what: what.to_string(),
        }
    }
}

impl palettizer_pipeline::FormatError for Error {
    fn common(self) -> Result<palettizer_pipeline::Error, Self> {
        match self {
            Error::Pipeline(error) => Ok(error),
            own => Err(own),
        }
    }
}
