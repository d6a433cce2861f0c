//! How much a file may unfold to.
//!
//! A compressed weight, and a program, can stand for far more bytes than they are stored in: 140 kB of tables of long
//! vectors for 8 GB. So what a file may unfold to follows its own size, and is checked before memory or disk is taken.

use crate::Error;

/// How many times its own size a model may unfold to, unless it is told otherwise.
///
/// What is honest: one bit for an fp16 or an fp32 element is 16 or 32 times; a bit for a vector of 16 fp32 elements, or of
/// 32 fp16 ones, is 512 times, and is coarser than any weight that still works. Masks have a bit for an element, however
/// few are kept. Forged tables reach tens of thousands.
pub const DEFAULT_MAX_EXPANSION: u64 = 512;

/// Every file may unfold to this many bytes: a small one, whose tables are large beside it, is no danger.
const FLOOR: u64 = 256 << 20;

/// The part of the expansion that the program has in memory: honest ones take up to seventy times their bytes, for an op
/// of a hundred bytes has maps and strings.
const PROGRAM_PART: u64 = 2;

/// How much a model or a checkpoint may unfold to, for its size.
///
/// ```
/// use palettizer_pipeline::Limits;
///
/// let limits = Limits::default().with_max_expansion(1000);
/// assert_eq!(limits.dense(1 << 30), 1000 << 30);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    max_expansion: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_expansion: DEFAULT_MAX_EXPANSION,
        }
    }
}

impl Limits {
    /// These limits with another expansion: dense weights may take so many times the bytes of the files.
    pub fn with_max_expansion(mut self, times: u64) -> Self {
        self.max_expansion = times;
        self
    }

    /// Bytes that the dense weights of files of `stored` bytes may come to.
    pub fn dense(self, stored: u64) -> u64 {
        stored.saturating_mul(self.max_expansion).max(FLOOR)
    }

    /// Bytes of memory that a program of `stored` bytes may take.
    pub fn program(self, stored: u64) -> u64 {
        self.dense(stored) / PROGRAM_PART
    }

    /// Passes `asked` bytes for what is called `name`, in files of `stored` bytes.
    ///
    /// # Errors
    /// [`Error::Expansion`].
    pub fn check(self, name: &str, asked: u64, stored: u64) -> Result<(), Error> {
        let allowed = self.dense(stored);
        match asked <= allowed {
            true => Ok(()),
            false => Err(Error::Expansion {
                name: name.to_owned(),
                asked,
                stored,
                allowed,
            }),
        }
    }
}
