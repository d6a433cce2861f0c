//! The unfinished outputs of this process, for whoever ends it.
//!
//! A signal handler cannot reach into the call that is at work, so that the folders that would be left
//! behind are listed here, process-wide. Nothing is decided by this list: it is for tidying only.

use super::folder;
use crate::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished {
    folders: Vec::new(),
    closed: false,
});

struct Unfinished {
    folders: Vec<PathBuf>,
    /// Set when the process is about to end: nothing may be begun or put in place any more.
    closed: bool,
}

/// Removes every unfinished output of this process, and lets none be begun or put in place any more.
///
/// For a thread that handles Ctrl-C, right before it ends the process. A [`StagedOutput`](super::StagedOutput)
/// that is being put in place is waited for: afterwards either the old output is there or the new one,
/// whole.
pub fn remove_unfinished() {
    let mut unfinished = lock();
    unfinished.closed = true;
    for folder in &unfinished.folders {
        if folder::holds_old(folder) {
            // Neither could be put in place: what the user had is in here, and stays.
            continue;
        }
        // The thread at work may be adding a file at this moment, so that one pass may not be enough.
        for _ in 0..100 {
            if folder::remove(folder, None) {
                break;
            }
        }
    }
}

fn lock() -> MutexGuard<'static, Unfinished> {
    // A list of paths is good whatever happened to the thread that held it.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ending(path: &Path) -> Error {
    Error::output_place(path, "interrupted: the process is ending")
}

/// An entry of the list; it goes with this value.
#[derive(Debug)]
pub(super) struct Listed(PathBuf);

impl Listed {
    pub(super) fn new(folder: &Path) -> Result<Listed, Error> {
        let mut unfinished = lock();
        if unfinished.closed {
            return Err(ending(folder));
        }
        unfinished.folders.push(folder.to_owned());
        Ok(Listed(folder.to_owned()))
    }

    /// Runs `swap` while nobody can remove the folder under it.
    pub(super) fn undisturbed<T>(
        &self,
        swap: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let unfinished = lock();
        if unfinished.closed {
            return Err(ending(&self.0));
        }
        swap()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut unfinished = lock();
        unfinished.folders.retain(|folder| *folder != self.0);
    }
}
