//! Paths that must not be the same: nothing that a run reads or writes is also the place of something else that it writes.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Refuses a place that is another one, whatever they are called by: links are followed, hard links as well.
pub(crate) fn apart(
    place: &Path,
    what: &str,
    others: &[(Option<&Path>, &str)],
) -> Result<(), Failure> {
    let others = others
        .iter()
        .filter_map(|(path, other)| Some(((*path)?, other)));
    for (path, other) in others {
        // a pipe is not opened: that would wait for somebody at its other end
        let files = place.is_file() && path.is_file();
        let linked = || files && same_file::is_same_file(place, path).unwrap_or(false);
        if real(place) == real(path) || linked() {
            return Err(Failure::Usage(format!(
                "{what} must not be {other}: it would replace that"
            )));
        }
    }
    Ok(())
}

/// Refuses a place in a folder, as [`apart`] does.
pub(crate) fn outside(place: &Path, what: &str, folder: &Path, other: &str) -> Result<(), Failure> {
    match real(place).starts_with(real(folder)) {
        true => Err(Failure::Usage(format!("{what} must not lie in {other}"))),
        false => Ok(()),
    }
}

/// A path without links and dots, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let whole = path.canonicalize();
    whole.unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => {
            real(Path::new(".")).join(name)
        }
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => path.to_owned(),
    })
}
