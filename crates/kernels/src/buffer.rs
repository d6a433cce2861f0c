//! Memory that is used again.
//!
//! A large vector comes fresh from the system each time, page by page, and that takes as long as a pass over it. Models have many
//! weights, so each thread keeps a few vectors that it has done with. Nothing but time depends on them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Vectors that a thread keeps.
const KEPT: usize = 16;
/// Larger vectors are not kept: 16 of 1 MB are what a thread may hold on to, which is little beside a weight.
const LARGEST: usize = 1 << 17;

thread_local! {
    static POOL: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
}

/// A vector that goes back to its thread.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f64>);

impl Buffer {
    /// So many zeros. Where they come fresh from the system they are zeros already, and nothing waits for their pages until they are
    /// written.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Buffer::default();
        if buffer.capacity() < len {
            return Buffer(vec![0.0; len]);
        }
        buffer.resize(len, 0.0);
        buffer
    }
}

impl Default for Buffer {
    /// Empty.
    fn default() -> Self {
        let kept = POOL.try_with(|pool| pool.try_borrow_mut().ok().and_then(|mut pool| pool.pop()));
        Buffer(kept.ok().flatten().unwrap_or_default())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut values = std::mem::take(&mut self.0);
        if (1..=LARGEST).contains(&values.capacity()) {
            values.clear();
            // Where the thread is about to end, the vector is simply freed.
            let _ = POOL.try_with(|pool| {
                if let Ok(mut pool) = pool.try_borrow_mut()
                    && pool.len() < KEPT
                {
                    pool.push(values);
                }
            });
        }
    }
}

impl FromIterator<f64> for Buffer {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut buffer = Buffer::default();
        buffer.extend(values);
        buffer
    }
}

impl Deref for Buffer {
    type Target = Vec<f64>;

    fn deref(&self) -> &Vec<f64> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<f64> {
        &mut self.0
    }
}
