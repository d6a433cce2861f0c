//! Compressed constants: from the iOS16 forms, whose parts are attributes, to the iOS18 forms,
//! whose parts are inputs bound to values in place.
//!
//! **Idea.** The bits of a weight stay as they are; only the words about them change. Packed
//! indices and masks become tensors of `uintN` in the weight's shape, a LUT gets the two ranks that
//! iOS18 adds, a scale and a zero point get the weight's rank. A blob stays where it is: see the
//! contract in [the module above](super).
//!
//! **Source.** `iOS16/constexpr_ops.py`, `iOS18/compression.py`, and the writer and loader of
//! coremltools 9.0 (`backend/mil/load.py`, `frontend/milproto/load.py`) for how each form is stored.
//!
//! **`constexpr_affine_dequantize`** stays valid in iOS18 in its old form, and what cannot be said
//! as a `constexpr_blockwise_shift_scale` is left so: a zero point of another type than the data's,
//! or a scalar beside a vector. Otherwise both give the same bits: data − zero point is exact in
//! fp16 (at most 255 in size), as is its product with an fp16 scale in fp32, so each definition
//! rounds once, to the same value; with an fp32 scale both compute in fp32.

use super::scope::Scope;
use crate::program::mil::{
    axis_from_front, bind_value, element_count, immediate_int, immediate_shape, stored_bytes,
    tensor_type,
};
use crate::program::names::Names;
use crate::proto::{DataType, Operation, Value};

type Raised = Result<Option<Vec<Operation>>, String>;

/// `constexpr_lut_to_dense`.
pub(super) fn lut_to_dense(op: &Operation, _: &Scope<'_, '_>, _: &mut Names) -> Raised {
    let [mut indices, mut lut, shape] = attributes(op, ["indices", "lut", "shape"])?;
    let shape = shape_of(&shape)?;
    let [entries] = tensor(&lut, "lut")?.1[..] else {
        return Err("its `lut` is not a list".to_owned());
    };
    let dtype = match entries {
        2 => DataType::UInt1,
        4 => DataType::UInt2,
        16 => DataType::UInt4,
        64 => DataType::UInt6,
        256 => DataType::UInt8,
        _ => return Err(format!("its `lut` has {entries} entries")),
    };
    unpack(&mut indices, "indices", dtype, &shape)?;
    let mut lut_shape = vec![1; shape.len()];
    lut_shape.extend([entries, 1]);
    set_shape(&mut lut, &lut_shape);
    with_inputs(op, &op.r#type, [("indices", indices), ("lut", lut)])
}

/// `constexpr_sparse_to_dense`.
pub(super) fn sparse_to_dense(op: &Operation, _: &Scope<'_, '_>, _: &mut Names) -> Raised {
    let [data, mut mask, shape] = attributes(op, ["nonzero_data", "mask", "shape"])?;
    unpack(&mut mask, "mask", DataType::UInt1, &shape_of(&shape)?)?;
    with_inputs(op, &op.r#type, [("nonzero_data", data), ("mask", mask)])
}

/// `constexpr_cast`.
pub(super) fn cast(op: &Operation, _: &Scope<'_, '_>, _: &mut Names) -> Raised {
    let [source, to] = attributes(op, ["source_val", "output_dtype"])?;
    with_inputs(
        op,
        &op.r#type,
        [("source_val", source), ("output_dtype", to)],
    )
}

/// `constexpr_affine_dequantize`.
pub(super) fn affine_dequantize(op: &Operation, _: &Scope<'_, '_>, _: &mut Names) -> Raised {
    let [data, mut zero_point, mut scale, axis] =
        attributes(op, ["quantized_data", "zero_point", "scale", "axis"])?;
    let (data_type, shape) = tensor(&data, "quantized_data")?;
    let (zero_point_type, zero_point_shape) = tensor(&zero_point, "zero_point")?;
    let (_, scale_shape) = tensor(&scale, "scale")?;
    if zero_point_type != data_type || zero_point_shape != scale_shape || shape.is_empty() {
        return Ok(None);
    }
    let mut new_shape = vec![1; shape.len()];
    if let Some(&channels) = scale_shape.first() {
        let axis = immediate_int(&axis).ok_or("its `axis` cannot be read")?;
        let at = axis_from_front(axis, shape.len());
        let fits = at.filter(|&at| scale_shape.len() == 1 && shape[at] == channels);
        match fits.and_then(|at| new_shape.get_mut(at)) {
            Some(new) => *new = channels,
            None => {
                return Err(format!(
                    "its `scale` of shape {scale_shape:?} does not fit axis {axis} of its data of shape {shape:?}"
                ));
            }
        }
    }
    set_shape(&mut scale, &new_shape);
    set_shape(&mut zero_point, &new_shape);
    with_inputs(
        op,
        "constexpr_blockwise_shift_scale",
        [("data", data), ("scale", scale), ("offset", zero_point)],
    )
}

/// The attributes of these names, which with `name` have to be all there are.
fn attributes<const N: usize>(op: &Operation, names: [&str; N]) -> Result<[Value; N], String> {
    if let Some(input) = op.inputs.keys().next() {
        return Err(format!(
            "its `{input}` is an input, which should be an attribute"
        ));
    }
    if let Some(other) = op
        .attributes
        .keys()
        .find(|key| *key != "name" && !names.contains(&key.as_str()))
    {
        return Err(format!("its attribute `{other}` is unknown"));
    }
    for name in names {
        if !op.attributes.contains_key(name) {
            return Err(format!("it has no attribute `{name}`"));
        }
    }
    Ok(names.map(|name| op.attributes.get(name).cloned().unwrap_or_default()))
}

/// The element type and shape of a value.
fn tensor(value: &Value, name: &str) -> Result<(DataType, Vec<usize>), String> {
    value
        .known_tensor()
        .ok_or_else(|| format!("its `{name}` is not a tensor of known shape"))
}

/// The weight's shape, from the attribute `shape`.
fn shape_of(value: &Value) -> Result<Vec<usize>, String> {
    match immediate_shape(value) {
        Some(shape) if !shape.is_empty() => Ok(shape),
        Some(_) => Err("its `shape` is that of a scalar".to_owned()),
        None => Err("its `shape` cannot be read".to_owned()),
    }
}

/// Makes a list of bytes a tensor of the packed elements.
fn unpack(value: &mut Value, name: &str, to: DataType, shape: &[usize]) -> Result<(), String> {
    let (dtype, size) = tensor(value, name)?;
    let (DataType::UInt8, [bytes]) = (dtype, &size[..]) else {
        return Err(format!("its `{name}` is not a list of uint8"));
    };
    let expected = element_count(shape).and_then(|elements| stored_bytes(to, elements));
    if expected != Some(*bytes) {
        return Err(format!(
            "its `{name}` has {bytes} bytes, which is not what {} elements of shape {shape:?} take",
            to.name()
        ));
    }
    value.r#type = Some(tensor_type(to, shape));
    Ok(())
}

/// Gives a value another shape, for the same number of elements.
fn set_shape(value: &mut Value, shape: &[usize]) {
    if let Some((dtype, _)) = value.known_tensor() {
        value.r#type = Some(tensor_type(dtype, shape));
    }
}

/// What takes the op's place: the op with these inputs, and no attribute but its name.
fn with_inputs<const N: usize>(
    op: &Operation,
    op_type: &str,
    inputs: [(&str, Value); N],
) -> Raised {
    let mut op = op.clone();
    op.r#type = op_type.to_owned();
    op.attributes.retain(|key, _| key == "name");
    op.inputs = inputs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), bind_value(value)))
        .collect();
    Ok(Some(vec![op]))
}
