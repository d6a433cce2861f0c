//! Every error of the Rust crates as the Python exception that it is.

use palettizer::config_file::ConfigError;
use palettizer::visible_lines;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyFileExistsError, PyKeyboardInterrupt, PyOSError, PyTypeError, PyValueError,
};

pyo3::create_exception!(
    palettizer._native,
    Refusal,
    PyValueError,
    "A weight that cannot be palettized as asked; the message says why."
);

/// A Rust error on its way to Python. (`From` for [`PyErr`] itself is not ours to implement.)
pub(crate) struct Failure(pub(crate) PyErr);

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        failure.0
    }
}

/// An argument that cannot be what it is.
pub(crate) fn bad_value(message: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(visible_lines(&message.to_string()).into_owned())
}

impl From<palettizer::Error> for Failure {
    fn from(error: palettizer::Error) -> Self {
        use palettizer::Error as Reason;
        use palettizer::PipelineError as Any;
        use palettizer::coreml::{Error as CoreMl, package::PackageError};
        let message = visible_lines(&error.to_string()).into_owned();
        Failure(match error {
            Reason::CoreAi(_) => bad_value(message),
            Reason::Pipeline(Any::Io { source, .. } | Any::DiskFull { source, .. }) => {
                // the exception of the system's error, such as FileNotFoundError, with our words
                std::io::Error::new(source.kind(), message).into()
            }
            Reason::Pipeline(Any::NotAFile { .. } | Any::OutputPlace { .. }) => {
                PyOSError::new_err(message)
            }
            Reason::Pipeline(Any::Exists { path }) => PyFileExistsError::new_err(format!(
                "{}: exists already; pass overwrite=True to replace it",
                path.display()
            )),
            Reason::Pipeline(Any::Stopped) => PyKeyboardInterrupt::new_err(()),
            Reason::CoreMl(CoreMl::Package(PackageError::NotAnMlProgram { .. })) => {
                PyTypeError::new_err(message)
            }
            Reason::CoreMl(CoreMl::OpsetTooOld {
                weight,
                feature,
                needed,
                found,
            }) => bad_value(format_args!(
                "The {feature} is supported since {needed}. Please re-convert your model with \
                 minimum_deployment_target set to at least ct.target.{needed}, or pass \
                 minimum_deployment_target=\"{needed}\": the program that holds \"{weight}\" is written for {found}"
            )),
            _ => bad_value(message),
        })
    }
}

macro_rules! from_format {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                palettizer::Error::from(error).into()
            }
        }
    )*};
}

from_format!(
    palettizer::PipelineError,
    palettizer::coreml::Error,
    palettizer::runtime::Error,
    palettizer::safetensors::Error
);

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let message = visible_lines(&error.to_string()).into_owned();
        let reason = match &error {
            ConfigError::InFile { source, .. } => source,
            other => other,
        };
        Failure(match reason {
            ConfigError::Read(source) => std::io::Error::new(source.kind(), message).into(),
            ConfigError::NotAFile { .. } => PyOSError::new_err(message),
            _ => bad_value(message),
        })
    }
}

macro_rules! from_value_error {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure(bad_value(error))
            }
        }
    )*};
}

from_value_error!(
    palettizer_palette::RecoverError,
    palettizer_palette::decode::DenseError,
    palettizer_palette::sensitivity::SensitivityError
);

impl From<palettizer_palette::Refusal> for Failure {
    fn from(refusal: palettizer_palette::Refusal) -> Self {
        use palettizer_palette::Refusal as Reason;
        Failure(match refusal {
            Reason::Stopped => PyKeyboardInterrupt::new_err(()),
            Reason::Spec(error) => bad_value(error),
            reason => Refusal::new_err(reason.to_string()),
        })
    }
}
