//! Saving: build the output beside its place, then rename.
//!
//! A package is a folder, and no system replaces a folder's contents in one step. So every output, a file as well, is built
//! in a temporary folder next to its place (renaming works within one file system only), synced to disk, and then put in
//! place by one step: a renaming, or an exchange of two names. Until that moment nothing at the output's place has
//! changed, so that an input may be its own output, and a full disk, an error or Ctrl-C leaves nothing behind but what was
//! there. A process that is killed leaves its temporary folder; the next one that writes there removes it. Where names
//! cannot be exchanged, a kill between two renamings leaves the old output in the temporary folder; the next run puts it
//! back.
//!
//! | module | holds |
//! |---|---|
//! | `staged` | an output on its way |
//! | `place` | what may be replaced by what |
//! | `folder` | the temporary folder, who owns it, and those of dead runs |
//! | `swap` | the last step |
//! | `registry` | the unfinished outputs of this process, for Ctrl-C |
//! | `disk` | every call that changes the disk |

pub mod disk;
mod folder;
mod place;
mod registry;
mod staged;
mod swap;
#[cfg(test)]
mod tests;

pub use disk::NewFile;
pub use folder::recover;
pub use place::is_package;
pub use registry::remove_unfinished;
pub use staged::{SaveOptions, StagedOutput};
