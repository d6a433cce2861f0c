//! Whether work is still wanted.

use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that another thread sets when the work is no longer wanted. Whoever sees it set ends soon, with results of no use: it is for
/// the caller to look at the flag before it uses any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop<'a>(pub(crate) Option<&'a AtomicBool>);

impl Stop<'_> {
    #[inline]
    pub(crate) fn requested(self) -> bool {
        self.0.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}
