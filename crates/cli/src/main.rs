//! The `palettizer` binary.

fn main() {
    std::process::exit(palettizer_cli::run(std::env::args_os()));
}
