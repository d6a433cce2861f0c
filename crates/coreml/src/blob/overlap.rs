//! Whether blobs of a file overlap.
//!
//! Two blobs that share bytes are no format that anybody writes: one is a forged offset, and
//! compressing both would count the same bytes twice.

use super::{HEADER_LEN, RECORD_LEN, WeightFile};
use crate::Error;
use crate::blob::BlobError;
use std::ops::Range;

/// The header and each blob's record and data must be apart.
pub(super) fn check(file: &WeightFile, offsets: &[u64]) -> Result<(), Error> {
    let mut offsets = offsets.to_vec();
    offsets.sort_unstable();
    offsets.dedup();
    // Each range with the offset of the blob that it belongs to; the header belongs to offset 0, where
    // no blob can be.
    let mut ranges: Vec<(Range<u64>, u64)> = vec![(0..HEADER_LEN, 0)];
    for offset in offsets {
        let blob = file.blob(offset)?;
        ranges.push((offset..offset.saturating_add(RECORD_LEN), offset));
        ranges.push((blob.data_range(), offset));
    }
    ranges.sort_unstable_by_key(|(range, offset)| (range.start, *offset));
    for pair in ranges.windows(2) {
        let [(before, first), (after, second)] = pair else {
            continue;
        };
        if after.start < before.end {
            return Err(BlobError::Overlap {
                file: file.path().to_owned(),
                first: *first,
                second: *second,
                at: after.start,
            }
            .into());
        }
    }
    Ok(())
}
