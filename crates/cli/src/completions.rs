//! `palettizer completions`: what a shell needs to complete our flags.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output::{Stream, print};

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "Example:
  palettizer completions zsh > ~/.zfunc/_palettizer")]
pub(crate) struct Args {
    /// The shell to complete for
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::Cli::command(),
        "palettizer",
        &mut script,
    );
    print(Stream::Out, &String::from_utf8_lossy(&script))
}
