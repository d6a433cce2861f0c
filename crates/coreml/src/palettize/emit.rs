//! The operations that hold a palette: iOS16's form, iOS18's, and those of joint compression.
//!
//! | what | operations, in order |
//! |---|---|
//! | iOS16, iOS17 | `constexpr_lut_to_dense` with a 1-D LUT; its parameters are attributes |
//! | iOS18 on | `constexpr_lut_to_dense` with a LUT of the weight's rank plus 2; its parameters are inputs |
//! | int8 or uint8 LUT | `constexpr_blockwise_shift_scale` before it, which feeds `lut` |
//! | per-channel scale | `constexpr_blockwise_shift_scale` after it |
//! | pruned weight | `constexpr_lut_to_sparse` before the `constexpr_sparse_to_dense` that is there |
//! | its per-channel scale | `constexpr_sparse_blockwise_shift_scale` between the two |
//! | quantized weight | the `constexpr_blockwise_shift_scale` that is there, its scale on the LUT, and `constexpr_lut_to_dense` behind it |
//! | one whose LUT would grow | `constexpr_lut_to_dense` before the `constexpr_blockwise_shift_scale` that is there |
//!
//! Of the two forms of a quantized weight, which mean the same, coremltools writes the first for every system before
//! iOS26, and says that the other gave trouble there. It repeats the LUT until each scale has one of its own; here that
//! is done as long as the LUT takes no more than the indices.

use crate::Error;
use crate::notes::Written;
use crate::palettize::weights::Slot;
use crate::program::constant::data_type;
use crate::program::mil::{
    Param, bind_name, bind_value, bytes_value, int32_value, known_tensor, op_name, output, param,
    string_value, tensor_type,
};
use crate::proto::{Argument, DataType, NamedValueType, Operation, Value};
use crate::rewrite::Rewriter;
use palettizer_palette::decode::kept;
use palettizer_palette::{Lut, Nbits, Palette};
use palettizer_pipeline::config::Target;
use std::collections::BTreeMap;
use std::io::{Seek, Write};

/// A palette whose tensors are stored: ready to stand in the program any number of times.
pub(crate) struct Stored {
    form: Form,
    dtype: DataType,
    shape: Vec<usize>,
    nbits: Nbits,
    indices: Value,
    kept: usize,
    lut: Value,
    lut_shape: Vec<usize>,
    lut_scale: Option<Value>,
    lut_offset: Option<Value>,
    vector_axis: Option<usize>,
    scale: Option<Value>,
    /// Whether the scale of the quantized weight goes on the LUT.
    scales_lut: bool,
    /// Bytes of all of it.
    pub bytes: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `constexpr_lut_to_dense` with attributes.
    Ios16,
    /// `constexpr_lut_to_dense` with inputs.
    Dense,
    /// `constexpr_lut_to_sparse`.
    Sparse,
}

/// The element type of indices of a width.
fn index_dtype(nbits: Nbits) -> DataType {
    match nbits {
        Nbits::B1 => DataType::UInt1,
        Nbits::B2 => DataType::UInt2,
        Nbits::B3 => DataType::UInt3,
        Nbits::B4 => DataType::UInt4,
        Nbits::B6 => DataType::UInt6,
        Nbits::B8 => DataType::UInt8,
    }
}

impl Stored {
    /// Stores the tensors of `palette` for the opset of `target`, in `file` or the usual weight file.
    pub(crate) fn new<W: Write + Seek>(
        palette: &Palette,
        slot: Slot<'_>,
        target: Target,
        file: Option<&str>,
        rewriter: &mut Rewriter<'_, W>,
    ) -> Result<Self, Error> {
        let form = match slot {
            Slot::NonzeroData { .. } => Form::Sparse,
            _ if target < Target::IOS18 => Form::Ios16,
            _ => Form::Dense,
        };
        let widened;
        let palette = if form == Form::Ios16 && palette.nbits == Nbits::B3 {
            // The op of iOS16 has no 3-bit form.
            widened = palette.widened(Nbits::B4);
            &widened
        } else {
            palette
        };
        let dtype = data_type(palette.dtype);
        let kept = match &palette.mask {
            Some(mask) => kept(mask, &palette.shape).unwrap_or(0),
            None => 0,
        };
        let (index_dtype, index_shape) = match form {
            Form::Ios16 => (DataType::UInt8, vec![palette.indices.len()]),
            Form::Dense => (index_dtype(palette.nbits), palette.index_shape.clone()),
            Form::Sparse => (index_dtype(palette.nbits), vec![kept]),
        };
        let mut bytes = palette.indices.len();
        let indices = rewriter.store(file, index_dtype, &index_shape, &palette.indices)?;
        let mut store = |dtype: DataType, shape: &[usize], data: &[u8]| {
            bytes += data.len();
            rewriter.store(file, dtype, shape, data)
        };
        let repeated = match slot {
            Slot::QuantizedData { op } if target < Target::IOS26 => repeated(palette, op),
            _ => None,
        };
        let scales_lut = repeated.is_some();
        let lut_shape = match (form, &repeated) {
            (Form::Ios16, _) => vec![palette.nbits.entries()],
            (_, Some((_, shape))) => shape.clone(),
            _ => palette.lut_shape.clone(),
        };
        let (lut, lut_scale, lut_offset) = match &palette.lut {
            Lut::Float(data) => {
                let data = repeated.as_ref().map_or(data, |(data, _)| data);
                (store(dtype, &lut_shape, data)?, None, None)
            }
            Lut::Quantized {
                dtype: int,
                data,
                scale,
                scale_shape,
                offset,
            } => {
                let int = data_type(*int);
                let offset = offset.as_ref();
                let offset = offset.map(|offset| store(int, scale_shape, offset));
                (
                    store(int, &lut_shape, data)?,
                    Some(store(dtype, scale_shape, scale)?),
                    offset.transpose()?,
                )
            }
        };
        let scale = palette.scale.as_ref();
        let scale = scale.map(|scale| store(dtype, &scale.shape, &scale.bytes));
        let scale = scale.transpose()?;
        Ok(Self {
            form,
            dtype,
            shape: palette.shape.clone(),
            nbits: palette.nbits,
            indices,
            kept,
            lut,
            lut_shape,
            lut_scale,
            lut_offset,
            vector_axis: palette.vector_axis,
            scale,
            scales_lut,
            bytes: bytes as u64,
        })
    }

    /// For a quantized weight, the operation that scales the LUT, and the one that looks the weight up in it, in the
    /// place of `op`, the operation that scales the weight; `None` if that one stays.
    pub(crate) fn on_lut(
        &self,
        op: &Operation,
        name: &str,
        fresh: &mut impl FnMut(String) -> String,
    ) -> Option<[Operation; 2]> {
        if !self.scales_lut {
            return None;
        }
        let (dtype, _) = known_tensor(op.outputs.last()?.r#type.as_ref())?;
        let lut_name = fresh(format!("{name}_palettized_lut"));
        let outputs = vec![output(&lut_name, dtype, &self.lut_shape)];
        let of_lut = |name| lut_rank(in_place(op, name)?);
        let (data, offset) = (bind_value(self.lut.clone()), of_lut("offset"));
        let scaled = shift_scale(&lut_name, data, &of_lut("scale")?, offset.as_ref(), outputs);
        let inputs = BTreeMap::from([
            ("indices", bind_value(self.indices.clone())),
            ("lut", bind_name(&lut_name)),
        ]);
        let looked_up = constexpr(
            "constexpr_lut_to_dense",
            op_name(op),
            inputs,
            op.outputs.clone(),
        );
        Some([scaled, looked_up])
    }

    /// What there is to note of it.
    pub(crate) fn written(&self) -> Written<'_> {
        let tables = match self.form {
            Form::Ios16 => &[],
            _ => self.lut_shape.get(..self.shape.len()).unwrap_or(&[]),
        };
        Written {
            scales_halves: self.scale.is_some()
                && self.form == Form::Dense
                && self.dtype == DataType::Float16,
            nbits: self.nbits.bits(),
            shape: &self.shape,
            tables,
        }
    }

    /// The operations for the weight called `name`; `fresh` makes a name that nothing has yet. The last
    /// output of the last operation is the weight's data; of a pruned weight, the one before it is the mask.
    pub(crate) fn operations(
        &self,
        name: &str,
        mask: Option<&Value>,
        fresh: &mut impl FnMut(String) -> String,
    ) -> Vec<Operation> {
        let mut ops = Vec::new();
        let palettized = fresh(format!("{name}_palettized"));
        let lut = match &self.lut_scale {
            None => bind_value(self.lut.clone()),
            Some(scale) => {
                let lut_name = fresh(format!("{name}_palettized_lut"));
                let data = bind_value(self.lut.clone());
                let outputs = vec![output(&lut_name, self.dtype, &self.lut_shape)];
                let offset = self.lut_offset.as_ref();
                ops.push(shift_scale(&lut_name, data, scale, offset, outputs));
                bind_name(&lut_name)
            }
        };
        match self.form {
            Form::Ios16 => ops.push(self.ios16(&palettized)),
            Form::Dense => {
                let outputs = vec![output(&palettized, self.dtype, &self.shape)];
                let indices = bind_value(self.indices.clone());
                let mut inputs = BTreeMap::from([("indices", indices), ("lut", lut)]);
                self.bind_vector_axis(&mut inputs);
                ops.push(constexpr(
                    "constexpr_lut_to_dense",
                    &palettized,
                    inputs,
                    outputs,
                ));
            }
            Form::Sparse => {
                let outputs = self.sparse_outputs(&palettized, fresh);
                let mut inputs = BTreeMap::from([
                    ("indices_nonzero_data", bind_value(self.indices.clone())),
                    ("lut", lut),
                ]);
                if let Some(mask) = mask {
                    inputs.insert("indices_mask", bind_value(mask.clone()));
                }
                self.bind_vector_axis(&mut inputs);
                ops.push(constexpr(
                    "constexpr_lut_to_sparse",
                    &palettized,
                    inputs,
                    outputs,
                ));
            }
        }
        if let Some(scale) = &self.scale {
            let scaled = fresh(format!("{name}_palettized_pcs"));
            let sparse = ops.last().filter(|_| self.form == Form::Sparse);
            ops.push(match sparse.map(|op| &op.outputs[..]) {
                Some([mask, data]) => {
                    let inputs = BTreeMap::from([
                        ("data_mask", bind_name(&mask.name)),
                        ("nonzero_data", bind_name(&data.name)),
                        ("scale", bind_value(scale.clone())),
                    ]);
                    let outputs = self.sparse_outputs(&scaled, fresh);
                    constexpr(
                        "constexpr_sparse_blockwise_shift_scale",
                        &scaled,
                        inputs,
                        outputs,
                    )
                }
                _ => {
                    let outputs = vec![output(&scaled, self.dtype, &self.shape)];
                    shift_scale(&scaled, bind_name(&palettized), scale, None, outputs)
                }
            });
        }
        ops
    }

    /// The outputs of an operation that stays sparse: the mask, and the values where it has ones.
    fn sparse_outputs(
        &self,
        name: &str,
        fresh: &mut impl FnMut(String) -> String,
    ) -> Vec<NamedValueType> {
        let mask = fresh(format!("{name}_mask"));
        vec![
            output(&mask, DataType::UInt1, &self.shape),
            output(name, self.dtype, &[self.kept]),
        ]
    }

    fn ios16(&self, name: &str) -> Operation {
        let dims: Vec<u8> = self
            .shape
            .iter()
            .flat_map(|&dim| (dim as u32).to_le_bytes())
            .collect();
        let shape = bytes_value(DataType::UInt32, &[self.shape.len()], &dims);
        let mut op = constexpr(
            "constexpr_lut_to_dense",
            name,
            BTreeMap::new(),
            vec![output(name, self.dtype, &self.shape)],
        );
        op.attributes
            .insert("indices".to_owned(), self.indices.clone());
        op.attributes.insert("lut".to_owned(), self.lut.clone());
        op.attributes.insert("shape".to_owned(), shape);
        op
    }

    fn bind_vector_axis(&self, inputs: &mut BTreeMap<&str, Argument>) {
        if let Some(axis) = self.vector_axis {
            // A rank never comes near i32::MAX: it was counted from dimensions in a file of at most 2 GB.
            let axis = i32::try_from(axis).unwrap_or(i32::MAX);
            inputs.insert("vector_axis", bind_value(int32_value(axis)));
        }
    }
}

/// A value for the weight as one for its tables: with two more axes.
fn lut_rank(value: &Value) -> Option<Value> {
    let (dtype, mut shape) = known_tensor(value.r#type.as_ref())?;
    shape.extend([1, 1]);
    Some(Value {
        r#type: Some(tensor_type(dtype, &shape)),
        ..value.clone()
    })
}

/// A parameter that is a value in place.
fn in_place<'a>(op: &'a Operation, name: &str) -> Option<&'a Value> {
    match param(op, name)? {
        Param::Value(value) => Some(value),
        Param::Name(_) => None,
    }
}

/// The tables of the weight that `op` scales, each as often as there are scales in its part of the weight, and their
/// shape; `None` if scales and tables do not lie on each other, or the tables would grow beyond the indices.
fn repeated(palette: &Palette, op: &Operation) -> Option<(Vec<u8>, Vec<usize>)> {
    if matches!(param(op, "offset"), Some(Param::Name(_))) {
        return None;
    }
    let (_, scales) = known_tensor(in_place(op, "scale")?.r#type.as_ref())?;
    let rank = palette.shape.len();
    let (Lut::Float(data), None, 1) = (&palette.lut, &palette.scale, palette.lut_shape.last()?)
    else {
        return None;
    };
    let tables = palette.lut_shape.get(..rank)?;
    if scales.len() != rank {
        return None;
    }
    let mut times = Vec::with_capacity(rank);
    for (&scales, &tables) in scales.iter().zip(tables) {
        match scales.checked_rem(tables)? {
            0 => times.push(scales / tables),
            _ if tables.checked_rem(scales)? == 0 => times.push(1),
            _ => return None,
        }
    }
    let grown = times
        .iter()
        .try_fold(data.len(), |bytes, &times| bytes.checked_mul(times))?;
    if grown != data.len() && grown > palette.indices.len() {
        return None;
    }
    let mut shape = palette.lut_shape.clone();
    let data = repeat(data.clone(), &mut shape, &times);
    Some((data, shape))
}

/// Repeats what lies along each of the first axes of a tensor, each slice as often as `times` says, one after the other.
fn repeat(mut data: Vec<u8>, shape: &mut [usize], times: &[usize]) -> Vec<u8> {
    let element = data.len() / shape.iter().product::<usize>().max(1);
    // the last axis first, so that what lies behind an axis is whole when its turn comes
    for (axis, &times) in times.iter().enumerate().rev() {
        let slice = element * shape.iter().skip(axis + 1).product::<usize>();
        data = data
            .chunks(slice.max(1))
            .flat_map(|slice| slice.repeat(times))
            .collect();
        if let Some(dim) = shape.get_mut(axis) {
            *dim *= times;
        }
    }
    data
}

fn shift_scale(
    name: &str,
    data: Argument,
    scale: &Value,
    offset: Option<&Value>,
    outputs: Vec<NamedValueType>,
) -> Operation {
    let mut inputs = BTreeMap::from([("data", data), ("scale", bind_value(scale.clone()))]);
    if let Some(offset) = offset {
        inputs.insert("offset", bind_value(offset.clone()));
    }
    constexpr("constexpr_blockwise_shift_scale", name, inputs, outputs)
}

fn constexpr(
    op_type: &str,
    name: &str,
    inputs: BTreeMap<&str, Argument>,
    outputs: Vec<NamedValueType>,
) -> Operation {
    Operation {
        r#type: op_type.to_owned(),
        inputs: inputs
            .into_iter()
            .map(|(param, argument)| (param.to_owned(), argument))
            .collect(),
        outputs,
        attributes: BTreeMap::from([("name".to_owned(), string_value(name))]),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::repeat;

    #[test]
    fn tables_are_repeated_along_each_axis() {
        let mut shape = [2, 1, 2, 1];
        let data = repeat(vec![1, 2, 3, 4], &mut shape, &[2, 3]);
        assert_eq!(shape, [4, 3, 2, 1]);
        let expected = [[1, 2].repeat(6), [3, 4].repeat(6)].concat();
        assert_eq!(data, expected);

        let mut shape = [2, 2, 1, 1];
        let data = repeat(vec![1, 0, 2, 0, 3, 0, 4, 0], &mut shape, &[1, 2]);
        assert_eq!(shape, [2, 4, 1, 1]);
        assert_eq!(data, [1, 0, 1, 0, 2, 0, 2, 0, 3, 0, 3, 0, 4, 0, 4, 0]);

        let mut shape = [1, 2, 1, 1];
        let data = repeat(vec![1, 2], &mut shape, &[3, 1]);
        assert_eq!((shape, data), ([3, 2, 1, 1], vec![1, 2, 1, 2, 1, 2]));
    }
}
