//! How far the work is, for whoever wants to show it, and whether it is still wanted.

use crate::Error;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hears how far the work is. Every method may be left out; calls come from one thread at a time.
///
/// ```
/// use palettizer_pipeline::Progress;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Bytes(AtomicU64);
/// impl Progress for Bytes {
///     fn advance(&self, _name: &str, bytes: u64) {
///         self.0.fetch_add(bytes, Ordering::Relaxed);
///     }
/// }
/// ```
pub trait Progress: Sync {
    /// The plan stands: so many weights, of so many bytes together, will be worked on.
    fn start(&self, weights: usize, bytes: u64) {
        let _ = (weights, bytes);
    }

    /// A weight of so many bytes is done.
    fn advance(&self, name: &str, bytes: u64) {
        let _ = (name, bytes);
    }

    /// All of them are.
    fn finish(&self) {}

    /// A flag that another thread sets when the work is no longer wanted. It ends soon then, with
    /// [`Error::Stopped`](crate::Error::Stopped), and leaves nothing behind.
    fn stop(&self) -> Option<&AtomicBool> {
        None
    }
}

/// Ends the work when it is no longer wanted.
pub fn go_on(stop: Option<&AtomicBool>) -> Result<(), Error> {
    match stop {
        Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::Stopped),
        _ => Ok(()),
    }
}

/// Hears nothing.
impl Progress for () {}
