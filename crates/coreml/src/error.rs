//! The crate's error: that of the room that found it, or what is wrong with the program.

use crate::blob::BlobError;
use crate::opset::OpsetError;
use crate::package::PackageError;
use palettizer_pipeline::config::Target;

/// What can go wrong with a Core ML model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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

    /// What can go wrong with any model: reading and writing files, the configuration, strict mode, sensitivities.
    #[error(transparent)]
    Pipeline(#[from] palettizer_pipeline::Error),
    /// The package is damaged, or none of ours.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A weight file is damaged.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The program cannot be raised to the opset that was asked for.
    #[error(transparent)]
    Opset(#[from] OpsetError),
}

impl Error {
    pub(crate) fn bad_value(name: &str, what: impl Into<String>) -> Self {
        Error::BadValue {
            name: name.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn no_memory(name: &str, bytes: usize) -> Self {
        let name = name.to_owned();
        palettizer_pipeline::Error::NoMemory { name, bytes }.into()
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
