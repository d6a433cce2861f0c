//! The user's cache folder, and folders in it that are either whole or absent.

use std::fs;
use std::path::{Path, PathBuf};

/// The project's folder in the user's cache.
pub(crate) fn root() -> Result<PathBuf, String> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = if let Some(cache) = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        cache
    } else if cfg!(windows) {
        variable("LOCALAPPDATA").ok_or("LOCALAPPDATA is not set")?
    } else {
        let home = variable("HOME").ok_or("HOME is not set, and neither is XDG_CACHE_HOME")?;
        home.join(if cfg!(target_os = "macos") {
            "Library/Caches"
        } else {
            ".cache"
        })
    };
    Ok(base.join("palettizer"))
}

/// The folder `name` in the cache, made by `fill` if it is not there.
///
/// It is filled under another name and renamed when `fill` is done, so that a run that was cut short leaves
/// nothing that a later one takes for whole; a second run at the same time does its own work and yields.
pub(crate) fn folder(
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let root = root()?;
    let whole = root.join(name);
    if whole.is_dir() {
        return Ok(whole);
    }
    let stage = root.join(format!("{name}.part-{}", std::process::id()));
    let failed = |what: &str, error: std::io::Error| format!("{what} {}: {error}", stage.display());
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(|error| failed("cannot clear", error))?;
    }
    fs::create_dir_all(&stage).map_err(|error| failed("cannot make", error))?;
    let filled = fill(&stage);
    if filled.is_ok() && !whole.is_dir() {
        match fs::rename(&stage, &whole) {
            Ok(()) => return Ok(whole),
            Err(error) if !whole.is_dir() => return Err(failed("cannot rename", error)),
            Err(_) => {}
        }
    }
    // A failure, or somebody else was faster: what was staged is of no use.
    let cleared = fs::remove_dir_all(&stage).map_err(|error| failed("cannot clear", error));
    filled.and(cleared).map(|()| whole)
}
