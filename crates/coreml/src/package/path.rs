//! Paths that come from a file: in the manifest, and in the program's references to weight files.
//!
//! They are input from outside. What is let through is a relative path of plain names, so that joined
//! to the package it stays inside, on every system: no `..`, no root, no drive, no backslash.

use crate::Error;
use crate::package::PackageError;
use palettizer_pipeline::Error as PipelineError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What references to weight files begin with: the folder of the model's file.
pub(crate) const MODEL_PATH: &str = "@model_path/";

/// What is wrong with a path, if anything.
fn fault(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("is empty");
    }
    if path.starts_with('/') {
        return Some("is absolute");
    }
    if path.contains('\\') {
        return Some("has a backslash");
    }
    // A drive (`C:`), or a stream of a file on NTFS.
    if path.contains(':') {
        return Some("has a colon");
    }
    if path.chars().any(char::is_control) {
        return Some("has a control character");
    }
    path.split('/').find_map(|name| match name {
        ".." => Some("has a \"..\""),
        "." | "" => Some("has an empty or \".\" component"),
        _ => None,
    })
}

/// Passes a path of plain names; `manifest` is for the message. One slash at the end is no harm.
pub(super) fn relative(manifest: &Path, path: &str) -> Result<PathBuf, Error> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    match fault(trimmed) {
        None => Ok(PathBuf::from(trimmed)),
        Some(reason) => Err(PackageError::UnsafePath {
            path: manifest.to_owned(),
            found: path.to_owned(),
            reason,
        }
        .into()),
    }
}

/// The path, relative to the folder of the model's file, of a weight file named in the program.
pub(crate) fn weight_file(name: &str) -> Result<PathBuf, PackageError> {
    let refuse = |reason| {
        Err(PackageError::WeightFileName {
            found: name.to_owned(),
            reason,
        })
    };
    let Some(path) = name.strip_prefix(MODEL_PATH) else {
        return refuse("does not begin with \"@model_path/\"");
    };
    fault(path).map_or_else(|| Ok(PathBuf::from(path)), refuse)
}

/// Where `relative` lies in the package at `root`; `None` if nothing is there.
///
/// Links are followed, and must not lead out of the package.
pub(super) fn resolve(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Error> {
    let path = root.join(relative);
    let real = match path.canonicalize() {
        Ok(real) => real,
        // Anything else, such as a folder that may not be read, does not say that nothing is there.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(PipelineError::io(path, source).into()),
    };
    let real_root = root
        .canonicalize()
        .map_err(|source| PipelineError::io(root, source))?;
    if real.starts_with(real_root) {
        Ok(Some(path))
    } else {
        Err(PackageError::UnsafePath {
            path: root.to_owned(),
            found: relative.display().to_string(),
            reason: "is a link that leads out of the package",
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        let manifest = Path::new("Manifest.json");
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a/..",
            "a//b",
            "./a",
            "a\\b",
            "\\\\server\\a",
            "C:/a",
            "a:b",
            "a\nb",
            "a\0b",
        ] {
            let error = relative(manifest, bad).unwrap_err();
            assert!(
                matches!(error, Error::Package(PackageError::UnsafePath { .. })),
                "{bad:?}: {error}"
            );
            let name = format!("{MODEL_PATH}{bad}");
            let error = weight_file(&name).unwrap_err();
            assert!(
                matches!(error, PackageError::WeightFileName { .. }),
                "{bad:?}: {error}"
            );
        }
        assert!(weight_file("weights/weight.bin").is_err());
        assert_eq!(
            relative(manifest, "com.apple.CoreML/..weights/").unwrap(),
            Path::new("com.apple.CoreML/..weights")
        );
        assert_eq!(
            weight_file("@model_path/weights/0-weight.bin").unwrap(),
            Path::new("weights/0-weight.bin")
        );
    }
}
