//! Elements as files store them, and as programs compute with them.

use crate::runtime::{Dtype, Elements, Tensor};
use half::{bf16, f16};

/// How a file stores elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Stored {
    /// Bytes of an element.
    pub(crate) fn width(self) -> usize {
        match self {
            Stored::Bool | Stored::I8 | Stored::U8 => 1,
            Stored::I16 | Stored::U16 | Stored::F16 | Stored::Bf16 => 2,
            Stored::I32 | Stored::U32 | Stored::F32 => 4,
            Stored::I64 | Stored::U64 | Stored::F64 => 8,
        }
    }

    /// Elements of a file's bytes, with the last byte of each first or, if they are `big`, last. Numbers of 64 bits must fit into 32;
    /// floats are rounded.
    ///
    /// # Errors
    /// An integer that does not fit, in words.
    pub(crate) fn read(self, data: &[u8], big: bool) -> Result<(Dtype, Elements), String> {
        Ok(match self {
            Stored::Bool => {
                let values: Vec<bool> = data.iter().map(|&byte| byte != 0).collect();
                (Dtype::Bool, values.into())
            }
            Stored::I8 => (
                Dtype::I8,
                words(data, big, |word| i32::from(i8::from_le_bytes(word))).into(),
            ),
            Stored::U8 => (
                Dtype::U8,
                words(data, big, |word| i32::from(u8::from_le_bytes(word))).into(),
            ),
            Stored::I16 => (
                Dtype::I16,
                words(data, big, |word| i32::from(i16::from_le_bytes(word))).into(),
            ),
            Stored::U16 => (
                Dtype::U16,
                words(data, big, |word| i32::from(u16::from_le_bytes(word))).into(),
            ),
            Stored::I32 => (Dtype::I32, words(data, big, i32::from_le_bytes).into()),
            Stored::U32 => (
                Dtype::U32,
                words(data, big, |word| u32::from_le_bytes(word) as i32).into(),
            ),
            Stored::I64 => (
                Dtype::I32,
                narrow(words(data, big, |word| i64::from_le_bytes(word).into()))?.into(),
            ),
            Stored::U64 => (
                Dtype::I32,
                narrow(words(data, big, |word| u64::from_le_bytes(word).into()))?.into(),
            ),
            Stored::F16 => (
                Dtype::F16,
                words(data, big, |word| f16::from_le_bytes(word).to_f32()).into(),
            ),
            Stored::Bf16 => (
                Dtype::F32,
                words(data, big, |word| bf16::from_le_bytes(word).to_f32()).into(),
            ),
            Stored::F32 => (Dtype::F32, words(data, big, f32::from_le_bytes).into()),
            Stored::F64 => (
                Dtype::F32,
                words(data, big, |word| f64::from_le_bytes(word) as f32).into(),
            ),
        })
    }

    /// A tensor's elements as a file stores them, little-endian; `None` for strings.
    pub(crate) fn of(tensor: &Tensor) -> Option<(Stored, Vec<u8>)> {
        fn flat<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
            values.iter().flat_map(|&value| bytes(value)).collect()
        }
        Some(match (tensor.dtype(), tensor.elements()) {
            (Dtype::F16, Elements::Floats(values)) => (
                Stored::F16,
                flat(values, |value| f16::from_f32(value).to_le_bytes()),
            ),
            (_, Elements::Floats(values)) => (Stored::F32, flat(values, f32::to_le_bytes)),
            (Dtype::I8, Elements::Ints(values)) => (
                Stored::I8,
                flat(values, |value| (value as i8).to_le_bytes()),
            ),
            (Dtype::U8, Elements::Ints(values)) => (
                Stored::U8,
                flat(values, |value| (value as u8).to_le_bytes()),
            ),
            (Dtype::I16, Elements::Ints(values)) => (
                Stored::I16,
                flat(values, |value| (value as i16).to_le_bytes()),
            ),
            (Dtype::U16, Elements::Ints(values)) => (
                Stored::U16,
                flat(values, |value| (value as u16).to_le_bytes()),
            ),
            (Dtype::U32, Elements::Ints(values)) => (Stored::U32, flat(values, i32::to_le_bytes)),
            (_, Elements::Ints(values)) => (Stored::I32, flat(values, i32::to_le_bytes)),
            (_, Elements::Bools(values)) => (Stored::Bool, flat(values, |value| [u8::from(value)])),
            (_, Elements::Texts(_)) => return None,
        })
    }
}

/// Words of a file, each as what it means.
pub(crate) fn words<const N: usize, T>(
    data: &[u8],
    big: bool,
    convert: fn([u8; N]) -> T,
) -> Vec<T> {
    let words = data.as_chunks().0.iter();
    match big {
        false => words.map(|&word| convert(word)).collect(),
        true => words
            .map(|&word| {
                let mut word = word;
                word.reverse();
                convert(word)
            })
            .collect(),
    }
}

fn narrow(values: Vec<i128>) -> Result<Vec<i32>, String> {
    let narrow = |value: i128| {
        i32::try_from(value).map_err(|_| format!("it holds {value}; models compute in 32 bits"))
    };
    values.into_iter().map(narrow).collect()
}
