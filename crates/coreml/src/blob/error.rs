//! What can be wrong with a weight file.

use std::path::PathBuf;

/// What can be wrong with a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// A weight file is too short for its header.
    #[error("{}: {len} bytes, too short for a weight file: its header has 64", file.display())]
    Header {
        /// The weight file.
        file: PathBuf,
        /// Its length.
        len: u64,
    },
    /// A weight file is of another version.
    #[error("{}: weight file of version {found}, expected 2", file.display())]
    Version {
        /// The weight file.
        file: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// A blob's offset leads past the end of the file.
    #[error("{}: no blob at offset {offset}: the file ends at {len}: truncated? Copy the package again", file.display())]
    Offset {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// The file's length.
        len: u64,
    },
    /// There is no blob where the program says.
    #[error("{}: no blob at offset {offset}: found {found:#010x} there, expected 0xdeadbeef: damaged, or of another model? Copy the package again", file.display())]
    Sentinel {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// What is there in place of the sentinel.
        found: u32,
    },
    /// A blob's element type is unknown.
    #[error("{}: the blob at offset {offset} has element type {found}, expected 1 to 17", file.display())]
    Dtype {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// The type's number.
        found: u32,
    },
    /// An element type that no weight file holds.
    #[error("{}: a weight file holds no {dtype} elements", file.display())]
    NoBlobType {
        /// The weight file.
        file: PathBuf,
        /// The element type.
        dtype: &'static str,
    },
    /// A blob has no data.
    #[error("{}: the blob at offset {offset} has no data, expected at least one byte", file.display())]
    Empty {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
    },
    /// A blob's data end past the end of the file.
    #[error(
        "{}: the blob at offset {offset} has {size} bytes at {data_offset}, but the file ends at {len}: truncated? Copy the package again",
        file.display()
    )]
    Truncated {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// Where its data begin.
        data_offset: u64,
        /// Their size.
        size: u64,
        /// The file's length.
        len: u64,
    },
    /// A blob's size is no whole number of elements.
    #[error(
        "{}: the blob at offset {offset} has {size} bytes less {unused_bits} unused bits, \
         which is no whole number of {dtype} elements with less than a byte unused",
        file.display()
    )]
    Padding {
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// The element type.
        dtype: &'static str,
        /// The size of the data in bytes.
        size: u64,
        /// The bits that belong to no element.
        unused_bits: u64,
    },
    /// Two blobs share bytes.
    #[error("{}: the blobs at offsets {first} and {second} overlap at byte {at}", file.display())]
    Overlap {
        /// The weight file.
        file: PathBuf,
        /// The offset of one blob's record; 0 for the file's header.
        first: u64,
        /// The offset of the other's.
        second: u64,
        /// The first byte that they share.
        at: u64,
    },
    /// A blob's size disagrees with the shape and type that the program gives.
    #[error(
        "constant \"{name}\": its type in the program is {expected}, but the blob at offset {offset} of {} holds {found}",
        file.display()
    )]
    Size {
        /// The constant.
        name: String,
        /// The weight file.
        file: PathBuf,
        /// The offset of the blob's record.
        offset: u64,
        /// What the blob holds, such as `12 fp16 elements`.
        found: String,
        /// What the program says, such as `16 fp16 elements`.
        expected: String,
    },
}
