//! What each `constexpr_` operation may take, and what it gives: type inference for their family.
//!
//! These are the rules of the op definitions in coremltools 9.0 (`iOS16/constexpr_ops.py`, `iOS18/compression.py`), by
//! which it refuses a program on loading; bf16 is a floating type here as fp16 is. They look at types alone: whether
//! a mask has as many ones as there are values is seen where the values are read.

use crate::Error;
use crate::program::graph::{Graph, Node};
use crate::program::mil::{
    Param, axis_from_front, element_count, immediate_int, immediate_shape, is_constexpr,
    known_tensor, op_name, param,
};
use crate::proto::{DataType, Model, NamedValueType, Operation, Value};
use std::collections::{HashMap, HashSet};

/// Refuses a program that was written with an operation that no reader takes. What was wrong in `before`, the program
/// that it was made from, is no concern of ours and stays as it was.
///
/// # Errors
/// [`Error::Emitted`] for the first such operation.
pub(crate) fn check_written(before: &Model, written: &Model) -> Result<(), Error> {
    let written = Graph::build(written)?;
    let found = violations(&written);
    if found.is_empty() {
        return Ok(());
    }
    let before = Graph::build(before)?;
    let known = violations(&before).into_iter().map(|(op, _)| op_name(op));
    let known: HashSet<&str> = known.collect();
    match found
        .into_iter()
        .find(|(op, _)| !known.contains(op_name(op)))
    {
        None => Ok(()),
        Some((op, what)) => Err(Error::Emitted {
            op_type: op.r#type.clone(),
            name: op_name(op).to_owned(),
            what,
        }),
    }
}

/// The operations that break a rule, and how.
fn violations<'a>(graph: &Graph<'a>) -> Vec<(&'a Operation, String)> {
    let mut makers: HashMap<*const Operation, Vec<&Node<'a>>> = HashMap::new();
    for node in &graph.nodes {
        for user in node.users.iter().filter(|user| user.node.is_some()) {
            makers
                .entry(std::ptr::from_ref(user.op))
                .or_default()
                .push(node);
        }
    }
    let of_node = |node: &Node<'a>| {
        let made_from = makers.get(&std::ptr::from_ref(node.op));
        let made_from = made_from.map_or(&[][..], Vec::as_slice);
        let what = check(node.op, made_from).err()?;
        Some((node.op, what))
    };
    let nodes = graph.nodes.iter().filter(|node| is_constexpr(node.op));
    nodes.filter_map(of_node).collect()
}

/// An element type and a shape.
#[derive(Clone, Debug, PartialEq)]
struct Typed {
    dtype: DataType,
    shape: Vec<usize>,
}

impl Typed {
    fn of(dtype: DataType, shape: &[usize]) -> Self {
        let shape = shape.to_vec();
        Self { dtype, shape }
    }
}

impl std::fmt::Display for Typed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype.name(), self.shape)
    }
}

/// Whether `op`, which takes what `made_from` make, gives what it says.
fn check(op: &Operation, made_from: &[&Node<'_>]) -> Result<(), String> {
    let inputs = Inputs { op, made_from };
    let Some(expected) = inputs.infer()? else {
        return Ok(());
    };
    let declare = |output: &NamedValueType| {
        let (dtype, shape) = output.known_tensor()?;
        Some(Typed { dtype, shape })
    };
    match op.outputs.iter().map(declare).collect::<Option<Vec<_>>>() {
        Some(declared) if declared == expected => Ok(()),
        Some(declared) => Err(format!(
            "it says that it gives {}, but it gives {}",
            list(&declared),
            list(&expected)
        )),
        None => Err("the type of an output is no tensor of known size".to_owned()),
    }
}

fn list(types: &[Typed]) -> String {
    let texts: Vec<String> = types.iter().map(Typed::to_string).collect();
    texts.join(" and ")
}

/// Elements that an op scales or looks up.
const DATA: [DataType; 7] = {
    use DataType::*;
    [Int4, UInt4, Int8, UInt8, Float16, BFloat16, Float32]
};
/// Entries of a table.
const ENTRIES: [DataType; 5] = {
    use DataType::*;
    [Int8, UInt8, Float16, BFloat16, Float32]
};
const FLOATS: [DataType; 3] = {
    use DataType::*;
    [Float16, BFloat16, Float32]
};
const INDICES: [DataType; 6] = {
    use DataType::*;
    [UInt1, UInt2, UInt3, UInt4, UInt6, UInt8]
};

struct Inputs<'a> {
    op: &'a Operation,
    made_from: &'a [&'a Node<'a>],
}

impl Inputs<'_> {
    /// The outputs; `None` for an operation that is none of the family.
    fn infer(&self) -> Result<Option<Vec<Typed>>, String> {
        let old = param(self.op, "shape").is_some();
        Ok(Some(match self.op.r#type.as_str() {
            "constexpr_lut_to_dense" if old => vec![self.old_lut_to_dense()?],
            "constexpr_lut_to_dense" => vec![self.lut_to_dense()?],
            "constexpr_lut_to_sparse" => self.lut_to_sparse()?,
            "constexpr_sparse_to_dense" if old => vec![self.old_sparse_to_dense()?],
            "constexpr_sparse_to_dense" => {
                let data = self.values("nonzero_data", &DATA)?;
                let mask = self.required("mask", &[DataType::UInt1])?;
                vec![Typed::of(data.dtype, &mask.shape)]
            }
            "constexpr_blockwise_shift_scale" => {
                let data = self.required("data", &DATA)?;
                let scale = self.scale(&data.shape, data.dtype)?;
                vec![Typed::of(scale, &data.shape)]
            }
            "constexpr_sparse_blockwise_shift_scale" => {
                let data = self.values("nonzero_data", &DATA)?;
                let mask = self.required("data_mask", &[DataType::UInt1])?;
                let scale = self.scale(&mask.shape, data.dtype)?;
                vec![mask, Typed::of(scale, &data.shape)]
            }
            "constexpr_affine_dequantize" => vec![self.affine_dequantize()?],
            "constexpr_cast" => {
                let source = self.required("source_val", &[DataType::Float16])?;
                vec![Typed::of(DataType::Float32, &source.shape)]
            }
            _ => return Ok(None),
        }))
    }

    /// The type of a parameter, in place or made by another operation.
    fn typed(&self, name: &str) -> Result<Option<Typed>, String> {
        let value_type = match param(self.op, name) {
            None => return Ok(None),
            Some(Param::Value(value)) => value.r#type.as_ref(),
            Some(Param::Name(from)) => {
                let mut outputs = self.made_from.iter().flat_map(|node| &node.op.outputs);
                let output = outputs.find(|output| output.name == from);
                let output =
                    output.ok_or_else(|| format!("{name} is \"{from}\", which is no constant"))?;
                output.r#type.as_ref()
            }
        };
        let (dtype, shape) = known_tensor(value_type)
            .ok_or_else(|| format!("the type of {name} is no tensor of known size"))?;
        Ok(Some(Typed { dtype, shape }))
    }

    fn required(&self, name: &str, dtypes: &[DataType]) -> Result<Typed, String> {
        let found = self
            .typed(name)?
            .ok_or_else(|| format!("parameter {name} is missing"))?;
        let dtype = found.dtype.name();
        match dtypes.contains(&found.dtype) {
            true => Ok(found),
            false => Err(format!("{name} is of type {dtype}, which it cannot have")),
        }
    }

    /// A parameter that is a list.
    fn values(&self, name: &str, dtypes: &[DataType]) -> Result<Typed, String> {
        let Typed { dtype, shape } = self.required(name, dtypes)?;
        match shape.len() {
            1 => Ok(Typed { dtype, shape }),
            _ => Err(format!("{name} has the shape {shape:?}, expected one axis")),
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        match param(self.op, name)? {
            Param::Value(value) => Some(value),
            Param::Name(_) => {
                let node = self.made_from.iter().find(|node| {
                    let mut users = node.users.iter();
                    users.any(|user| std::ptr::eq(user.op, self.op) && user.param == name)
                })?;
                node.op.attributes.get("val")
            }
        }
    }

    /// The element type of a scale of data of such a shape, which an offset has to fit too.
    fn scale(&self, shape: &[usize], data: DataType) -> Result<DataType, String> {
        let scale = self.required("scale", &FLOATS)?;
        fits("scale", &scale.shape, "data", shape)?;
        let Some(offset) = self.typed("offset")? else {
            return Ok(scale.dtype);
        };
        if offset.shape != scale.shape {
            return Err(format!(
                "offset has the shape {:?}, scale {:?}",
                offset.shape, scale.shape
            ));
        }
        if !FLOATS.contains(&offset.dtype) && offset.dtype != data {
            return Err(format!(
                "offset is of type {}, the data of {}",
                offset.dtype.name(),
                data.name()
            ));
        }
        Ok(scale.dtype)
    }

    fn lut_to_dense(&self) -> Result<Typed, String> {
        let indices = self.required("indices", &INDICES)?;
        let lut = self.required("lut", &ENTRIES)?;
        let mut shape = indices.shape.clone();
        let (axis, vector) = self.vectors(&shape, indices.dtype, &lut.shape)?;
        lengthen(&mut shape, axis, vector)?;
        Ok(Typed::of(lut.dtype, &shape))
    }

    fn lut_to_sparse(&self) -> Result<Vec<Typed>, String> {
        let indices = self.values("indices_nonzero_data", &INDICES)?;
        let mut mask = self.required("indices_mask", &[DataType::UInt1])?;
        let lut = self.required("lut", &ENTRIES)?;
        let (axis, vector) = self.vectors(&mask.shape, indices.dtype, &lut.shape)?;
        lengthen(&mut mask.shape, axis, vector)?;
        let mut shape = indices.shape;
        lengthen(&mut shape, 0, vector)?;
        Ok(vec![mask, Typed::of(lut.dtype, &shape)])
    }

    /// The axis and the length of the vectors in tables of the shape `lut` for indices of the shape `shape`.
    fn vectors(
        &self,
        shape: &[usize],
        indices: DataType,
        lut: &[usize],
    ) -> Result<(usize, usize), String> {
        let (rank, table) = lut.split_at(shape.len().min(lut.len()));
        let [entries, vector] = *table else {
            return Err(format!(
                "lut has the shape {lut:?}, expected 2 axes more than the indices' {shape:?}"
            ));
        };
        fits("lut", rank, "the indices", shape)?;
        let bits = indices.bits().unwrap_or(0);
        if 1usize.checked_shl(bits) != Some(entries) {
            return Err(format!(
                "lut has {entries} entries, which {} indices do not fit",
                indices.name()
            ));
        }
        match self.value("vector_axis") {
            None if vector == 1 => Ok((0, 1)),
            None => Err("vector_axis is missing".to_owned()),
            Some(value) => {
                let axis = immediate_int(value).ok_or("vector_axis cannot be read")?;
                Ok((from_front(axis, shape.len(), "vector_axis")?, vector))
            }
        }
    }

    fn affine_dequantize(&self) -> Result<Typed, String> {
        let data = self.required("quantized_data", &[DataType::Int8, DataType::UInt8])?;
        let scale = self.required("scale", &FLOATS)?;
        let zero_point = self
            .typed("zero_point")?
            .ok_or("parameter zero_point is missing")?;
        let axis = self
            .value("axis")
            .and_then(immediate_int)
            .ok_or("axis cannot be read")?;
        let axis = from_front(axis, data.shape.len(), "axis")?;
        for (name, found) in [("scale", &scale), ("zero_point", &zero_point)] {
            match found.shape[..] {
                [] => {}
                [channels] if data.shape.get(axis) == Some(&channels) => {}
                _ => {
                    return Err(format!(
                        "{name} has the shape {:?}, which does not fit axis {axis} of {:?}",
                        found.shape, data.shape
                    ));
                }
            }
        }
        Ok(Typed::of(scale.dtype, &data.shape))
    }

    // The forms of iOS16: packed lists, and a shape.

    fn old_lut_to_dense(&self) -> Result<Typed, String> {
        let indices = self.values("indices", &[DataType::UInt8])?;
        let lut = self.values("lut", &ENTRIES)?;
        let bits = match lut.shape[..] {
            [entries @ (2 | 4 | 16 | 64 | 256)] => entries.ilog2() as usize,
            _ => {
                return Err(format!(
                    "lut has the shape {:?}, expected 2, 4, 16, 64 or 256",
                    lut.shape
                ));
            }
        };
        let shape = self.packed("indices", &indices.shape, bits)?;
        Ok(Typed::of(lut.dtype, &shape))
    }

    fn old_sparse_to_dense(&self) -> Result<Typed, String> {
        let data = self.values("nonzero_data", &ENTRIES)?;
        let mask = self.values("mask", &[DataType::UInt8])?;
        let shape = self.packed("mask", &mask.shape, 1)?;
        Ok(Typed::of(data.dtype, &shape))
    }

    /// The shape, whose elements `name` holds, packed to `bits` bits.
    fn packed(&self, name: &str, found: &[usize], bits: usize) -> Result<Vec<usize>, String> {
        let shape = self.value("shape").and_then(immediate_shape);
        let shape = shape.ok_or("shape cannot be read")?;
        let bytes = element_count(&shape).and_then(|count| count.checked_mul(bits));
        let bytes = bytes.map(|bits| bits.div_ceil(8));
        match found {
            [found] if Some(*found) == bytes => Ok(shape),
            _ => Err(format!(
                "{name} has the shape {found:?}, which does not fit the shape {shape:?}"
            )),
        }
    }
}

/// Whether each axis of `parts` divides that of `whole`.
fn fits(name: &str, parts: &[usize], of: &str, whole: &[usize]) -> Result<(), String> {
    let same_rank = parts.len() == whole.len() && !whole.is_empty();
    let mut axes = parts.iter().zip(whole);
    match same_rank && axes.all(|(part, whole)| whole.checked_rem(*part) == Some(0)) {
        true => Ok(()),
        false => Err(format!(
            "{name} of shape {parts:?} does not divide {of} of shape {whole:?}"
        )),
    }
}

fn from_front(axis: i64, rank: usize, name: &str) -> Result<usize, String> {
    let found = axis_from_front(axis, rank);
    found.ok_or_else(|| format!("{name} is {axis}, out of range for rank {rank}"))
}

fn lengthen(shape: &mut [usize], axis: usize, times: usize) -> Result<(), String> {
    let Some(size) = shape.get_mut(axis) else {
        return Ok(());
    };
    *size = size
        .checked_mul(times)
        .ok_or("the output is larger than any tensor")?;
    Ok(())
}

#[cfg(test)]
mod tests;
