//! A weight file: records and the data that they point to.

use crate::support::{WEIGHTS, conv_model, linear_model};
use palettizer_coreml::blob::WeightFile;

/// Reads every blob that a record could be of.
pub(crate) fn read(data: &[u8]) -> bool {
    let Ok(file) = WeightFile::from_bytes("fuzz", data.to_vec()) else {
        return false;
    };
    let mut good = Vec::new();
    for offset in (0..file.len()).step_by(64).chain([1, file.len(), u64::MAX]) {
        if let Ok(blob) = file.blob(offset) {
            let bits = blob.elements() * u64::from(blob.dtype.bits().unwrap()) + blob.unused_bits;
            assert_eq!(bits, blob.data.len() as u64 * 8);
            good.push(offset);
        }
    }
    file.check_overlaps(&good).ok();
    file.release(0..u64::MAX);
    !good.is_empty()
}

/// Valid weight files.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let parts = [linear_model(), conv_model("CoreML6", 2, 2)];
    parts
        .map(|mut parts| parts.weights.remove(WEIGHTS).unwrap())
        .into()
}
