//! The project's own tasks: `cargo xtask test`, `fuzz`, `bench` and `ci`.
//!
//! Plain Rust and the standard library: what builds the tests must not need tests of its own dependencies.

mod build;
mod cache;
mod chromium;
mod dataset;
mod debian;
mod hash;
mod python;
mod steps;
mod tasks;
mod wheel;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
The project's own tasks.

Usage: cargo xtask <TASK>

Tasks:
  test [PYTEST ARGS…]     all tests: Rust (tests and doctests), then the Python suite on the command and the wheel
  environment             makes the tests' Python environment, and prints the folder of its programs
  fuzz [--seconds N]      the readers' fuzz harness, for N seconds (60)
  bench [ARGS…]           the benchmark against coremltools; --help for its flags
  python ARGS…            a Python command in the tests' environment
  ci                      .ci/run: format, lints, documentation, licences, then test

Environment:
  PALETTIZER_PYTHON       the Python to make the environment with (python3)
  PALETTIZER_FASHION_MNIST  a folder with the files of Fashion-MNIST, where there is no apt-get
  XDG_CACHE_HOME          where it is kept (~/.cache)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() else {
        eprintln!("error: xtask is not inside the workspace");
        return ExitCode::FAILURE;
    };
    let (task, rest) = args
        .split_first()
        .map_or(("help", &[][..]), |(task, rest)| (task.as_str(), rest));
    let done = match task {
        "test" => tasks::test(root, rest),
        "environment" => tasks::programs(root),
        "fuzz" => tasks::fuzz(root, rest),
        "bench" => tasks::bench(root, rest),
        "python" => tasks::python(root, rest),
        "ci" => tasks::ci(root, rest),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        unknown => Err(format!("no task {unknown:?}\n\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
