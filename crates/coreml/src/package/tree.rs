//! What is in a package's folder: whatever we do not know has to be in the output too.

use super::path;
use crate::Error;
use crate::package::PackageError;
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::mapped_file;
use std::fs;
use std::path::{Path, PathBuf};

/// More entries than this are no package.
const MAX_ENTRIES: usize = 100_000;

/// Folders nested deeper than this are no package.
const MAX_DEPTH: usize = 32;

/// The files and folders of a package, by their paths in it, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) folders: Vec<PathBuf>,
}

impl Tree {
    /// Lists the folder at `root`. A link to a file in the package counts as a file.
    pub(super) fn read(root: &Path) -> Result<Tree, Error> {
        let mut tree = Tree::default();
        tree.list(root, Path::new(""), 0)?;
        // The order in which a file system lists its entries is its own.
        tree.files.sort_unstable();
        tree.folders.sort_unstable();
        Ok(tree)
    }

    fn list(&mut self, root: &Path, folder: &Path, depth: usize) -> Result<(), Error> {
        let too_many = |what, limit| {
            Err(Error::from(PackageError::TooMany {
                path: root.to_owned(),
                what,
                limit,
            }))
        };
        if depth > MAX_DEPTH {
            return too_many("levels of folders", MAX_DEPTH);
        }
        let here = root.join(folder);
        let io = |source| PipelineError::io(&here, source);
        for entry in fs::read_dir(&here).map_err(io)? {
            let entry = entry.map_err(io)?;
            let kind = entry.file_type().map_err(io)?;
            let relative = folder.join(entry.file_name());
            if self.files.len() + self.folders.len() >= MAX_ENTRIES {
                return too_many("files and folders", MAX_ENTRIES);
            }
            if kind.is_dir() {
                self.folders.push(relative.clone());
                self.list(root, &relative, depth + 1)?;
            } else if kind.is_file() || (kind.is_symlink() && links_to_file(root, &relative)?) {
                self.files.push(relative);
            } else {
                return Err(PipelineError::NotAFile {
                    path: entry.path(),
                    found: mapped_file::kind(kind),
                }
                .into());
            }
        }
        Ok(())
    }
}

fn links_to_file(root: &Path, relative: &Path) -> Result<bool, Error> {
    Ok(path::resolve(root, relative)?.is_some_and(|path| path.is_file()))
}
