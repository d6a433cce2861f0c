//! Stored elements as numbers: what a constexpr op computes with.

use crate::proto::DataType;
use half::{bf16, f16};
use std::collections::TryReserveError;

/// The elements of a constant, typed. 4-bit integers are widened to 8.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Numbers {
    I8(Vec<i8>),
    U8(Vec<u8>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    F32(Vec<f32>),
}

/// Runs `$body` with `$slice` bound to the elements of `$numbers`, whatever their type.
macro_rules! each_type {
    ($numbers:expr, $slice:ident => $body:expr) => {
        match $numbers {
            Numbers::I8($slice) => $body,
            Numbers::U8($slice) => $body,
            Numbers::F16($slice) => $body,
            Numbers::BF16($slice) => $body,
            Numbers::F32($slice) => $body,
        }
    };
}

/// As `each_type`, for the floating types; `$other` for an integer.
macro_rules! each_float {
    ($numbers:expr, $slice:ident => $body:expr, $other:expr) => {
        match $numbers {
            Numbers::F16($slice) => $body,
            Numbers::BF16($slice) => $body,
            Numbers::F32($slice) => $body,
            _ => $other,
        }
    };
}

pub(crate) use {each_float, each_type};

impl Numbers {
    /// Reads `elements` elements of `dtype`; `None` for a type that no constexpr op computes with.
    pub(crate) fn read(
        dtype: DataType,
        bytes: &[u8],
        elements: usize,
    ) -> Result<Option<Self>, TryReserveError> {
        Ok(Some(match dtype {
            DataType::Int8 => Numbers::I8(collected(bytes.iter().map(|&b| b.cast_signed()))?),
            DataType::UInt8 => Numbers::U8(collected(bytes.iter().copied())?),
            DataType::Int4 => {
                let Some(wide) = unpack(bytes, 4, elements)? else {
                    return Ok(None);
                };
                // Sign-extended from the low four bits.
                let signed = wide.iter().map(|&b| (b << 4).cast_signed() >> 4);
                Numbers::I8(collected(signed)?)
            }
            DataType::UInt1
            | DataType::UInt2
            | DataType::UInt3
            | DataType::UInt4
            | DataType::UInt6 => match unpack(bytes, dtype.bits().unwrap_or(8), elements)? {
                Some(wide) => Numbers::U8(wide),
                None => return Ok(None),
            },
            DataType::Float16 => Numbers::F16(chunks(bytes, f16::from_le_bytes)?),
            DataType::BFloat16 => Numbers::BF16(chunks(bytes, bf16::from_le_bytes)?),
            DataType::Float32 => Numbers::F32(chunks(bytes, f32::from_le_bytes)?),
            _ => return Ok(None),
        }))
    }

    /// The little-endian bytes, one element after the other.
    pub fn bytes(&self) -> &[u8] {
        each_type!(self, values => bytemuck::cast_slice(values))
    }

    /// A copy.
    pub(crate) fn try_clone(&self) -> Result<Self, TryReserveError> {
        each_type!(self, values => {
            collected(values.iter().copied()).map(IntoNumbers::into_numbers)
        })
    }

    /// The type that a file has for them.
    pub fn dtype(&self) -> DataType {
        match self {
            Numbers::I8(_) => DataType::Int8,
            Numbers::U8(_) => DataType::UInt8,
            Numbers::F16(_) => DataType::Float16,
            Numbers::BF16(_) => DataType::BFloat16,
            Numbers::F32(_) => DataType::Float32,
        }
    }
}

/// Numbers from a computation.
pub(crate) trait IntoNumbers {
    /// The same, without their static type.
    fn into_numbers(self) -> Numbers;
}

macro_rules! into_numbers {
    ($($type:ty => $variant:ident),*) => {$(
        impl IntoNumbers for Vec<$type> {
            fn into_numbers(self) -> Numbers {
                Numbers::$variant(self)
            }
        }
    )*};
}
into_numbers!(i8 => I8, u8 => U8, f16 => F16, bf16 => BF16, f32 => F32);

/// A list of what comes, or an error where there is no memory for it.
pub(crate) fn collected<T>(
    items: impl ExactSizeIterator<Item = T>,
) -> Result<Vec<T>, TryReserveError> {
    let mut list = Vec::new();
    list.try_reserve_exact(items.len())?;
    list.extend(items);
    Ok(list)
}

/// `None` if there are not so many elements.
pub(crate) fn unpack(
    bytes: &[u8],
    nbits: u32,
    elements: usize,
) -> Result<Option<Vec<u8>>, TryReserveError> {
    let mut wide = Vec::new();
    wide.try_reserve_exact(elements)?;
    wide.resize(elements, 0);
    Ok(palettizer_palette::unpack(bytes, nbits, &mut wide).then_some(wide))
}

fn chunks<const N: usize, T>(
    bytes: &[u8],
    convert: fn([u8; N]) -> T,
) -> Result<Vec<T>, TryReserveError> {
    let (chunks, _) = bytes.as_chunks::<N>();
    collected(chunks.iter().map(|&chunk| convert(chunk)))
}
