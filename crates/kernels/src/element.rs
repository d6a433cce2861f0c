//! The three weight types, as a histogram sees them: 16 bits (few possible values, so count them all) or 32 bits.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A weight element: `half::f16`, `half::bf16` or `f32`. Sealed.
///
/// ```
/// use palettizer_kernels::Element;
/// assert_eq!(half::f16::from_f32(0.5).to_f32(), 0.5);
/// assert_eq!(<f32 as Element>::BITS, 32);
/// ```
pub trait Element: Copy + Send + Sync + PartialEq + 'static + sealed::Sealed {
    /// Width of the stored form.
    const BITS: u32;
    /// Widens; exact.
    fn to_f32(self) -> f32;
    /// Narrows, rounding to the nearest value, ties to even; overflow becomes infinite.
    fn from_f32(value: f32) -> Self;
}

pub(crate) mod sealed {
    /// What the slices of an element are made of.
    pub enum Bits<'a> {
        /// Bit patterns of a 16-bit float.
        Half(&'a [u16]),
        /// 32-bit floats.
        Single(&'a [f32]),
    }

    pub trait Sealed: Sized {
        /// Bit pattern of +infinity; unused for 32-bit elements.
        const INFINITY: u16;
        /// The slice without its type.
        fn bits(values: &[Self]) -> Bits<'_>;
        /// Value of a 16-bit pattern; unused for 32-bit elements.
        fn decode(bits: u16) -> f32;
    }
}

use sealed::{Bits, Sealed};

/// The two types of 16 bits, each with its infinity and what a bit pattern stands for.
macro_rules! half {
    ($($half:ty: $infinity:literal, $decode:expr;)*) => {$(
        impl Sealed for $half {
            const INFINITY: u16 = $infinity;
            fn bits(values: &[Self]) -> Bits<'_> {
                Bits::Half(values.reinterpret_cast())
            }
            fn decode(bits: u16) -> f32 {
                $decode(bits)
            }
        }

        impl Element for $half {
            const BITS: u32 = 16;
            fn to_f32(self) -> f32 {
                <$half>::to_f32(self)
            }
            fn from_f32(value: f32) -> Self {
                <$half>::from_f32(value)
            }
        }
    )*};
}

half! {
    f16: 0x7c00, |bits| f16::from_bits(bits).to_f32_const();
    bf16: 0x7f80, |bits| f32::from_bits(u32::from(bits) << 16);
}

impl Sealed for f32 {
    const INFINITY: u16 = 0;
    fn bits(values: &[Self]) -> Bits<'_> {
        Bits::Single(values)
    }
    fn decode(_bits: u16) -> f32 {
        0.0
    }
}

impl Element for f32 {
    const BITS: u32 = 32;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
}
