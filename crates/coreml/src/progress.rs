//! How far the work is, for whoever wants to show it.

/// Hears how far the work is. Every method may be left out; calls come from one thread at a time.
///
/// ```
/// use palettizer_coreml::Progress;
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
}

/// Hears nothing.
impl Progress for () {}
