//! What a name stands for at a place in a program: its type and, for a constant, its value.

use crate::program::mil::op_name;
use crate::proto::{Argument, Binding, Block, DataType, Operation, TensorType, Value, ValueType};
use std::collections::{HashMap, HashSet};

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

/// The elements of an integer constant, if it is in place.
pub(super) fn integers(value: &Value) -> Option<Vec<i64>> {
    use DataType::*;
    let dtype = dtype(value)?;
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    if let Some(ints) = &tensor.ints {
        return Some(ints.values.iter().map(|&v| i64::from(v)).collect());
    }
    if let Some(ints) = &tensor.long_ints {
        return Some(ints.values.clone());
    }
    let bytes = &tensor.bytes.as_ref()?.values[..];
    Some(match dtype {
        Int8 => bytes.iter().map(|&b| i64::from(b as i8)).collect(),
        UInt8 => bytes.iter().map(|&b| i64::from(b)).collect(),
        Int16 => words(bytes)?
            .map(|w| i64::from(i16::from_le_bytes(w)))
            .collect(),
        UInt16 => words(bytes)?
            .map(|w| i64::from(u16::from_le_bytes(w)))
            .collect(),
        Int32 => words(bytes)?
            .map(|w| i64::from(i32::from_le_bytes(w)))
            .collect(),
        UInt32 => words(bytes)?
            .map(|w| i64::from(u32::from_le_bytes(w)))
            .collect(),
        _ => return None,
    })
}

/// The elements of an fp16 or fp32 constant, if it is in place.
pub(super) fn floats(value: &Value) -> Option<Vec<f32>> {
    let tensor = value.immediate.as_ref()?.tensor.as_ref()?;
    if let Some(floats) = &tensor.floats {
        return Some(floats.values.clone());
    }
    match dtype(value)? {
        DataType::Float16 => {
            let bytes = &tensor.bytes.as_ref()?.values;
            Some(
                words(bytes)?
                    .map(|w| half::f16::from_le_bytes(w).to_f32())
                    .collect(),
            )
        }
        _ => None,
    }
}

fn dtype(value: &Value) -> Option<DataType> {
    DataType::from_number(value.r#type.as_ref()?.tensor_type.as_ref()?.data_type)
}

fn words<const N: usize>(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    let words = bytes.chunks_exact(N);
    words
        .remainder()
        .is_empty()
        .then(|| words.filter_map(|word| word.try_into().ok()))
}

/// The names in use in a function, to find new ones.
pub(super) struct Names<'p> {
    used: HashSet<&'p str>,
    new: HashSet<String>,
}

impl<'p> Names<'p> {
    /// The names of the values and ops of a block and of the blocks within.
    pub(super) fn of(block: &'p Block, inputs: impl Iterator<Item = &'p str>) -> Self {
        let mut names = Names {
            used: inputs.collect(),
            new: HashSet::new(),
        };
        names.add(block);
        names
    }

    fn add(&mut self, block: &'p Block) {
        self.used
            .extend(block.inputs.iter().map(|input| input.name.as_str()));
        for op in &block.operations {
            self.used
                .extend(op.outputs.iter().map(|output| output.name.as_str()));
            self.used.insert(op_name(op));
            op.blocks.iter().for_each(|block| self.add(block));
        }
    }

    /// A name that nothing has yet: `stem`, or `stem_1`, ….
    pub(super) fn fresh(&mut self, stem: &str) -> String {
        let taken =
            |names: &Self, name: &str| names.used.contains(name) || names.new.contains(name);
        let mut name = stem.to_owned();
        let mut count = 0usize;
        while taken(self, &name) {
            count += 1;
            name = format!("{stem}_{count}");
        }
        self.new.insert(name.clone());
        name
    }
}
