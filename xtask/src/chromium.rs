//! A Chromium, in which pages are tested: the user's, or Debian's.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{cache, debian};

/// The variable that names a Chromium or Chrome, and under which the tests find theirs.
pub(crate) const VARIABLE: &str = "PALETTIZER_CHROMIUM";

/// Where it is looked for.
const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
const APPLICATIONS: [&str; 2] = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/// Debian's package, and where the program lies in it.
const PACKAGE: &str = "chromium";
const INSIDE: &str = "usr/lib/chromium/chromium";

/// A browser.
pub(crate) fn chromium() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!(
                "{VARIABLE} is {}, which is no file",
                path.display()
            )),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let programs = PROGRAMS
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let applications = APPLICATIONS.iter().map(PathBuf::from);
    if let Some(found) = programs.chain(applications).find(|path| path.is_file()) {
        return Ok(found);
    }
    let unpacked = cache::folder("chromium", |stage| {
        eprintln!("xtask: downloading {PACKAGE}");
        debian::with_dependencies(stage, PACKAGE).map_err(|error| {
            format!("{error}. Pages are tested in Chromium; install it or Chrome, or name one with {VARIABLE}")
        })
    })?;
    let program = unpacked.join(INSIDE);
    match program.is_file() {
        true => Ok(program),
        false => Err(format!(
            "{PACKAGE} has no {INSIDE}; remove {}",
            unpacked.display()
        )),
    }
}

/// Where the libraries lie that came with a browser from the cache, for the system's loader: some
/// packages keep theirs in folders of their own, which they find by absolute paths.
pub(crate) fn libraries(program: &Path) -> Option<OsString> {
    let unpacked = Path::new(program.to_str()?.strip_suffix(INSIDE)?);
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let found = ["usr/lib", "lib"].map(|place| unpacked.join(place).join(&triple));
    let folders = found.into_iter().filter(|folder| folder.is_dir());
    let all = folders.flat_map(|folder| {
        let inside = fs::read_dir(&folder).into_iter().flatten();
        let inside = inside.filter_map(|entry| Some(entry.ok()?.path()));
        let mut inside: Vec<PathBuf> = inside.filter(|path| path.is_dir()).collect();
        inside.sort();
        inside.insert(0, folder);
        inside
    });
    std::env::join_paths(all)
        .ok()
        .filter(|joined| !joined.is_empty())
}
