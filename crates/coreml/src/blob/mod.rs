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

mod error;
mod overlap;
mod read;
mod write;

use crate::proto::DataType;
pub use error::BlobError;
pub use read::{Blob, SharedBytes, WeightFile};
use std::path::Path;
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
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

/// The little-endian `u64` at `at`; `None` past the end.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let long = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*long))
}

/// Whether elements are packed several to a byte, so that a blob may end in unused bits.
fn is_packed(dtype: DataType) -> bool {
    dtype.bits().is_some_and(|bits| bits < 8)
}

/// The elements that `len` bytes hold with `unused` bits left over; `None` if that cannot be.
fn elements(dtype: DataType, len: u64, unused: u64) -> Option<u64> {
    if unused >= 8 {
        return None;
    }
    // In u128 no size overflows.
    let used = (u128::from(len) * 8).checked_sub(u128::from(unused))?;
    let width = u128::from(dtype.bits()?);
    let whole = (used % width == 0).then_some(used / width)?;
    u64::try_from(whole).ok()
}

/// Refuses a blob without data, and one whose `size` bytes less `unused_bits` are no whole number of elements.
fn check_size(
    file: &Path,
    offset: u64,
    dtype: DataType,
    size: u64,
    unused_bits: u64,
) -> Result<(), BlobError> {
    let file = || file.to_owned();
    if size == 0 {
        return Err(BlobError::Empty {
            file: file(),
            offset,
        });
    }
    match elements(dtype, size, unused_bits) {
        Some(_) => Ok(()),
        None => Err(BlobError::Padding {
            file: file(),
            offset,
            dtype: dtype.name(),
            size,
            unused_bits,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_need_whole_ones_and_less_than_a_byte_unused() {
        assert_eq!(elements(DataType::UInt3, 2, 1), Some(5));
        assert_eq!(elements(DataType::UInt3, 2, 0), None);
        assert_eq!(elements(DataType::UInt1, 2, 8), None);
        assert_eq!(elements(DataType::Float32, 13, 0), None);
        assert_eq!(elements(DataType::UInt1, u64::MAX, 0), None);
    }
}
