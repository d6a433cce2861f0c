//! A scratch folder with the demo package in it, and runs of the binary there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use palettizer::SaveOptions;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Scratch {
    folder: TempDir,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary, without the colours and the thread count of whoever runs the tests.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palettizer"));
    for name in [
        "NO_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "RAYON_NUM_THREADS",
    ] {
        command.env_remove(name);
    }
    command
}

impl Scratch {
    /// With `in.mlpackage`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = palettizer_cli::demo_model().unwrap();
        let path = folder.path().join("in.mlpackage");
        model.save(path, SaveOptions::default()).unwrap();
        Scratch { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary in the folder; arguments are separated by spaces.
    pub(crate) fn run(&self, args: &str) -> Run {
        self.run_command(binary().args(args.split_whitespace()))
    }

    pub(crate) fn run_command(&self, command: &mut Command) -> Run {
        Run::from(command.current_dir(self.folder.path()).output().unwrap())
    }

    /// The names in the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    /// Fails the test unless the code and a part of what was said on stderr are these.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            self.err.contains(message),
            "{message:?} is not in {}",
            self.err
        );
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    /// Fails the test unless the run succeeded, quietly.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }

    /// The words of the line that begins with one.
    #[track_caller]
    pub(crate) fn line(&self, first: &str) -> Vec<&str> {
        let line = self.out.lines().find(|line| line.starts_with(first));
        line.unwrap_or_else(|| panic!("no line {first} in {}", self.out))
            .split_whitespace()
            .collect()
    }
}
