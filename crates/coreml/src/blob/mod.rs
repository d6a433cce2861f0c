//! Weight files: `weight.bin`, version 2.
//!
//! A file is a 64-byte header (u32 count, u32 version, zeros), then for each blob a 64-byte record and
//! its data, each at a multiple of 64. A record is u32 sentinel, u32 dtype, u64 size of the data in
//! bytes, u64 offset of the data, u64 unused bits at the end of the data, zeros; all little-endian. A
//! program refers to a blob by the offset of its record.
//!
//! Nothing lists the blobs, so a [`WeightFile`] reads the ones that it is asked for, and checks each
//! as it is read. It is mapped, not loaded: [`WeightFile::release`] gives pages back after use, so that
//! a large file needs no more memory than its largest tensor.

mod dtype;
mod error;
mod overlap;
mod read;
mod write;

pub use dtype::BlobDtype;
pub use error::BlobError;
pub use read::{Blob, WeightFile};
pub use write::WeightWriter;

/// Bytes of the file's header.
pub const HEADER_LEN: u64 = 64;

/// Bytes of a blob's record.
pub const RECORD_LEN: u64 = 64;

/// Records and data begin at multiples of this.
pub const ALIGNMENT: u64 = 64;

/// The version of the format that this is.
pub const VERSION: u32 = 2;

/// The first four bytes of a record.
pub const SENTINEL: u32 = 0xDEAD_BEEF;

/// The little-endian `u32` at `at`; `None` past the end.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

/// The little-endian `u64` at `at`; `None` past the end.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..at.checked_add(8)?)?
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
}
