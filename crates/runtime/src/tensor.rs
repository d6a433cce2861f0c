//! Tensors in memory: a type, a shape, and the elements, row-major.
//!
//! Whatever a program calls fp16 or fp32 is computed in fp32, and rounded where the program's type says fp16; integers of any
//! width are held in 32 bits. Elements are shared: a clone, or a reshaped tensor, has the memory of the first one, and
//! [`Tensor::into_floats`] copies only if someone else still needs it.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use palettizer_coreml::blob::SharedBytes;
use palettizer_coreml::proto::DataType;
use std::ops::Deref;
use std::sync::Arc;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Dtype {
    F16,
    F32,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    Bool,
    Text,
}

impl Dtype {
    /// The type's name in MIL: `fp16`, `int32`, ….
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "fp16",
            Dtype::F32 => "fp32",
            Dtype::I8 => "int8",
            Dtype::U8 => "uint8",
            Dtype::I16 => "int16",
            Dtype::U16 => "uint16",
            Dtype::I32 => "int32",
            Dtype::U32 => "uint32",
            Dtype::Bool => "bool",
            Dtype::Text => "string",
        }
    }

    /// The type of this name in MIL, as `cast` has it.
    pub fn of_name(name: &str) -> Option<Self> {
        use Dtype::*;
        let all = [F16, F32, I8, U8, I16, U16, I32, U32, Bool, Text];
        all.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Whether it is fp16 or fp32.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::F32)
    }

    /// Whether it is an integer.
    pub fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, Dtype::Bool | Dtype::Text)
    }

    /// The least and the largest integer of the type.
    pub(crate) fn int_range(self) -> (i64, i64) {
        match self {
            Dtype::I8 => (i8::MIN.into(), i8::MAX.into()),
            Dtype::U8 => (0, u8::MAX.into()),
            Dtype::I16 => (i16::MIN.into(), i16::MAX.into()),
            Dtype::U16 => (0, u16::MAX.into()),
            Dtype::U32 => (0, u32::MAX.into()),
            _ => (i32::MIN.into(), i32::MAX.into()),
        }
    }

    /// The type as a program has it; `None` for one that no operation computes with.
    pub(crate) fn of_program(dtype: DataType) -> Option<Self> {
        Some(match dtype {
            DataType::Float16 => Dtype::F16,
            // computed in fp32; a program has it for constants alone
            DataType::Float32 | DataType::BFloat16 | DataType::Float64 => Dtype::F32,
            DataType::Int8 | DataType::Int4 => Dtype::I8,
            DataType::UInt8
            | DataType::UInt1
            | DataType::UInt2
            | DataType::UInt3
            | DataType::UInt4
            | DataType::UInt6 => Dtype::U8,
            DataType::Int16 => Dtype::I16,
            DataType::UInt16 => Dtype::U16,
            DataType::Int32 | DataType::Int64 => Dtype::I32,
            DataType::UInt32 | DataType::UInt64 => Dtype::U32,
            DataType::Bool => Dtype::Bool,
            DataType::String => Dtype::Text,
            DataType::Float8E4M3FN | DataType::Float8E5M2 => return None,
        })
    }
}

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Of fp16 and fp32.
    Floats(Floats),
    /// Of all integers; those of uint32 keep their bits.
    Ints(Arc<Vec<i32>>),
    /// Of bool.
    Bools(Arc<Vec<bool>>),
    /// Of string.
    Texts(Arc<Vec<String>>),
}

/// Elements in fp32, shared: in memory, or where they lie in a weight file.
#[derive(Clone, Debug)]
pub struct Floats(Store);

#[derive(Clone, Debug)]
enum Store {
    Held(Arc<Vec<f32>>),
    /// Aligned, and little-endian as this machine is.
    InFile(SharedBytes),
    /// So many that are not kept.
    Gone(usize),
}

impl Floats {
    /// The bytes of a file as they are; `None` where this machine reads them in another way.
    pub(crate) fn in_file(bytes: SharedBytes) -> Option<Self> {
        let fits =
            cfg!(target_endian = "little") && bytemuck::try_cast_slice::<u8, f32>(&bytes).is_ok();
        fits.then_some(Floats(Store::InFile(bytes)))
    }

    /// How many there are, or were.
    fn count(&self) -> usize {
        match &self.0 {
            Store::Gone(count) => *count,
            _ => self.len(),
        }
    }

    /// Whether nothing else has these elements.
    fn is_sole(&self) -> bool {
        matches!(&self.0, Store::Held(values) if Arc::strong_count(values) == 1)
    }

    /// The elements, without a copy if nothing else has them.
    fn into_vec(self) -> Vec<f32> {
        match self.0 {
            Store::Held(values) => Arc::unwrap_or_clone(values),
            Store::InFile(_) | Store::Gone(_) => self.to_vec(),
        }
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Store::Held(values) => values,
            // it was tried before
            Store::InFile(bytes) => bytemuck::try_cast_slice(bytes).unwrap_or_default(),
            Store::Gone(_) => &[],
        }
    }
}

impl PartialEq for Floats {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Elements::Floats(values) => values.count(),
            Elements::Ints(values) => values.len(),
            Elements::Bools(values) => values.len(),
            Elements::Texts(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<f32>> for Elements {
    fn from(values: Vec<f32>) -> Self {
        Elements::Floats(Floats(Store::Held(Arc::new(values))))
    }
}
impl From<Vec<i32>> for Elements {
    fn from(values: Vec<i32>) -> Self {
        Elements::Ints(Arc::new(values))
    }
}
impl From<Vec<bool>> for Elements {
    fn from(values: Vec<bool>) -> Self {
        Elements::Bools(Arc::new(values))
    }
}
impl From<Vec<String>> for Elements {
    fn from(values: Vec<String>) -> Self {
        Elements::Texts(Arc::new(values))
    }
}

/// A tensor. Floats are computed in fp32 whatever the type says, and integers of any width are held in 32 bits; a clone shares the
/// elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    elements: Elements,
}

impl Tensor {
    /// A tensor of a type and shape; `None` if there are not as many elements as the shape says, or of another kind.
    ///
    /// ```
    /// use palettizer_runtime::{Dtype, Tensor};
    ///
    /// let tensor = Tensor::new(Dtype::F32, &[2, 1], vec![1.0, -2.0]).expect("2 elements");
    /// assert_eq!(tensor.floats(), Some(&[1.0, -2.0][..]));
    /// assert!(Tensor::new(Dtype::F32, &[3], vec![1.0, -2.0]).is_none());
    /// ```
    pub fn new(dtype: Dtype, shape: &[usize], elements: impl Into<Elements>) -> Option<Self> {
        let elements = elements.into();
        let kind = match &elements {
            Elements::Floats(_) => dtype.is_float(),
            Elements::Ints(_) => dtype.is_int(),
            Elements::Bools(_) => dtype == Dtype::Bool,
            Elements::Texts(_) => dtype == Dtype::Text,
        };
        let fits = kind && element_count(shape) == Some(elements.len());
        fits.then(|| Tensor {
            dtype,
            shape: shape.to_vec(),
            elements,
        })
    }

    /// An fp32 tensor without dimensions.
    pub fn scalar(value: f32) -> Self {
        Tensor {
            dtype: Dtype::F32,
            shape: Vec::new(),
            elements: vec![value].into(),
        }
    }

    /// Equal elements; `None` if there is no room for so many.
    pub(crate) fn filled(dtype: Dtype, shape: &[usize], value: f64) -> Option<Self> {
        let count = element_count(shape)?;
        // asks for the memory without using it
        Vec::<u32>::new().try_reserve_exact(count).ok()?;
        let elements: Elements = match dtype {
            Dtype::Bool => vec![value != 0.0; count].into(),
            Dtype::Text => return None,
            dtype if dtype.is_float() => vec![value as f32; count].into(),
            _ => vec![value as i32; count].into(),
        };
        Tensor::new(dtype, shape, elements)
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The elements.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the elements take.
    pub fn bytes(&self) -> u64 {
        let each = match &self.elements {
            Elements::Bools(_) => 1,
            Elements::Texts(_) => size_of::<String>(),
            _ => 4,
        };
        (self.len() * each) as u64
    }

    /// The elements of a tensor of floats.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.elements {
            Elements::Floats(Floats(Store::Gone(_))) => None,
            Elements::Floats(values) => Some(values),
            _ => None,
        }
    }

    /// Whether its elements are floats that were let go.
    pub(crate) fn is_hollow(&self) -> bool {
        matches!(&self.elements, Elements::Floats(Floats(Store::Gone(_))))
    }

    /// Whether its elements are floats that lie in memory, not in a file.
    pub(crate) fn holds_floats(&self) -> bool {
        matches!(&self.elements, Elements::Floats(Floats(Store::Held(_))))
    }

    /// A tensor of a type and shape without its elements, of whatever kind they are; `None` if there cannot be so many.
    pub(crate) fn hollow(dtype: Dtype, shape: &[usize]) -> Option<Tensor> {
        Some(Tensor {
            dtype,
            shape: shape.to_vec(),
            elements: Elements::Floats(Floats(Store::Gone(element_count(shape)?))),
        })
    }

    /// The same without its elements, if they are floats: its type and its shape are left.
    pub(crate) fn without_floats(&self) -> Tensor {
        let mut hollow = self.clone();
        if let Elements::Floats(values) = &self.elements {
            hollow.elements = Elements::Floats(Floats(Store::Gone(values.count())));
        }
        hollow
    }

    /// The elements of a tensor of integers.
    pub fn ints(&self) -> Option<&[i32]> {
        match &self.elements {
            Elements::Ints(values) => Some(values),
            _ => None,
        }
    }

    /// The elements of a tensor of booleans.
    pub fn bools(&self) -> Option<&[bool]> {
        match &self.elements {
            Elements::Bools(values) => Some(values),
            _ => None,
        }
    }

    /// The elements of a tensor of strings.
    pub fn texts(&self) -> Option<&[String]> {
        match &self.elements {
            Elements::Texts(values) => Some(values),
            _ => None,
        }
    }

    /// Whether no other tensor has these elements.
    pub(crate) fn is_sole(&self) -> bool {
        match &self.elements {
            Elements::Floats(values) => values.is_sole(),
            Elements::Ints(values) => Arc::strong_count(values) == 1,
            Elements::Bools(values) => Arc::strong_count(values) == 1,
            Elements::Texts(values) => Arc::strong_count(values) == 1,
        }
    }

    /// The elements of a tensor of floats, to be changed: without a copy if nothing else needs them.
    pub fn into_floats(self) -> Option<Vec<f32>> {
        match self.elements {
            Elements::Floats(values) => Some(values.into_vec()),
            _ => None,
        }
    }

    /// The elements of a tensor of integers, in the same way.
    pub(crate) fn into_ints(self) -> Option<Vec<i32>> {
        match self.elements {
            Elements::Ints(values) => Some(Arc::unwrap_or_clone(values)),
            _ => None,
        }
    }

    /// The elements of a tensor of booleans, in the same way.
    pub(crate) fn into_bools(self) -> Option<Vec<bool>> {
        match self.elements {
            Elements::Bools(values) => Some(Arc::unwrap_or_clone(values)),
            _ => None,
        }
    }

    /// The elements alone.
    pub(crate) fn into_elements(self) -> Elements {
        self.elements
    }

    /// The same elements in another shape; `None` if there are not as many.
    pub fn reshaped(self, shape: &[usize]) -> Option<Self> {
        Tensor::new(self.dtype, shape, self.elements)
    }

    /// The same elements under another type of the same kind: floats that are fp16 are rounded.
    pub(crate) fn with_float_type(mut self, dtype: Dtype, round: bool) -> Self {
        if !dtype.is_float() {
            return self;
        }
        self.elements = match self.elements {
            Elements::Floats(values) if dtype == Dtype::F16 && round => {
                let mut values = values.into_vec();
                round_to_f16(&mut values);
                values.into()
            }
            Elements::Floats(values) => Elements::Floats(values),
            other => {
                return Tensor {
                    elements: other,
                    ..self
                };
            }
        };
        self.dtype = dtype;
        self
    }
}

/// The product of a shape, if it fits.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// Rounds each value to the nearest that fp16 has, ties to even; too large ones become infinite.
pub(crate) fn round_to_f16(values: &mut [f32]) {
    let mut halves = [f16::ZERO; 1024];
    for chunk in values.chunks_mut(halves.len()) {
        let halves = &mut halves[..chunk.len()];
        halves.convert_from_f32_slice(chunk);
        halves.convert_to_f32_slice(chunk);
    }
}
