//! What each task runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{Profile, cargo, run, target};
use crate::python::{Environment, environment};
use crate::steps::{Step, Steps};
use crate::wheel::{self, Installed};
use crate::{chromium, dataset};

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

/// Builds what the Python side works with: the command and the wheel. `--workspace` makes cargo resolve the features that
/// the tests and the wheel are built with; for the command alone there are fewer, and all would be built again.
fn build(root: &Path, found: &Environment, profile: Profile) -> Result<Installed, String> {
    let mut command = cargo(root, &["build", "--workspace", "--bin", "palettizer"]);
    run(command.args(["--profile", profile.name()]), "cargo build")?;
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
        .env(dataset::VARIABLE, &found.fashion_mnist)
        .env(chromium::VARIABLE, &found.chromium);
    if let Some(libraries) = chromium::libraries(&found.chromium) {
        command.env("PALETTIZER_CHROMIUM_LIBRARIES", libraries);
    }
    Ok(command)
}

/// The steps of [`test()`], with what they take on two cores.
fn test_steps() -> Vec<Step> {
    let step = |name, takes| Step { name, takes };
    vec![
        step(
            "Python environment",
            "seconds; the first time some minutes and 6 GB in the cache folder",
        ),
        step(
            "building the Rust tests",
            "from nothing about 5 minutes and 3 GB in the target folder",
        ),
        step("Rust tests and doctests", "about 2 minutes"),
        step("command and wheel", "about 1 minute"),
        step("Python tests", "about 25 minutes"),
    ]
}

/// All tests.
pub(crate) fn test(root: &Path, pytest_args: &[String]) -> Result<(), String> {
    let mut steps = Steps::new(test_steps());
    let found = steps.run(|| environment(root));
    for arguments in [
        &["test", "--workspace", "--no-run"][..],
        &["test", "--workspace"],
    ] {
        steps.run(|| {
            run(
                &mut cargo(root, arguments),
                &format!("cargo {}", arguments.join(" ")),
            )
        });
    }
    let Some(found) = found else {
        return steps.finish();
    };
    let Some(built) = steps.run(|| build(root, &found, Profile::Dev)) else {
        return steps.finish();
    };
    steps.run(|| pytest(root, &found, &built, pytest_args));
    steps.finish()
}

/// Processes that share the Python tests, whole files each: the tests have one thread.
const LANES: usize = 2;

/// The Python tests, of which the first process says what it does at once, and the others when they are done.
fn pytest(
    root: &Path,
    found: &Environment,
    built: &Installed,
    arguments: &[String],
) -> Result<(), String> {
    let command = |lanes: Option<&Path>| -> Result<Command, String> {
        let mut command = with_environment(found, built, root, Profile::Dev)?;
        command
            .args(["-m", "pytest", "tests/python"])
            .args(arguments);
        if let Some(lanes) = lanes {
            // the cache of one process would be written over by the other's
            let cache = ["-p", "no:cacheprovider"];
            command.env("PALETTIZER_LANES", lanes).args(cache);
        }
        Ok(command)
    };
    if !arguments.is_empty() {
        return run(&mut command(None)?, "pytest");
    }
    // what each process has begun; one that was killed may have left it
    let lanes = std::env::temp_dir().join(format!("palettizer-lanes-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&lanes);
    std::fs::create_dir(&lanes).map_err(|error| format!("{}: {error}", lanes.display()))?;
    let mut others = Vec::new();
    for _ in 1..LANES {
        let mut command = command(Some(&lanes))?;
        others.push(std::thread::spawn(move || command.output()));
    }
    let mut result = run(&mut command(Some(&lanes))?, "pytest");
    for other in others {
        let output = other
            .join()
            .map_err(|_| "a thread that waits for pytest ended".to_owned())?;
        let output = output.map_err(|error| format!("pytest: {error}"))?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            result = Err(format!("pytest failed: {}", output.status));
        }
    }
    let _ = std::fs::remove_dir_all(&lanes);
    result
}

/// Prints the folder of the environment's programs.
pub(crate) fn programs(root: &Path) -> Result<(), String> {
    let found = environment(root)?;
    let folder = found
        .python
        .parent()
        .ok_or("the environment has no folder")?;
    println!("{}", folder.display());
    Ok(())
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
            "palettizer-safetensors",
            "-p",
            "palettizer",
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
