//! What the compressed forms of a Core ML weight stand for.
//!
//! One function for each `constexpr_…` op, on plain slices; [`Palette::decompress`](crate::Palette::decompress) and
//! the decompressor of Core ML files both go through here, so there is one meaning of each form.
//!
//! | op | function |
//! |---|---|
//! | `constexpr_lut_to_dense` (iOS16, iOS18) | [`lut_to_dense`] |
//! | `constexpr_blockwise_shift_scale` | [`shift_scale`] |
//! | `constexpr_affine_dequantize` | [`affine_dequantize`] |
//! | `constexpr_sparse_to_dense` | [`sparse_to_dense`] |
//! | `constexpr_lut_to_sparse` | [`lut_to_sparse`] |
//! | `constexpr_sparse_blockwise_shift_scale` | [`sparse_shift_scale`] |
//! | `constexpr_cast` | [`cast`] |
//!
//! Cost: one pass over the output, nothing of its size allocated beside it. Inputs come from files and may be
//! hostile: every shape is checked with overflow in mind, outputs above [`MAX_ELEMENTS`] are refused, memory is
//! asked for before it is used, and an error says what disagreed. Sub-byte types are unpacked by the caller, but for indices of
//! [`lut_to_dense_in`].
//!
//! Source: coremltools 9.0, whose NumPy arithmetic is matched bit for bit in fp16 and fp32. Deviations:
//! 1. A float offset wider than the scale: the difference is taken in the wider type, and the product is rounded
//!    to the scale's type, which is the type the op declares (NumPy would return the wider one).
//! 2. Padding bits behind the last bit of a mask are ignored; there, an iOS16 mask with any set is refused.

mod affine;
mod blocks;
mod decompress;
mod error;
mod float;
mod lut;
mod restore;
mod shift_scale;
mod sparse;
mod widen;

pub use affine::{Affine, affine_dequantize};
pub(crate) use blocks::{block_of, check as check_blocks};
pub(crate) use decompress::signed;
pub use error::DenseError;
pub use float::{Float, Source, cast};
pub use lut::{Packed, dense_shape, lut_to_dense, lut_to_dense_in};
pub(crate) use lut::{elements_of, uses};
pub use shift_scale::shift_scale;
pub use sparse::{Sparse, kept, lut_to_sparse, sparse_shift_scale, sparse_to_dense};
pub(crate) use sparse::{is_kept, ones, positions};

/// The most elements a reconstruction may have: 2^33.
pub const MAX_ELEMENTS: usize = 1 << 33;

/// The product of a shape.
///
/// # Errors
/// [`DenseError::TooLarge`] above [`MAX_ELEMENTS`].
///
/// ```
/// use palettizer_palette::decode;
///
/// assert_eq!(decode::count(&[2, 3, 4]), Ok(24));
/// assert_eq!(decode::count(&[usize::MAX, 3, 0]), Ok(0));
/// assert!(decode::count(&[usize::MAX, 3]).is_err());
/// ```
pub fn count(shape: &[usize]) -> Result<usize, DenseError> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1_usize, |n, &d| {
            n.checked_mul(d).filter(|&n| n <= MAX_ELEMENTS)
        })
        .ok_or_else(|| DenseError::TooLarge {
            shape: shape.to_vec(),
        })
}

/// An empty vector with room for `len` elements.
pub(crate) fn room<T>(len: usize) -> Result<Vec<T>, DenseError> {
    let mut out = Vec::new();
    out.try_reserve_exact(len)
        .map_err(|_| DenseError::OutOfMemory { elements: len })?;
    Ok(out)
}

pub(crate) fn check_length(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), DenseError> {
    if expected == found {
        Ok(())
    } else {
        Err(DenseError::Length {
            what,
            expected,
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let found = room::<u64>(usize::MAX);
        let elements = usize::MAX;
        assert_eq!(found, Err(DenseError::OutOfMemory { elements }));
        assert_eq!(room::<u64>(3).map(|v| v.len()), Ok(0));
    }
}
