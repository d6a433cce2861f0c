//! Fashion-MNIST, which the accuracy tests train on: from Debian's package, or from a folder of the user's.

use std::path::{Path, PathBuf};

use crate::{cache, debian};

/// The variable that names a folder with the four files, and under which the tests find theirs.
pub(crate) const VARIABLE: &str = "PALETTIZER_FASHION_MNIST";

/// Debian's package, and where the files lie in it (and on a system that has it installed).
const PACKAGE: &str = "dataset-fashion-mnist";
const INSIDE: &str = "usr/share/datasets/fashion-mnist";

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
];

/// The folder with the four files.
pub(crate) fn fashion_mnist() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(named);
        return match missing(&folder) {
            None => Ok(folder),
            Some(file) => Err(format!(
                "{VARIABLE} is {}, which has no {file}",
                folder.display()
            )),
        };
    }
    let installed = Path::new("/").join(INSIDE);
    if missing(&installed).is_none() {
        return Ok(installed);
    }
    let unpacked = cache::folder(PACKAGE, |stage| {
        eprintln!("xtask: downloading {PACKAGE}");
        debian::package(stage, PACKAGE).map_err(|error| {
            format!(
                "{error}. Fashion-MNIST comes from Debian's package {PACKAGE}; elsewhere, put {} in a folder and \
                 name it with {VARIABLE}",
                FILES.join(", ")
            )
        })
    })?;
    let folder = unpacked.join(INSIDE);
    match missing(&folder) {
        None => Ok(folder),
        Some(file) => Err(format!(
            "{PACKAGE} has no {INSIDE}/{file}; remove {}",
            unpacked.display()
        )),
    }
}

fn missing(folder: &Path) -> Option<&'static str> {
    FILES.into_iter().find(|file| !folder.join(file).is_file())
}
