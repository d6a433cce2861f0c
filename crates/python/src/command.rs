//! The console command of the wheel: the very code of the `palettizer` binary.

use std::ffi::OsString;

use pyo3::prelude::*;

use crate::core_ai;

/// Runs the command with `argv`, whose first element is the program's name, and gives the exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    core_ai::install();
    // it looks after its own faults
    py.detach(|| palettizer_cli::run(argv))
}
