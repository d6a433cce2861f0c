//! Debian's packages, unpacked in a folder: nothing is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::build::run;

/// Unpacks one package in `stage`.
pub(crate) fn package(stage: &Path, name: &str) -> Result<(), String> {
    download(stage, &["download", "-qq", name])?;
    unpack(stage)
}

/// Unpacks a package and all that it needs and the system has not, in `stage`.
pub(crate) fn with_dependencies(stage: &Path, name: &str) -> Result<(), String> {
    let archives = format!("Dir::Cache::archives={}", stage.display());
    let partial = stage.join("partial");
    fs::create_dir_all(&partial).map_err(|error| format!("{}: {error}", partial.display()))?;
    let only = [
        "install",
        "-qq",
        "--yes",
        "--download-only",
        "--no-install-recommends",
    ];
    let arguments = [
        &only[..],
        &["-o", "Debug::NoLocking=1", "-o", &archives, name],
    ]
    .concat();
    download(stage, &arguments)?;
    unpack(stage)
}

/// The lists of packages are brought up to date only if they do not know what is asked for.
fn download(stage: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut download = Command::new("apt-get");
    download.args(arguments).current_dir(stage);
    if run(&mut download, "apt-get").is_err() {
        run(
            Command::new("apt-get").args(["update", "-qq"]),
            "apt-get update",
        )?;
        run(&mut download, "apt-get")?;
    }
    Ok(())
}

fn unpack(stage: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", stage.display());
    let found = fs::read_dir(stage).map_err(failed)?.filter_map(Result::ok);
    let packages = found
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let packages: Vec<_> = packages.collect();
    if packages.is_empty() {
        return Err("apt-get brought no package".to_owned());
    }
    for package in packages {
        run(
            Command::new("dpkg-deb").arg("-x").arg(&package).arg(stage),
            "dpkg-deb -x",
        )?;
        fs::remove_file(&package).map_err(failed)?;
    }
    Ok(())
}
