//! Memory of the process.

/// Gives memory that was freed back to the system.
///
/// glibc keeps it for the thread that it was made on, and long work may be on another thread of its pool each time: what one call
/// freed would be beside what the next one makes.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a function of C")]
    // SAFETY: it takes no pointer, and locks what it changes.
    unsafe {
        libc::malloc_trim(0);
    }
}
