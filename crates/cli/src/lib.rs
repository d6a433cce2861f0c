//! The `palettizer` command: flags, tables, progress bars and exit codes around the `palettizer` crate.
//!
//! The binary and the console command of the Python wheel are both a call of [`run`].
//!
//! | module | holds |
//! |---|---|
//! | `compress`, `inspect`, `decompress`, `run`, `compare`, `sensitivity`, `demo`, `completions` | one subcommand each: its flags and what it prints |
//! | `program` | the flags of those that run a program |
//! | `demo_model`, `held_out` | the model that the command carries, and digits to read with it |
//! | `settings`, `rules` | the library's options as flags, and as `--op-type`/`--op-name` |
//! | `table`, `elide`, `width` | columns that fit a terminal, names that are cut and still differ, columns that text takes |
//! | `figures`, `summary` | numbers as text; a report as a table, reasons and totals |
//! | `report_file` | the report as JSON or as a page, written beside and renamed |
//! | `page` | a report as one page of HTML |
//! | `paths` | places that must not be the same |
//! | `output`, `progress`, `interrupt`, `failure` | streams, the bar, Ctrl-C, why a command failed |
//! | [`bug`] | panics |

mod budget;
pub mod bug;
mod compare;
mod completions;
mod compress;
mod decompress;
mod demo;
mod demo_model;
mod elide;
mod failure;
mod figures;
mod held_out;
mod inspect;
mod interrupt;
mod limits;
mod notes;
mod output;
mod page;
mod paths;
mod program;
mod progress;
mod recommend;
mod report_file;
mod rules;
mod run;
mod sensitivity;
mod settings;
mod summary;
mod table;
mod width;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

pub use demo_model::demo_model;
use failure::Failure;
use output::Voice;

/// Make Core ML models and checkpoints smaller: weights become small indices into tables of values.
#[derive(Parser)]
#[command(
    name = "palettizer",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  palettizer demo
  palettizer inspect Model.mlpackage
  palettizer compress Model.mlpackage -o Small.mlpackage --nbits 4
  palettizer compress model.safetensors -o small.safetensors --nbits 4
  palettizer compare Model.mlpackage Small.mlpackage

Exit codes: 0 done, 1 the input is bad or the work failed, 2 usage, 3 a skip under --strict, or a
comparison below its minimum, 70 a bug of palettizer's own."
)]
struct Cli {
    /// Say nothing but errors; what --json and --report - ask for is printed
    #[arg(long, short, global = true, help_heading = "Output")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compress(Box<compress::Args>),
    Inspect(inspect::Args),
    Decompress(decompress::Args),
    Run(run::Args),
    Compare(compare::Args),
    Sensitivity(sensitivity::Args),
    Recommend(recommend::Args),
    Demo(demo::Args),
    Completions(completions::Args),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Compress(_) => "compress",
            Command::Inspect(_) => "inspect",
            Command::Decompress(_) => "decompress",
            Command::Run(_) => "run",
            Command::Compare(_) => "compare",
            Command::Sensitivity(_) => "sensitivity",
            Command::Recommend(_) => "recommend",
            Command::Demo(_) => "demo",
            Command::Completions(_) => "completions",
        }
    }

    fn run(self, voice: Voice) -> Result<(), Failure> {
        match self {
            Command::Compress(args) => compress::run(*args, voice),
            Command::Inspect(args) => inspect::run(&args, voice),
            Command::Decompress(args) => decompress::run(&args, voice),
            Command::Run(args) => run::run(&args, voice),
            Command::Compare(args) => compare::run(&args, voice),
            Command::Sensitivity(args) => sensitivity::run(&args, voice),
            Command::Recommend(args) => recommend::run(&args, voice),
            Command::Demo(args) => demo::run(&args, voice),
            Command::Completions(args) => completions::run(&args),
        }
    }
}

/// Runs the command and gives its exit code. `args` begins with the name of the program.
///
/// It prints to stdout and stderr, and catches SIGINT, SIGTERM and SIGHUP from the first call on: unfinished output
/// is removed, then the process ends. So it is for a process that does nothing else.
///
/// ```
/// assert_eq!(palettizer_cli::run(["palettizer", "--version"].map(Into::into)), 0);
/// assert_eq!(palettizer_cli::run(["palettizer", "--no-such-flag"].map(Into::into)), 2);
/// ```
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let (command, voice) = match Cli::try_parse_from(args) {
        Ok(cli) => (cli.command, Voice { quiet: cli.quiet }),
        Err(error) => {
            // nothing can be said about a closed stream
            let _ = error.print();
            return error.exit_code();
        }
    };
    let name = command.name();
    interrupt::install();
    palettizer::guard_mappings();
    ended(name, bug::caught(|| command.run(voice)))
}

/// The exit code of a fault of ours: that of BSD's sysexits for an internal error.
const BUG: i32 = 70;

/// Says how a command ended, and gives its exit code.
fn ended(name: &str, done: Result<Result<(), Failure>, bug::Bug>) -> i32 {
    if !matches!(done, Ok(Ok(()))) {
        interrupt::wait_if_interrupted();
    }
    let (message, code) = match done {
        Ok(Ok(())) => return 0,
        Ok(Err(Failure::Usage(message))) => return misused(name, &message),
        Ok(Err(Failure::Work(message))) => (message, 1),
        Ok(Err(Failure::Strict(message))) => (message, 3),
        Err(bug) => (bug.to_string(), BUG),
    };
    output::error(&message);
    code
}

/// Says what is wrong with the flags of a command, and how it is used; gives the exit code.
fn misused(subcommand: &str, message: &str) -> i32 {
    let message = palettizer::visible_lines(message);
    let mut root = Cli::command();
    root.build();
    let error = match root.find_subcommand_mut(subcommand) {
        Some(command) => command.error(ErrorKind::ArgumentConflict, message),
        None => root.error(ErrorKind::ArgumentConflict, message),
    };
    // nothing can be said about a closed stderr
    let _ = error.print();
    2
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bug_has_an_exit_code_of_its_own() {
        let done = super::bug::caught(|| panic!("told to"));
        assert_eq!(super::ended("compress", done), 70);
    }
}
