//! The folder beside an output in which it is built, and what dead runs have left of theirs.
//!
//! The folder is `.palettizer-` with random digits, and holds
//!
//! | name | is |
//! |---|---|
//! | `owner` | a file that the run which made the folder keeps locked; it says on which host that is |
//! | `new` | the output, while it is built |
//! | `old/NAME` | what was moved away from the output's name, if the system cannot exchange names |
//!
//! The system unlocks `owner` when the process ends, however it does, in a container or not. So whoever gets the lock has
//! found a folder of a dead run. If `old/NAME` and `new` are both there, the run was killed after it had moved the old
//! output away and before the new one was in its place: the old one is put back. Then the folder is removed. Several
//! runs may work in one place at a time; none disturbs a live one.
//!
//! When in doubt, a folder is left alone: on a network file system a lock may be known to its own host only, so that
//! folders of other hosts stay there.

use super::disk;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What the folders' names begin with. They are short, so that any name that the file system takes is one for an output.
const PREFIX: &str = ".palettizer-";

const OWNER: &str = "owner";

/// Where, in the folder, an output is built.
const NEW: &str = "new";

/// Where, in the folder, the output goes that is replaced.
const OLD: &str = "old";

/// A folder beside an output. It goes with this value.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked, where the file system can lock.
    owner: Option<File>,
}

impl Folder {
    /// Makes one in `parent`.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        loop {
            let path = parent.join(format!("{PREFIX}{:016x}", random()));
            match disk::create_private_folder(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let mut folder = Self { path, owner: None };
            // Another run may take the folder for a dead one's until it is locked. Then it is gone; here is another.
            if let Some(owner) = own(&folder.path)? {
                folder.owner = Some(owner);
                return Ok(folder);
            }
        }
    }

    /// Takes over the folder of a dead run.
    fn of_dead_run(path: &Path) -> Option<Self> {
        let owner = path.join(OWNER);
        match fs::symlink_metadata(&owner) {
            Ok(there) if there.is_file() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It was killed right after the first step, or right before the last one. If it has just begun, it makes
                // another folder.
                drop(disk::remove_folder(path));
                return None;
            }
            _ => return None,
        }
        let file = File::open(&owner).ok()?;
        file.try_lock().ok()?;
        let known =
            is_local(path) || host().is_some_and(|host| fs::read(&owner).ok() == Some(host));
        (known && owner.exists()).then(|| Self {
            path: path.to_owned(),
            owner: Some(file),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn new_output(&self) -> PathBuf {
        self.path.join(NEW)
    }

    /// Where an output of this name goes while another takes its place.
    pub(super) fn old_output(&self, out: &Path) -> PathBuf {
        self.path
            .join(OLD)
            .join(out.file_name().unwrap_or_default())
    }

    /// Puts back what was moved away, if nothing has come in its place.
    fn restore(&self) {
        let Some(parent) = self.path.parent().filter(|_| holds_old(&self.path)) else {
            return;
        };
        for entry in fs::read_dir(self.path.join(OLD))
            .into_iter()
            .flatten()
            .flatten()
        {
            // What cannot be put back stays where it is, and with it the folder.
            drop(disk::rename_new(
                &entry.path(),
                &parent.join(entry.file_name()),
            ));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What the user had is not ours to delete, whatever happened.
        if !holds_old(&self.path) {
            remove(&self.path, self.owner.take());
        }
    }
}

/// Whether there is an output that neither the old nor the new could take the place of.
pub(super) fn holds_old(folder: &Path) -> bool {
    let mut old = fs::read_dir(folder.join(OLD)).into_iter().flatten();
    old.next().is_some() && fs::symlink_metadata(folder.join(NEW)).is_ok()
}

/// Removes a folder, `owner` last: as long as anything else is in it, it can be told whose it is. `true` if it is gone.
///
/// What cannot be removed is left to the next run.
pub(super) fn remove(folder: &Path, lock: Option<File>) -> bool {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != OWNER {
            drop(disk::remove(&entry.path()));
        }
    }
    // Windows removes no folder in which a file is open.
    drop(lock);
    let only_owner = fs::read_dir(folder).is_ok_and(|entries| {
        let mut entries = entries.flatten();
        entries.all(|entry| entry.file_name() == OWNER)
    });
    if only_owner {
        drop(disk::remove_file(&folder.join(OWNER)));
        drop(disk::remove_folder(folder));
    }
    !folder.exists()
}

/// Makes `owner` in a new folder and locks it; `None` if another run has removed the folder.
fn own(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(OWNER);
    let mut file = match disk::NewFile::create(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        created => created?,
    };
    if let Err(fs::TryLockError::WouldBlock) = file.file().try_lock() {
        return Ok(None);
    }
    if !path.exists() {
        return Ok(None);
    }
    // Where it cannot be written, there is no telling on which host this was: then the folder stays if the run dies.
    drop(file.write_all(&host().unwrap_or_default()));
    Ok(Some(file.into_file()))
}

/// Removes what dead runs have left in a folder, and puts back what they had moved away.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes());
        if ours
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(folder) = Folder::of_dead_run(&entry.path())
        {
            folder.restore();
        }
    }
}

/// Puts back what a run that was killed had moved away from `path`, if it did. For whoever finds nothing there.
///
/// ```
/// palettizer_pipeline::staged_output::recover("Missing.mlpackage".as_ref());
/// ```
pub fn recover(path: &Path) {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = parent(&path).join(target),
            Err(_) => break,
        }
    }
    if let Err(error) = fs::symlink_metadata(&path)
        && error.kind() == io::ErrorKind::NotFound
    {
        sweep(parent(&path));
    }
}

/// As many links in a row are followed, as by Linux.
const MAX_LINKS: usize = 40;

/// The folder that a path is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// What to call a new folder.
fn random() -> u64 {
    // each of them has keys of its own
    RandomState::new().build_hasher().finish()
}

/// What tells this host, since it was started, from others: all processes that know each other's locks.
fn host() -> Option<Vec<u8>> {
    let id = fs::read("/proc/sys/kernel/random/boot_id");
    id.ok().filter(|id| !id.is_empty())
}

/// Whether locks in this folder are known to all who can change it. When in doubt, they are not.
#[cfg(target_os = "linux")]
fn is_local(folder: &Path) -> bool {
    /// ext, XFS, Btrfs, tmpfs, ramfs, overlayfs, F2FS, ZFS, bcachefs, eCryptfs, FAT, exFAT, NTFS (two drivers), JFS, HFS+
    const LOCAL: [u32; 16] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0x8584_58f6,
        0x794c_7630,
        0xf2f5_2010,
        0x2fc1_2fc1,
        0xca45_1a4e,
        0xf15f,
        0x4d44,
        0x2011_bab0,
        0x5346_544e,
        0x7366_746e,
        0x3153_464a,
        0x482b,
    ];
    // the type is 32 bits wide, in a word that may have a sign
    rustix::fs::statfs(folder).is_ok_and(|found| LOCAL.contains(&(found.f_type as u32)))
}

#[cfg(target_os = "macos")]
fn is_local(folder: &Path) -> bool {
    const MNT_LOCAL: u32 = 0x1000;
    rustix::fs::statfs(folder).is_ok_and(|found| found.f_flags & MNT_LOCAL != 0)
}

/// The servers of Windows' shares keep the locks themselves.
#[cfg(windows)]
fn is_local(_folder: &Path) -> bool {
    true
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
fn is_local(_folder: &Path) -> bool {
    false
}
