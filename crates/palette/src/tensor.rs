//! One weight as bytes: dtype, shape, little-endian row-major data.

use std::borrow::Cow;

use bytemuck::Pod;
use thiserror::Error;

/// The element types a weight can have here.
///
/// ```
/// use palettizer_palette::Dtype;
///
/// assert_eq!((Dtype::BF16.size(), Dtype::BF16.name()), (2, "bf16"));
/// assert!(!Dtype::I8.is_float());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// Signed bytes: the data of a quantized weight.
    I8,
    /// Unsigned bytes: the data of a quantized weight.
    U8,
}

impl Dtype {
    /// Every dtype.
    pub const ALL: [Dtype; 5] = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::I8, Dtype::U8];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::F32 => 4,
            Dtype::I8 | Dtype::U8 => 1,
        }
    }

    /// The name users see: `fp16`, `bf16`, `fp32`, `int8` or `uint8`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "fp16",
            Dtype::BF16 => "bf16",
            Dtype::F32 => "fp32",
            Dtype::I8 => "int8",
            Dtype::U8 => "uint8",
        }
    }

    /// Whether it is one of the float types.
    pub fn is_float(self) -> bool {
        !matches!(self, Dtype::I8 | Dtype::U8)
    }
}

/// Shape and bytes that do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TensorError {
    /// The number of bytes does not fit in memory.
    #[error("a {} tensor of shape {shape:?} has more bytes than this machine can address", .dtype.name())]
    TooLarge {
        /// The element type.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
    },
    /// Too few or too many bytes.
    #[error("a {} tensor of shape {shape:?} has {expected} bytes, found {found}", .dtype.name())]
    Length {
        /// The element type.
        dtype: Dtype,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes wanted.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

/// A borrowed weight: little-endian, row-major, of any alignment.
///
/// ```
/// use palettizer_palette::{Dtype, Tensor};
///
/// let tensor = Tensor::new(Dtype::I8, &[2, 3], &[1, 2, 3, 4, 5, 6])?;
/// assert_eq!(tensor.len(), 6);
/// assert!(Tensor::new(Dtype::F16, &[2, 3], &[0; 6]).is_err());
/// # Ok::<(), palettizer_palette::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Tensor<'a> {
    /// Puts shape and bytes together.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] when the product of the shape overflows, [`TensorError::Length`] when the bytes
    /// are not exactly that many.
    pub fn new(dtype: Dtype, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self, TensorError> {
        let too_large = || TensorError::TooLarge {
            dtype,
            shape: shape.to_vec(),
        };
        let len = shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d))
            .ok_or_else(too_large)?;
        let expected = len.checked_mul(dtype.size()).ok_or_else(too_large)?;
        if bytes.len() != expected {
            return Err(TensorError::Length {
                dtype,
                shape: shape.to_vec(),
                expected,
                found: bytes.len(),
            });
        }
        Ok(Tensor {
            dtype,
            shape,
            bytes,
            len,
        })
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Bytes as elements: borrowed when they lie right, copied when they do not. A remainder of less than one element
/// is dropped; callers have checked the length.
pub(crate) fn elements<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    let whole = bytes.len() - bytes.len() % size_of::<T>().max(1);
    let bytes = &bytes[..whole];
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) => Cow::Borrowed(elements),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// An axis that may be counted from the end, from the front; `None` when out of range.
pub(crate) fn from_front(axis: i64, rank: usize) -> Option<usize> {
    let back = usize::try_from(axis.unsigned_abs()).ok()?;
    let front = if axis < 0 {
        rank.checked_sub(back)?
    } else {
        back
    };
    (front < rank).then_some(front)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn refuses_what_does_not_fit() {
        let huge = [usize::MAX, 2];
        assert!(matches!(
            Tensor::new(Dtype::I8, &huge, &[]),
            Err(TensorError::TooLarge { .. })
        ));
        assert!(matches!(
            Tensor::new(Dtype::F32, &[usize::MAX / 2], &[]),
            Err(TensorError::TooLarge { .. })
        ));
        let error = Tensor::new(Dtype::F16, &[2, 2], &[0; 7]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a fp16 tensor of shape [2, 2] has 8 bytes, found 7"
        );
        assert_eq!(Tensor::new(Dtype::F32, &[], &[0; 4]).unwrap().len(), 1);
        assert!(Tensor::new(Dtype::F32, &[0, 5], &[]).unwrap().is_empty());
    }

    #[test]
    fn unaligned_bytes_are_copied() {
        let bytes: Vec<u8> = (0..9).collect();
        let all: Vec<Vec<u16>> = (0..2)
            .map(|at| {
                elements::<f16>(&bytes[at..at + 8])
                    .iter()
                    .map(|v| v.to_bits())
                    .collect()
            })
            .collect();
        assert_eq!(all[0], [0x0100, 0x0302, 0x0504, 0x0706]);
        assert_eq!(all[1], [0x0201, 0x0403, 0x0605, 0x0807]);
    }
}
