//! What each task runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::dataset;
use crate::python::{Environment, environment, run};
use crate::wheel::{self, Installed};

/// One line of the summary.
struct Step {
    name: &'static str,
    took: Duration,
    failed: Option<String>,
}

/// Runs a step even when an earlier one failed: one run shows everything that is wrong.
fn step(
    steps: &mut Vec<Step>,
    name: &'static str,
    work: impl FnOnce() -> Result<(), String>,
) -> bool {
    println!("xtask: {name}");
    let start = Instant::now();
    let failed = work().err();
    let passed = failed.is_none();
    steps.push(Step {
        name,
        took: start.elapsed(),
        failed,
    });
    passed
}

fn summary(steps: &[Step]) -> Result<(), String> {
    println!("\nxtask: summary");
    for step in steps {
        let seconds = step.took.as_secs_f64();
        println!(
            "  {:<28} {seconds:>7.1} s  {}",
            step.name,
            step.failed.as_deref().unwrap_or("passed")
        );
    }
    let failed = steps.iter().filter(|step| step.failed.is_some()).count();
    if failed == 0 {
        Ok(())
    } else {
        Err(format!("{failed} of {} steps failed", steps.len()))
    }
}

fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(args);
    command
}

/// Where cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root.join(target)
}

/// How the binary and the wheel are built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// As `cargo test` builds: nothing is compiled twice, and overflow is a panic.
    Dev,
    /// As users build: what is measured.
    Release,
}

impl Profile {
    /// The name that cargo and maturin know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Dev => "dev",
            Profile::Release => "release",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }
}

/// The command.
fn binary(root: &Path, profile: Profile) -> Result<PathBuf, String> {
    let binary = target(root)
        .join(profile.folder())
        .join(format!("palettizer{}", std::env::consts::EXE_SUFFIX));
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(format!("no binary at {}", binary.display()))
    }
}

/// Builds what the Python side works with: the command and the wheel.
fn build(root: &Path, found: &Environment, profile: Profile) -> Result<Installed, String> {
    let arguments = ["build", "--profile", profile.name(), "-p", "palettizer-cli"];
    run(&mut cargo(root, &arguments), "cargo build")?;
    wheel::install(root, &found.python, profile)
}

fn with_environment(
    found: &Environment,
    built: &Installed,
    root: &Path,
    profile: Profile,
) -> Result<Command, String> {
    let mut command = Command::new(&found.python);
    command
        .current_dir(root)
        .env("PYTHONPATH", &built.folder)
        .env("PALETTIZER_WHEEL", &built.wheel)
        .env("PALETTIZER_BIN", binary(root, profile)?)
        .env("PALETTIZER_MODELS", &found.models)
        .env(dataset::VARIABLE, &found.fashion_mnist);
    Ok(command)
}

/// All tests.
pub(crate) fn test(root: &Path, pytest_args: &[String]) -> Result<(), String> {
    let mut steps = Vec::new();
    let mut found = None;
    step(&mut steps, "Python environment", || {
        found = Some(environment(root)?);
        Ok(())
    });
    step(&mut steps, "Rust tests and doctests", || {
        run(
            &mut cargo(root, &["test", "--workspace"]),
            "cargo test --workspace",
        )
    });
    let Some(found) = found else {
        return summary(&steps);
    };
    let mut built = None;
    step(&mut steps, "command and wheel", || {
        built = Some(build(root, &found, Profile::Dev)?);
        Ok(())
    });
    if let Some(built) = built {
        step(&mut steps, "Python tests", || {
            let mut pytest = with_environment(&found, &built, root, Profile::Dev)?;
            run(
                pytest
                    .args(["-m", "pytest", "tests/python"])
                    .args(pytest_args),
                "pytest",
            )
        });
    }
    summary(&steps)
}

/// The readers' fuzz harnesses, longer than the test run gives it.
pub(crate) fn fuzz(root: &Path, args: &[String]) -> Result<(), String> {
    let seconds = match args {
        [] => 60,
        [flag, value] if flag == "--seconds" => value
            .parse::<u64>()
            .map_err(|_| format!("--seconds takes a number, not {value:?}"))?,
        _ => return Err("usage: cargo xtask fuzz [--seconds N]".to_owned()),
    };
    let mut harness = cargo(
        root,
        &[
            "test",
            "--release",
            "-p",
            "palettizer-coreml",
            "-p",
            "palettizer-torch",
            "--test",
            "fuzz",
            "--",
            "--nocapture",
        ],
    );
    run(
        harness.env("PALETTIZER_FUZZ_SECONDS", seconds.to_string()),
        "the fuzz harnesses",
    )
}

/// The benchmark.
pub(crate) fn bench(root: &Path, args: &[String]) -> Result<(), String> {
    let found = environment(root)?;
    let built = build(root, &found, Profile::Release)?;
    run(
        with_environment(&found, &built, root, Profile::Release)?
            .arg("bench/vs_coremltools.py")
            .args(args),
        "bench/vs_coremltools.py",
    )
}

/// Any Python command in the tests' environment, with the release binary at hand.
pub(crate) fn python(root: &Path, args: &[String]) -> Result<(), String> {
    let found = environment(root)?;
    let built = build(root, &found, Profile::Release)?;
    run(
        with_environment(&found, &built, root, Profile::Release)?.args(args),
        "python",
    )
}

/// Everything that a change must pass.
pub(crate) fn ci(root: &Path, args: &[String]) -> Result<(), String> {
    if !args.is_empty() {
        return Err("usage: cargo xtask ci".to_owned());
    }
    run(
        Command::new(root.join(".ci/run")).current_dir(root),
        ".ci/run",
    )
}
