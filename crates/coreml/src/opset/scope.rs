//! What a name stands for at a place in a program: its type and, for a constant, its value.

use crate::proto::{Argument, Binding, DataType, Operation, TensorType, Value, ValueType};
use half::f16;
use std::collections::HashMap;

/// The names that an op may use: those of its own block so far, and those of the blocks around it.
#[derive(Default)]
pub(super) struct Scope<'s, 'p> {
    outer: Option<&'s Scope<'s, 'p>>,
    types: HashMap<&'p str, &'p ValueType>,
    constants: HashMap<&'p str, &'p Value>,
}

impl<'s, 'p> Scope<'s, 'p> {
    /// A scope within this one.
    pub(super) fn inner(&'s self) -> Scope<'s, 'p> {
        Scope {
            outer: Some(self),
            ..Scope::default()
        }
    }

    /// Adds a name of a known type.
    pub(super) fn declare(&mut self, name: &'p str, value_type: Option<&'p ValueType>) {
        // A name that is used again stands for the newer value.
        self.constants.remove(name);
        match value_type {
            Some(value_type) => self.types.insert(name, value_type),
            None => self.types.remove(name),
        };
    }

    /// Adds the outputs of an op.
    pub(super) fn declare_outputs(&mut self, op: &'p Operation) {
        for output in &op.outputs {
            self.declare(&output.name, output.r#type.as_ref());
        }
        if let ("const", [output], Some(value)) = (
            op.r#type.as_str(),
            &op.outputs[..],
            op.attributes.get("val"),
        ) {
            self.constants.insert(&output.name, value);
        }
    }

    fn find(&self, name: &str) -> Option<&Scope<'s, 'p>> {
        let known = self.types.contains_key(name) || self.constants.contains_key(name);
        match (known, self.outer) {
            (true, _) => Some(self),
            (false, outer) => outer?.find(name),
        }
    }

    /// The tensor type of what is bound.
    pub(super) fn tensor_type<'a>(&'a self, binding: &'a Binding) -> Option<&'a TensorType> {
        let value_type = match &binding.value {
            Some(value) => value.r#type.as_ref(),
            None => self
                .find(&binding.name)
                .and_then(|scope| scope.types.get(binding.name.as_str()).copied()),
        };
        value_type?.tensor_type.as_ref()
    }

    /// The constant that is bound, if it is one.
    pub(super) fn constant<'a>(&'a self, binding: &'a Binding) -> Option<&'a Value> {
        match &binding.value {
            Some(value) => Some(value),
            None => self
                .find(&binding.name)
                .and_then(|scope| scope.constants.get(binding.name.as_str()).copied()),
        }
    }
}

/// What is bound to one of an op's inputs, if it is exactly one thing.
pub(super) fn bound<'a>(op: &'a Operation, input: &str) -> Option<&'a Binding> {
    match op
        .inputs
        .get(input)
        .map(|Argument { arguments, .. }| &arguments[..])
    {
        Some([binding]) => Some(binding),
        _ => None,
    }
}

/// A tensor's sizes as far as they are known; `None` if not even their number is.
pub(super) fn known_sizes(tensor: &TensorType) -> Option<Vec<Option<u64>>> {
    if usize::try_from(tensor.rank) != Ok(tensor.dimensions.len()) {
        return None;
    }
    let size = |dimension: &crate::proto::Dimension| dimension.constant.as_ref().map(|c| c.size);
    Some(tensor.dimensions.iter().map(size).collect())
}

/// The elements of an fp16 or fp32 constant, if it is in place.
pub(super) fn floats(value: &Value) -> Option<Vec<f32>> {
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    if let Some(floats) = &tensor.floats {
        return Some(floats.values.clone());
    }
    let dtype = value.r#type.as_ref()?.tensor_type.as_ref()?.data_type;
    let (words, rest) = tensor.bytes.as_ref()?.values.as_chunks();
    let half = DataType::from_number(dtype)? == DataType::Float16 && rest.is_empty();
    let values = words.iter().map(|&word| f16::from_le_bytes(word).to_f32());
    half.then(|| values.collect())
}
