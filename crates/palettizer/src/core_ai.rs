//! Core AI programs (`.aimodel`): opened by whoever can read them.
//!
//! Apple's wheel `coreai-core` alone reads and writes them, and it is for Python. So a process that has it says so once, with
//! [`set_reader`], as the Python package does; elsewhere [`Model::open`](crate::Model::open) says what to install.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use palettizer_pipeline::{Decompressed, Progress, Report};

use crate::budget::{Chosen, Curves};
use crate::coreml::WeightInfo;
use crate::{Error, OptimizationConfig, SaveOptions};

/// The file, in the folder that is a program, that holds it.
pub const PROGRAM_FILE: &str = "main.mlirb";

/// A Core AI program that somebody has opened: what [`Model`](crate::Model) does with any model.
pub trait Program: fmt::Debug + Send + Sync {
    /// Bytes of the program as it is stored.
    fn stored_len(&self) -> u64;

    /// The weights of more elements than `threshold`.
    ///
    /// # Errors
    /// What reading them may give.
    fn weights(&self, threshold: usize) -> Result<Vec<WeightInfo>, Error>;

    /// The values of the weight of a name.
    ///
    /// # Errors
    /// There is no such weight.
    fn weight_values(&self, name: &str) -> Result<Vec<f32>, Error>;

    /// As [`Model::palettize_to`](crate::Model::palettize_to).
    ///
    /// # Errors
    /// As there.
    fn palettize_to(
        &self,
        config: &OptimizationConfig,
        out: &Path,
        options: SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Report, Error>;

    /// As [`Model::curves`](crate::Model::curves).
    ///
    /// # Errors
    /// As there.
    fn curves(&self, config: &OptimizationConfig, progress: &dyn Progress)
    -> Result<Curves, Error>;

    /// As [`Model::chosen`](crate::Model::chosen).
    ///
    /// # Errors
    /// As there.
    fn chosen(
        &self,
        config: &OptimizationConfig,
        progress: &dyn Progress,
    ) -> Result<Option<Chosen>, Error>;

    /// As [`Model::decompress_to`](crate::Model::decompress_to).
    ///
    /// # Errors
    /// As there.
    fn decompress_to(&self, out: &Path, options: SaveOptions) -> Result<Decompressed, Error>;
}

/// Opens a program.
pub type Reader = fn(&Path) -> Result<Arc<dyn Program>, Error>;

static READER: OnceLock<Reader> = OnceLock::new();

/// Says who opens Core AI programs in this process. The first to say so does.
///
/// ```
/// use palettizer::{Error, core_ai};
///
/// core_ai::set_reader(|path| Err(Error::CoreAi(format!("{}: not today", path.display()))));
/// let error = palettizer::Model::open("Model.aimodel").unwrap_err();
/// assert_eq!(error.to_string(), "Model.aimodel: not today");
/// ```
pub fn set_reader(reader: Reader) {
    // a second one would do the same
    let _ = READER.set(reader);
}

/// Whether what is at a path, or is called so, is a Core AI program.
pub(crate) fn is_at(path: &Path) -> bool {
    let named = path
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("aimodel"));
    named || path.join(PROGRAM_FILE).is_file()
}

/// Opens a program, if this process can.
pub(crate) fn open(path: &Path) -> Result<Arc<dyn Program>, Error> {
    match READER.get() {
        Some(reader) => reader(path),
        None => Err(Error::CoreAi(format!(
            "{}: this is a Core AI program, which only Apple's wheel for Python can read: pip install \
             'palettizer[coreai]' (Linux on x86-64, macOS on Apple Silicon), and use the command of that package",
            path.display()
        ))),
    }
}
