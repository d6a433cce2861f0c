//! Bad weight files: one test for each error, and nothing but errors.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use palettizer_coreml::Error;
use palettizer_coreml::blob::BlobError;
use palettizer_coreml::blob::{WeightFile, WeightWriter};
use palettizer_coreml::proto::DataType;
use std::fs;
use std::io::Cursor;
use tempfile::TempDir;

macro_rules! assert_error {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        let message = error.to_string();
        assert!(message.len() < 500 && !message.contains('\n'), "{message}");
    };
}

/// A weight file of two blobs, 10 fp16 and 5 uint3 elements; and their offsets.
fn blobs() -> (Vec<u8>, u64, u64) {
    let mut writer = WeightWriter::new(Cursor::new(Vec::new())).unwrap();
    let first = writer.append(DataType::Float16, &[7; 20], 0).unwrap();
    let second = writer.append(DataType::UInt3, &[0x88, 0x46], 1).unwrap();
    (writer.finish().unwrap().into_inner(), first, second)
}

/// The blob file after a change of the eight bytes at `at`.
fn patched(at: u64, value: u64) -> WeightFile {
    let (mut bytes, ..) = blobs();
    bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    WeightFile::from_bytes("w.bin", bytes).unwrap()
}

#[test]
fn weight_files_without_a_header() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.bin");
    for len in [0, 1, 63] {
        fs::write(&path, vec![2; len]).unwrap();
        assert_error!(WeightFile::open(&path).unwrap_err(), Error::Blob(BlobError::Header { len: found, .. }) if *found == len as u64);
        assert_error!(
            WeightFile::from_bytes("w", vec![2; len]).unwrap_err(),
            Error::Blob(BlobError::Header { .. })
        );
    }
}

#[test]
fn weight_files_of_another_version() {
    for version in [0, 1, 3] {
        let mut bytes = blobs().0;
        bytes[4] = version;
        assert_error!(WeightFile::from_bytes("w", bytes).unwrap_err(), Error::Blob(BlobError::Version { found, .. }) if *found == u32::from(version));
    }
}

#[test]
fn offsets_past_the_end() {
    let (bytes, _, second) = blobs();
    let len = bytes.len() as u64;
    let file = WeightFile::from_bytes("w", bytes).unwrap();
    for offset in [len - 63, len, 1 << 40, u64::MAX - 63, u64::MAX] {
        assert!(offset > second);
        assert_error!(
            file.blob(offset).unwrap_err(),
            Error::Blob(BlobError::Offset { .. })
        );
    }
}

#[test]
fn a_wrong_sentinel() {
    let (_, first, _) = blobs();
    assert_error!(
        patched(first, 0xdead).blob(first).unwrap_err(),
        Error::Blob(BlobError::Sentinel { found: 0xdead, .. })
    );
    assert_error!(
        patched(first, 0).blob(0).unwrap_err(),
        Error::Blob(BlobError::Sentinel { .. })
    );
}

#[test]
fn an_unknown_element_type() {
    let (_, first, _) = blobs();
    for dtype in [0, 18, u64::from(u32::MAX)] {
        let file = patched(first, 0xdead_beef | dtype << 32);
        assert_error!(file.blob(first).unwrap_err(), Error::Blob(BlobError::Dtype { found, .. }) if u64::from(*found) == dtype);
    }
}

#[test]
fn blobs_without_data() {
    let (_, first, _) = blobs();
    assert_error!(
        patched(first + 8, 0).blob(first).unwrap_err(),
        Error::Blob(BlobError::Empty { .. })
    );
    let mut writer = WeightWriter::new(Cursor::new(Vec::new())).unwrap();
    assert_error!(
        writer.append(DataType::UInt8, &[], 0).unwrap_err(),
        Error::Blob(BlobError::Empty { .. })
    );
}

#[test]
fn truncated_blobs() {
    let (mut bytes, first, second) = blobs();
    for size in [1 << 20, 1 << 62, u64::MAX] {
        assert_error!(patched(first + 8, size).blob(first).unwrap_err(), Error::Blob(BlobError::Truncated { size: found, .. }) if *found == size);
    }
    for at in [1 << 20, 1 << 62, u64::MAX] {
        assert_error!(
            patched(first + 16, at).blob(first).unwrap_err(),
            Error::Blob(BlobError::Truncated { .. })
        );
    }
    bytes.pop();
    let file = WeightFile::from_bytes("w", bytes).unwrap();
    assert_error!(
        file.blob(second).unwrap_err(),
        Error::Blob(BlobError::Truncated { .. })
    );
    file.blob(first).unwrap();
}

#[test]
fn blobs_of_no_whole_number_of_elements() {
    let (_, first, second) = blobs();
    assert_error!(
        patched(first + 8, 19).blob(first).unwrap_err(),
        Error::Blob(BlobError::Padding { .. })
    );
    for unused in [0, 2, 3, 8, 9, u64::MAX] {
        assert_error!(
            patched(second + 24, unused).blob(second).unwrap_err(),
            Error::Blob(BlobError::Padding { .. })
        );
    }
    assert_eq!(patched(second + 24, 4).blob(second).unwrap().elements(), 4);
    let mut writer = WeightWriter::new(Cursor::new(Vec::new())).unwrap();
    assert_error!(
        writer.append(DataType::Float32, &[0; 6], 0).unwrap_err(),
        Error::Blob(BlobError::Padding { .. })
    );
}

#[test]
fn unused_bits_of_whole_bytes_do_not_count() {
    // coremltools' reader does not look at them either.
    let (_, first, _) = blobs();
    let file = patched(first + 24, u64::MAX);
    let blob = file.blob(first).unwrap();
    assert_eq!((blob.elements(), blob.unused_bits), (10, 0));
}

#[test]
fn overlapping_blobs() {
    let (bytes, first, second) = blobs();
    let file = WeightFile::from_bytes("w", bytes).unwrap();
    file.check_overlaps(&[first, second, first]).unwrap();
    file.check_overlaps(&[]).unwrap();
    // Its data over the other's, into the other's record, over its own record, over the header.
    for at in [second + 46, second - 1, first + 1, 60] {
        let file = patched(first + 16, at);
        file.blob(first).unwrap();
        assert_error!(
            file.check_overlaps(&[first, second]).unwrap_err(),
            Error::Blob(BlobError::Overlap { .. })
        );
    }
    // What nobody refers to does not matter.
    patched(first + 16, second + 46)
        .check_overlaps(&[first])
        .unwrap();
    assert_error!(
        file.check_overlaps(&[first, 3]).unwrap_err(),
        Error::Blob(BlobError::Sentinel { .. })
    );
}
