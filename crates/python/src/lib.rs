//! The native half of the Python package `palettizer`: arguments in, the GIL released, the Rust crates at work.
//!
//! | module | idea |
//! |---|---|
//! | `work` | runs a job on a thread pool while the calling thread listens for Ctrl-C and for progress; catches panics |
//! | `error` | every error as the Python exception that it is |
//! | `whole` | whole numbers in range, or a `ValueError` that names the argument |
//! | `names` | names as the enums that they stand for |
//! | `command` | the console command |
//! | `model`, `config`, `lut_function` | a Core ML model; what is asked of it; functions of the user's |
//! | `checkpoint` | a safetensors checkpoint |
//! | `session` | a program run on the CPU: arrays in, arrays out |
//! | `core_ai` | the same for the command |
//! | `program` | all of the pipeline for a program that Python reads and writes |
//! | `budget` | forms chosen for weights that Python prices |
//! | `staged_output` | a file of Python's making on its way to its place |
//! | `dkm` | one weight that is being trained: its soft form and the gradient |
//! | `palettize`, `recover`, `palette` | one weight: numpy bytes in, a `Palette` out |
//!
//! What users see, with its documentation, is `python/palettizer`; `python/palettizer/_native.pyi` has the types.

mod arrays;
mod budget;
mod checkpoint;
mod command;
mod config;
mod core_ai;
mod dkm;
mod error;
mod json;
mod lut_function;
mod memory;
mod model;
mod names;
mod palette;
mod palettize;
mod program;
mod recover;
mod session;
mod staged_output;
mod whole;
mod work;

/// The module `palettizer._native`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::budget::{budget_forms, choose, read_curves, telling_errors, write_curves};
    #[pymodule_export]
    use crate::checkpoint::Checkpoint;
    #[pymodule_export]
    use crate::command::main;
    #[pymodule_export]
    use crate::config::{yaml_file, yaml_text};
    #[pymodule_export]
    use crate::dkm::{SoftKMeans, dkm_defaults};
    #[pymodule_export]
    use crate::error::Refusal;
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::palette::{DeferredPalette, Palette};
    #[pymodule_export]
    use crate::palettize::{assemble, normalise_sensitivity, palettize};
    #[pymodule_export]
    use crate::program::palettize_program;
    #[pymodule_export]
    use crate::recover::recover;
    #[pymodule_export]
    use crate::session::{RunState, Session, known_ops};
    #[pymodule_export]
    use crate::staged_output::StagedOutput;
    #[pymodule_export]
    use crate::work::panic_for_tests;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // A model that is cut short while it is read is an exception, not the end of the interpreter.
        palettizer::guard_mappings();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
