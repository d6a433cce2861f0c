//! The number types of compressed weights, and the rounding between them.

use half::{bf16, f16};

use super::DenseError;
use super::room;

/// A stored number. Everything here is exact in `f32`; 4-bit integers come widened to `i8`, `u8` or `i16`.
///
/// ```
/// use palettizer_palette::decode::Source;
///
/// assert_eq!(200_u8.to_f32(), 200.0);
/// assert!(!u8::WIDE);
/// ```
pub trait Source: Copy {
    /// Whether arithmetic with it is done in `f32` even where the scale is narrower.
    const WIDE: bool;

    /// The same number, in `f32`.
    fn to_f32(self) -> f32;
}

/// A number that a compressed weight can be made of.
///
/// ```
/// use palettizer_palette::decode::{Float, Source};
///
/// assert_eq!(half::f16::from_f32_rounded(2049.0).to_f32(), 2048.0);
/// ```
pub trait Float: Source + Default + Send + Sync {
    /// The nearest number of this type, ties to even, infinite on overflow.
    fn from_f32_rounded(value: f32) -> Self;
}

macro_rules! source {
    ($($type:ty, $wide:literal, $convert:expr;)*) => {$(
        impl Source for $type {
            const WIDE: bool = $wide;

            fn to_f32(self) -> f32 {
                let convert: fn($type) -> f32 = $convert;
                convert(self)
            }
        }
    )*};
}

source! {
    i8, false, f32::from;
    u8, false, f32::from;
    i16, false, f32::from;
    f16, false, f16::to_f32;
    bf16, false, bf16::to_f32;
    f32, true, |value| value;
}

impl Float for f16 {
    fn from_f32_rounded(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Float for bf16 {
    fn from_f32_rounded(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

impl Float for f32 {
    fn from_f32_rounded(value: f32) -> Self {
        value
    }
}

/// Element by element into another type: `constexpr_cast` is this from `f16` to `f32`, where it is exact.
///
/// # Errors
/// [`DenseError::OutOfMemory`].
///
/// ```
/// use half::f16;
///
/// let halves = [f16::from_f32(0.5), f16::NEG_INFINITY];
/// assert_eq!(palettizer_palette::decode::cast::<f16, f32>(&halves)?, [0.5, f32::NEG_INFINITY]);
/// # Ok::<(), palettizer_palette::decode::DenseError>(())
/// ```
pub fn cast<S: Source, F: Float>(source: &[S]) -> Result<Vec<F>, DenseError> {
    let mut out = room(source.len())?;
    out.extend(source.iter().map(|v| F::from_f32_rounded(v.to_f32())));
    Ok(out)
}
