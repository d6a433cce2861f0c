//! Reading and building the small parts of a MIL program: types, values in place, names.
//!
//! Everything here takes messages as they came from a file, so nothing may assume that a field is there.

use crate::proto::{
    Argument, Binding, BlobFileValue, ConstantDimension, DataType, Dimension, ImmediateValue,
    NamedValueType, Operation, RepeatedBools, RepeatedBytes, RepeatedFloats, RepeatedInts,
    RepeatedStrings, TensorType, TensorValue, Value, ValueType,
};
use std::borrow::Cow;

/// The type of a tensor with known dimensions.
pub(crate) fn tensor_type(dtype: DataType, shape: &[usize]) -> ValueType {
    let dimensions = shape
        .iter()
        .map(|&dim| Dimension {
            constant: Some(ConstantDimension {
                size: dim as u64,
                ..Default::default()
            }),
            ..Default::default()
        })
        .collect();
    ValueType {
        tensor_type: Some(TensorType {
            data_type: dtype as i32,
            rank: shape.len() as i64,
            dimensions,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The element type and shape of a tensor type, if both are known.
pub(crate) fn known_tensor(value_type: Option<&ValueType>) -> Option<(DataType, Vec<usize>)> {
    let tensor = value_type?.tensor_type.as_ref()?;
    let dtype = DataType::from_number(tensor.data_type)?;
    let shape = tensor
        .dimensions
        .iter()
        .map(|dim| usize::try_from(dim.constant.as_ref()?.size).ok())
        .collect::<Option<Vec<_>>>()?;
    Some((dtype, shape))
}

impl Value {
    /// The element type and shape, if both are known.
    pub(crate) fn known_tensor(&self) -> Option<(DataType, Vec<usize>)> {
        known_tensor(self.r#type.as_ref())
    }

    /// The bytes of the elements in a weight file.
    pub(crate) fn stored_bytes(&self) -> Option<u64> {
        let (dtype, shape) = self.known_tensor()?;
        Some(stored_bytes(dtype, element_count(&shape)?)? as u64)
    }
}

impl NamedValueType {
    /// The element type and shape, if both are known.
    pub(crate) fn known_tensor(&self) -> Option<(DataType, Vec<usize>)> {
        known_tensor(self.r#type.as_ref())
    }
}

/// The product of a shape, if it fits.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// The bytes of `elements` elements of `dtype` in a weight file.
pub(crate) fn stored_bytes(dtype: DataType, elements: usize) -> Option<usize> {
    let bits = elements.checked_mul(dtype.bits()? as usize)?;
    Some(bits.div_ceil(8))
}

/// A tensor in place.
fn immediate(dtype: DataType, shape: &[usize], tensor: TensorValue) -> Value {
    Value {
        r#type: Some(tensor_type(dtype, shape)),
        immediate: Some(ImmediateValue {
            tensor: Some(tensor),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A string in place.
pub(crate) fn string_value(text: &str) -> Value {
    let strings = RepeatedStrings {
        values: vec![text.to_owned()],
        ..Default::default()
    };
    let tensor = TensorValue {
        strings: Some(strings),
        ..Default::default()
    };
    immediate(DataType::String, &[], tensor)
}

/// A boolean in place, in a tensor of one element.
pub(crate) fn bool_value(shape: &[usize], value: bool) -> Value {
    let bools = RepeatedBools {
        values: vec![value],
        ..Default::default()
    };
    let tensor = TensorValue {
        bools: Some(bools),
        ..Default::default()
    };
    immediate(DataType::Bool, shape, tensor)
}

/// int32 values in place.
pub(crate) fn int32_values(shape: &[usize], values: Vec<i32>) -> Value {
    let ints = RepeatedInts {
        values,
        ..Default::default()
    };
    let tensor = TensorValue {
        ints: Some(ints),
        ..Default::default()
    };
    immediate(DataType::Int32, shape, tensor)
}

/// A tensor in place, from its little-endian bytes.
pub(crate) fn bytes_value(dtype: DataType, shape: &[usize], bytes: &[u8]) -> Value {
    let words = || bytes.as_chunks().0.iter().copied();
    let tensor = match dtype {
        DataType::Float32 => TensorValue {
            floats: Some(RepeatedFloats {
                values: words().map(f32::from_le_bytes).collect(),
                ..Default::default()
            }),
            ..Default::default()
        },
        DataType::Int32 => {
            return int32_values(shape, words().map(i32::from_le_bytes).collect());
        }
        _ => TensorValue {
            bytes: Some(RepeatedBytes {
                values: bytes.to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        },
    };
    immediate(dtype, shape, tensor)
}

/// A tensor in a weight file.
pub(crate) fn blob_value(dtype: DataType, shape: &[usize], file: &str, offset: u64) -> Value {
    Value {
        r#type: Some(tensor_type(dtype, shape)),
        blob_file: Some(BlobFileValue {
            file_name: file.to_owned(),
            offset,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The little-endian bytes of a value in place, as a weight file would hold them; `None` for strings.
pub(crate) fn immediate_bytes(value: &Value) -> Option<Cow<'_, [u8]>> {
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    if let Some(bytes) = &tensor.bytes {
        return Some(Cow::Borrowed(&bytes.values));
    }
    let owned = if let Some(floats) = &tensor.floats {
        floats.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    } else if let Some(ints) = &tensor.ints {
        ints.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    } else if let Some(longs) = &tensor.long_ints {
        longs.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    } else if let Some(doubles) = &tensor.doubles {
        doubles
            .values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect()
    } else {
        let bools = tensor.bools.as_ref()?;
        bools.values.iter().map(|&v| u8::from(v)).collect()
    };
    Some(Cow::Owned(owned))
}

/// Integers from their little-endian bytes; `None` for bytes of another type.
pub(crate) fn integers(dtype: DataType, bytes: &[u8]) -> Option<Vec<i64>> {
    fn read<const N: usize, T: Into<i64>>(
        bytes: &[u8],
        from: fn([u8; N]) -> T,
    ) -> Option<Vec<i64>> {
        let (words, rest) = bytes.as_chunks();
        let words = words.iter().map(|&word| from(word).into());
        rest.is_empty().then(|| words.collect())
    }
    match dtype {
        DataType::Int8 => read(bytes, i8::from_le_bytes),
        DataType::UInt8 => read(bytes, u8::from_le_bytes),
        DataType::Int16 => read(bytes, i16::from_le_bytes),
        DataType::UInt16 => read(bytes, u16::from_le_bytes),
        DataType::Int32 => read(bytes, i32::from_le_bytes),
        DataType::UInt32 => read(bytes, u32::from_le_bytes),
        _ => None,
    }
}

/// The integers of a value in place, whichever list they are in.
pub(crate) fn immediate_ints(value: &Value) -> Option<Vec<i64>> {
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    if let Some(ints) = &tensor.ints {
        return Some(ints.values.iter().map(|&v| i64::from(v)).collect());
    }
    if let Some(ints) = &tensor.long_ints {
        return Some(ints.values.clone());
    }
    let dtype = value.r#type.as_ref()?.tensor_type.as_ref()?.data_type;
    integers(
        DataType::from_number(dtype)?,
        &tensor.bytes.as_ref()?.values,
    )
}

/// The first integer of a value in place.
pub(crate) fn immediate_int(value: &Value) -> Option<i64> {
    immediate_ints(value)?.first().copied()
}

/// An axis counted from the front, if a tensor of this rank has it.
pub(crate) fn axis_from_front(axis: i64, rank: usize) -> Option<usize> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_front).ok().filter(|&axis| axis < rank)
}

/// The shape that a value in place spells out.
pub(crate) fn immediate_shape(value: &Value) -> Option<Vec<usize>> {
    let sizes = immediate_ints(value)?.into_iter();
    sizes.map(|size| usize::try_from(size).ok()).collect()
}

/// The first boolean of a value in place.
pub(crate) fn immediate_bool(value: &Value) -> Option<bool> {
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    tensor.bools.as_ref()?.values.first().copied()
}

/// The first string of a value in place.
fn immediate_string(value: &Value) -> Option<&str> {
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    tensor.strings.as_ref()?.values.first().map(String::as_str)
}

/// The name of an operation: its `name` attribute, or its first output's.
pub fn op_name(op: &Operation) -> &str {
    op.attributes
        .get("name")
        .and_then(immediate_string)
        .or_else(|| op.outputs.first().map(|output| output.name.as_str()))
        .unwrap_or_default()
}

/// Whether an operation gives a constant that is made when the model is loaded.
pub fn is_constexpr(op: &Operation) -> bool {
    op.r#type.starts_with("constexpr_")
}

/// What a parameter of a constexpr operation is bound to: iOS16 keeps values as attributes,
/// iOS18 as inputs.
pub(crate) fn param<'a>(op: &'a Operation, name: &str) -> Option<Param<'a>> {
    if let Some(value) = op.attributes.get(name) {
        return Some(Param::Value(value));
    }
    let binding = op.inputs.get(name)?.arguments.first()?;
    Some(match &binding.value {
        Some(value) => Param::Value(value),
        None => Param::Name(&binding.name),
    })
}

/// A parameter that is a value in place.
pub(crate) fn in_place<'a>(op: &'a Operation, name: &str) -> Option<&'a Value> {
    match param(op, name)? {
        Param::Value(value) => Some(value),
        Param::Name(_) => None,
    }
}

/// See [`param`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Param<'a> {
    /// A value in place.
    Value(&'a Value),
    /// The name of another operation's output.
    Name(&'a str),
}

/// A parameter bound to one thing.
pub(crate) fn argument(binding: Binding) -> Argument {
    Argument {
        arguments: vec![binding],
        ..Default::default()
    }
}

/// A parameter bound to one value in place.
pub(crate) fn bind_value(value: Value) -> Argument {
    argument(Binding {
        value: Some(value),
        ..Default::default()
    })
}

/// The output of another operation.
pub(crate) fn by_name(name: &str) -> Binding {
    Binding {
        name: name.to_owned(),
        ..Default::default()
    }
}

/// A parameter bound to the output of another operation.
pub(crate) fn bind_name(name: &str) -> Argument {
    argument(by_name(name))
}

/// An operation in the form in which coremltools writes it: its name is an attribute.
pub(crate) fn operation<'a>(
    op_type: &str,
    name: &str,
    inputs: impl IntoIterator<Item = (&'a str, Argument)>,
    outputs: Vec<NamedValueType>,
) -> Operation {
    let inputs = inputs.into_iter();
    Operation {
        r#type: op_type.to_owned(),
        inputs: inputs
            .map(|(param, argument)| (param.to_owned(), argument))
            .collect(),
        outputs,
        attributes: [("name".to_owned(), string_value(name))].into(),
        ..Default::default()
    }
}

/// A `const`, named as its output.
pub(crate) fn constant(output: NamedValueType, value: Value) -> Operation {
    let name = output.name.clone();
    let mut constant = operation("const", &name, [], vec![output]);
    constant.attributes.insert("val".to_owned(), value);
    constant
}

/// An output of an operation.
pub(crate) fn output(name: &str, dtype: DataType, shape: &[usize]) -> NamedValueType {
    NamedValueType {
        name: name.to_owned(),
        r#type: Some(tensor_type(dtype, shape)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_place_keep_their_bytes() {
        for (dtype, bytes) in [
            (DataType::Float32, vec![0, 0, 128, 63, 0, 0, 0, 192]),
            (DataType::Int32, vec![1, 0, 0, 0, 255, 255, 255, 255]),
            (DataType::Float16, vec![0, 60, 0, 64]),
            (DataType::Int8, vec![255, 1]),
        ] {
            let value = bytes_value(dtype, &[2], &bytes);
            assert_eq!(immediate_bytes(&value).unwrap().as_ref(), bytes);
            assert_eq!(known_tensor(value.r#type.as_ref()), Some((dtype, vec![2])));
        }
        assert_eq!(immediate_int(&int32_values(&[], vec![-3])), Some(-3));
        assert_eq!(immediate_string(&string_value("x")), Some("x"));
        assert!(immediate_bytes(&string_value("x")).is_none());
    }

    #[test]
    fn counts_do_not_wrap() {
        assert_eq!(element_count(&[usize::MAX, 2]), None);
        assert_eq!(stored_bytes(DataType::UInt3, 3), Some(2));
        assert_eq!(stored_bytes(DataType::Float64, usize::MAX), None);
        assert_eq!(stored_bytes(DataType::String, 1), None);
    }

    #[test]
    fn an_unknown_dimension_is_no_known_shape() {
        let mut value_type = tensor_type(DataType::Float16, &[2, 3]);
        if let Some(tensor) = &mut value_type.tensor_type {
            tensor.dimensions[1].constant = None;
        }
        assert_eq!(known_tensor(Some(&value_type)), None);
        assert_eq!(known_tensor(None), None);
    }
}
