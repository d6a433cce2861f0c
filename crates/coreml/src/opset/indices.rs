//! Negative indices, which gather and scatter ops take up to iOS16 only.
//!
//! **Idea.** From iOS17 on an index below zero is out of bounds; before, it counts from the end.
//! So `indices` becomes `select(indices >= 0, indices, indices + size)`, where `size` is the
//! indexed axis' size, or the sizes of the leading axes for the `_nd` ops. Nothing is done where no
//! index can be negative: an unsigned type, or a constant in place without a negative element.
//!
//! **Source.** The iOS17 definitions (`iOS17/scatter_gather.py`) give this very rewrite, and
//! coremltools 9.0 does it in its pass `guard_negative_gather_indices` and its PyTorch front end.
//! **Deviations.** 1. A size that is known becomes a constant. 2. With `batch_dims`, the sizes that
//! `gather_nd` indexes begin after the batch axes. 3. The scatter ops are treated alike.

use super::scope::{Scope, bound, known_sizes};
use crate::program::mil::{
    argument, bool_value, by_name, constant, immediate_ints, int32_values, op_name, operation,
    string_value, tensor_type,
};
use crate::program::names::Names;
use crate::proto::{Binding, DataType, NamedValueType, Operation, TensorType, Value, ValueType};

/// `gather`, `gather_along_axis`, `gather_nd`, `scatter`, `scatter_along_axis`, `scatter_nd`.
pub(super) fn non_negative(
    op: &Operation,
    scope: &Scope<'_, '_>,
    names: &mut Names,
) -> Result<Option<Vec<Operation>>, String> {
    let indices = bound(op, "indices").ok_or("it has no input `indices`")?;
    let known = scope.constant(indices).and_then(immediate_ints);
    if known.is_some_and(|known| known.iter().all(|&index| index >= 0)) {
        return Ok(None);
    }
    let indices_type = scope
        .tensor_type(indices)
        .ok_or("the type of its input `indices` is unknown")?;
    let cast = match DataType::from_number(indices_type.data_type) {
        Some(DataType::Int32) => false,
        Some(DataType::Int16) => true,
        Some(DataType::UInt8 | DataType::UInt16) => return Ok(None),
        _ => {
            return Err(
                "its input `indices` has an element type that the older opset does not allow"
                    .to_owned(),
            );
        }
    };

    let mut new = Ops {
        ops: Vec::new(),
        stem: format!("{}_indices", op_name(op)),
        names,
    };
    let int32 = with_dtype(indices_type, DataType::Int32);
    let mut indices = indices.clone();
    if cast {
        let to = new.constant("dtype", string_value("int32"));
        let inputs = vec![("x", indices), ("dtype", to)];
        indices = new.op("cast", "int32", inputs, int32.clone());
    }
    let axes = indexed_axes(op, indices_type, scope)?;
    let size = new.sizes(op, &axes, scope)?;
    let zero = new.constant("zero", int32_values(&[], vec![0]));
    let inputs = vec![("x", indices.clone()), ("y", zero)];
    let bool = with_dtype(indices_type, DataType::Bool);
    let condition = new.op("greater_equal", "at_least_zero", inputs, bool);
    let inputs = vec![("x", indices.clone()), ("y", size)];
    let wrapped = new.op("add", "from_end", inputs, int32.clone());
    let inputs = vec![("cond", condition), ("a", indices), ("b", wrapped)];
    let chosen = new.op("select", "non_negative", inputs, int32);

    let mut ops = new.ops;
    let mut op = op.clone();
    op.inputs.insert("indices".to_owned(), argument(chosen));
    ops.push(op);
    Ok(Some(ops))
}

/// The type of a tensor of the same sizes and another element type.
fn with_dtype(tensor: &TensorType, dtype: DataType) -> ValueType {
    ValueType {
        tensor_type: Some(TensorType {
            data_type: dtype as i32,
            ..tensor.clone()
        }),
        ..ValueType::default()
    }
}

fn named(name: &str, value_type: ValueType) -> NamedValueType {
    NamedValueType {
        name: name.to_owned(),
        r#type: Some(value_type),
        ..NamedValueType::default()
    }
}

/// The axes of the indexed tensor that the indices count in: `begin..end`.
struct IndexedAxes {
    begin: i32,
    end: i32,
    /// One axis, whose size is wanted as a scalar.
    scalar: bool,
}

fn indexed_axes(
    op: &Operation,
    indices: &TensorType,
    scope: &Scope<'_, '_>,
) -> Result<IndexedAxes, String> {
    let rank = data(op, scope)?.rank;
    let (begin, count, scalar) = match op.r#type.as_str() {
        "gather_nd" | "scatter_nd" => {
            let depth = known_sizes(indices)
                .and_then(|sizes| sizes.last().copied().flatten())
                .ok_or("the last size of its input `indices` is unknown")?;
            let batch_dims = scalar_input(op, "batch_dims", scope)?;
            (batch_dims, i64::try_from(depth).unwrap_or(i64::MAX), false)
        }
        _ => {
            let axis = scalar_input(op, "axis", scope)?;
            (
                if axis < 0 {
                    axis.saturating_add(rank)
                } else {
                    axis
                },
                1,
                true,
            )
        }
    };
    let end = begin.saturating_add(count);
    if begin < 0 || end > rank {
        return Err(format!(
            "it indexes axes {begin}..{end} of a tensor of rank {rank}"
        ));
    }
    match (i32::try_from(begin), i32::try_from(end)) {
        (Ok(begin), Ok(end)) => Ok(IndexedAxes { begin, end, scalar }),
        _ => Err(format!("its input has rank {rank}")),
    }
}

/// The binding and the type of the indexed tensor.
fn data_binding(op: &Operation) -> Result<&Binding, String> {
    bound(op, "x")
        .or_else(|| bound(op, "data"))
        .ok_or_else(|| "it has no input `x` or `data`".to_owned())
}

fn data<'a>(op: &'a Operation, scope: &'a Scope<'_, '_>) -> Result<&'a TensorType, String> {
    scope
        .tensor_type(data_binding(op)?)
        .filter(|tensor| known_sizes(tensor).is_some())
        .ok_or_else(|| "the rank of the tensor that it indexes is unknown".to_owned())
}

/// A constant integer input; 0, the default of both that we ask for, if it is left out.
fn scalar_input(op: &Operation, input: &str, scope: &Scope<'_, '_>) -> Result<i64, String> {
    if !op.inputs.contains_key(input) {
        return Ok(0);
    }
    bound(op, input)
        .and_then(|binding| scope.constant(binding))
        .and_then(immediate_ints)
        .and_then(|values| values.first().copied())
        .ok_or_else(|| format!("its input `{input}` is not a constant that can be read"))
}

/// The ops that come before the one that is rewritten.
struct Ops<'n> {
    ops: Vec<Operation>,
    stem: String,
    names: &'n mut Names,
}

impl Ops<'_> {
    fn name(&mut self, what: &str) -> String {
        self.names.fresh(&format!("{}_{what}", self.stem))
    }

    fn constant(&mut self, what: &str, value: Value) -> Binding {
        let name = self.name(what);
        let output = named(&name, value.r#type.clone().unwrap_or_default());
        self.ops.push(constant(output, value));
        by_name(&name)
    }

    fn op(
        &mut self,
        op_type: &str,
        what: &str,
        inputs: Vec<(&'static str, Binding)>,
        output: ValueType,
    ) -> Binding {
        let name = self.name(what);
        let inputs = inputs.into_iter();
        let inputs = inputs.map(|(input, binding)| (input, argument(binding)));
        let output = named(&name, output);
        self.ops
            .push(operation(op_type, &name, inputs, vec![output]));
        by_name(&name)
    }

    /// The sizes of the indexed axes: a constant, or what `shape` says when the model runs.
    fn sizes(
        &mut self,
        op: &Operation,
        axes: &IndexedAxes,
        scope: &Scope<'_, '_>,
    ) -> Result<Binding, String> {
        let all = known_sizes(data(op, scope)?).unwrap_or_default();
        let IndexedAxes { begin, end, scalar } = *axes;
        let wanted = all.get(begin as usize..end as usize).unwrap_or_default();
        let known: Option<Vec<i32>> = wanted
            .iter()
            .map(|size| size.and_then(|size| i32::try_from(size).ok()))
            .collect();
        if let Some(known) = known {
            let shape = [known.len()];
            let shape = if scalar { &[][..] } else { &shape };
            return Ok(self.constant("size", int32_values(shape, known)));
        }
        let output = tensor_type(DataType::Int32, &[all.len()]);
        let shape = self.op(
            "shape",
            "shape",
            vec![("x", data_binding(op)?.clone())],
            output,
        );
        let begin = self.constant("begin", int32_values(&[1], vec![begin]));
        let end = self.constant("end", int32_values(&[1], vec![end]));
        let mut inputs = vec![("x", shape), ("begin", begin), ("end", end)];
        let mut output = tensor_type(DataType::Int32, &[wanted.len()]);
        if scalar {
            inputs.push((
                "squeeze_mask",
                self.constant("squeeze", bool_value(&[1], true)),
            ));
            output = tensor_type(DataType::Int32, &[]);
        }
        Ok(self.op("slice_by_index", "size", inputs, output))
    }
}
