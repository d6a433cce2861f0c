//! Every call of this module that changes the disk: one small door, so that a test can end the process in front of each.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// A new file on its way to disk, in the folder of a [`StagedOutput`](super::StagedOutput).
#[derive(Debug)]
pub struct NewFile(File);

impl NewFile {
    /// Creates a file, which must not exist. It can be read as well.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        step();
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        options.open(path).map(NewFile)
    }

    /// The file, for reading.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// The same, for whoever does not write to it any more.
    pub(super) fn into_file(self) -> File {
        self.0
    }

    /// Syncs what was written to the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        step();
        self.0.sync_all()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step();
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Writes a new file and syncs it.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)?;
    file.sync()
}

/// Creates a folder that only this user can look into.
pub(super) fn create_private_folder(path: &Path) -> io::Result<()> {
    step();
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates a folder, and those above it that are missing.
///
/// # Errors
/// What the system says.
pub fn create_folders(path: &Path) -> io::Result<()> {
    step();
    fs::create_dir_all(path)
}

/// Copies a file.
///
/// # Errors
/// What the system says.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    step();
    fs::copy(from, to).map(drop)
}

/// Renames a file or a folder.
///
/// # Errors
/// What the system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step();
    fs::rename(from, to)
}

/// Renames to a name that nothing has; if something has it, the error is of the kind `AlreadyExists`.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    step();
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::EXIST) => return Err(io::ErrorKind::AlreadyExists.into()),
            // a file system that does not know the flag, or a fault that comes again below
            Err(_) => {}
        }
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Exchanges two names at once, where the system and the file system can.
pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    step();
    #[cfg(test)]
    if faults::no_exchange() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = (a, b);
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    step();
    fs::remove_file(path)
}

/// Removes an empty folder.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    step();
    fs::remove_dir(path)
}

/// Removes a file, or a folder with all that is in it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return remove_file(path);
    }
    // In pieces, so that a test can end the process between them.
    #[cfg(test)]
    for entry in fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    step();
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Lets this user change a folder and those in it.
fn make_writable(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mut permissions = fs::symlink_metadata(folder)?.permissions();
        permissions.set_mode(permissions.mode() | 0o700);
        fs::set_permissions(folder, permissions)?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Gives a file or a folder the owner and the permissions of another, as far as this user may.
#[cfg(unix)]
pub(super) fn take_after(path: &Path, model: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    step();
    let Ok(own) = fs::symlink_metadata(path) else {
        return;
    };
    if own.gid() != model.gid() {
        give(path, None, Some(model.gid()));
    }
    if own.uid() != model.uid() {
        give(path, Some(model.uid()), None);
    }
    if own.is_dir() == model.is_dir() {
        let mode = fs::Permissions::from_mode(model.mode() & 0o777);
        // The contents are right; that the mode could not be kept is no reason to fail.
        drop(fs::set_permissions(path, mode));
    }
}

/// Elsewhere permissions come from the folder.
#[cfg(not(unix))]
pub(super) fn take_after(_path: &Path, _model: &fs::Metadata) {}

/// Gives a file, or a folder with all that is in it, to a user or a group. Only root can give to any.
#[cfg(unix)]
fn give(path: &Path, user: Option<u32>, group: Option<u32>) {
    if std::os::unix::fs::lchown(path, user, group).is_err() {
        return;
    }
    if fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            give(&entry.path(), user, group);
        }
    }
}

/// Syncs a file that is written and closed.
///
/// # Errors
/// What the system says.
pub fn sync(path: &Path) -> io::Result<()> {
    step();
    // Windows syncs only through a handle that may write; elsewhere a read-only file is synced too.
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).append(cfg!(windows)).open(path);
    file.and_then(|file| file.sync_all())
}

/// Syncs the names in a folder, where the system can.
///
/// # Errors
/// What the system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    step();
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all())?;
    }
    Ok(())
}

/// In front of every change of the disk.
#[inline]
fn step() {
    #[cfg(test)]
    faults::step();
}

/// How a test ends the process in front of a change of its choice.
#[cfg(test)]
pub(super) mod faults {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    /// The exit code of a process that was ended.
    pub(in super::super) const KILLED: i32 = 77;

    /// Changes until the end; 0 for never.
    static LEFT: AtomicU32 = AtomicU32::new(0);
    static NO_EXCHANGE: AtomicBool = AtomicBool::new(false);

    /// Ends the process in front of the change of this number, counted from 1; never for 0.
    pub(in super::super) fn end_at(step: u32) {
        LEFT.store(step, SeqCst);
    }

    /// Stands for a file system that cannot exchange names.
    pub(in super::super) fn without_exchange(missing: bool) {
        NO_EXCHANGE.store(missing, SeqCst);
    }

    pub(super) fn no_exchange() -> bool {
        NO_EXCHANGE.load(SeqCst)
    }

    pub(super) fn step() {
        if LEFT.load(SeqCst) > 0 && LEFT.fetch_sub(1, SeqCst) == 1 {
            // As by SIGKILL, nothing is tidied up: no destructor runs.
            std::process::exit(KILLED);
        }
    }
}
