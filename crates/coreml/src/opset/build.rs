//! New ops, in the form in which coremltools writes them.

use crate::program::mil::{bytes_value, int32_value, string_value, tensor_type};
use crate::proto::{
    Argument, Binding, DataType, ImmediateValue, NamedValueType, Operation, RepeatedBools,
    TensorType, TensorValue, Value, ValueType,
};

/// int32 values in place: a scalar if `scalar`, else a vector.
pub(super) fn ints(values: &[i32], scalar: bool) -> Value {
    match (values, scalar) {
        ([value], true) => int32_value(*value),
        _ => {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            bytes_value(DataType::Int32, &[values.len()], &bytes)
        }
    }
}

/// A vector of one true.
pub(super) fn one_true() -> Value {
    let bools = RepeatedBools {
        values: vec![true],
        ..RepeatedBools::default()
    };
    let tensor = TensorValue {
        bools: Some(bools),
        ..TensorValue::default()
    };
    Value {
        r#type: Some(tensor_type(DataType::Bool, &[1])),
        immediate: Some(ImmediateValue {
            tensor: Some(tensor),
            ..ImmediateValue::default()
        }),
        ..Value::default()
    }
}

/// A reference to a value by its name.
pub(super) fn by_name(name: &str) -> Binding {
    Binding {
        name: name.to_owned(),
        ..Binding::default()
    }
}

/// An input with one thing bound to it.
pub(super) fn argument(binding: Binding) -> Argument {
    Argument {
        arguments: vec![binding],
        ..Argument::default()
    }
}

/// An op with one output; both have the same name.
pub(super) fn op(
    op_type: &str,
    name: &str,
    inputs: impl IntoIterator<Item = (&'static str, Binding)>,
    output: ValueType,
) -> Operation {
    Operation {
        r#type: op_type.to_owned(),
        inputs: inputs
            .into_iter()
            .map(|(input, binding)| (input.to_owned(), argument(binding)))
            .collect(),
        outputs: vec![NamedValueType {
            name: name.to_owned(),
            r#type: Some(output),
            ..NamedValueType::default()
        }],
        attributes: [("name".to_owned(), string_value(name))].into(),
        ..Operation::default()
    }
}

/// A `const` op.
pub(super) fn constant(name: &str, value: Value) -> Operation {
    let mut constant = op("const", name, [], value.r#type.clone().unwrap_or_default());
    constant.attributes.insert("val".to_owned(), value);
    constant
}

/// The type of a tensor of the same sizes and another element type.
pub(super) fn with_dtype(tensor: &TensorType, dtype: DataType) -> ValueType {
    ValueType {
        tensor_type: Some(TensorType {
            data_type: dtype as i32,
            ..tensor.clone()
        }),
        ..ValueType::default()
    }
}
