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
    Param, bind_name, bind_value, bytes_value, in_place, int32_values, op_name, operation, output,
    param, tensor_type,
};
use crate::program::names::Names;
use crate::proto::{Argument, DataType, NamedValueType, Operation, Value};
use palettizer_palette::decode::kept;
use palettizer_palette::{Lut, Nbits, Palette};
use palettizer_pipeline::config::Target;

/// A palette whose tensors are stored: ready to stand in the program any number of times.
pub(crate) struct Stored {
    form: Form,
    dtype: DataType,
    shape: Vec<usize>,
    nbits: Nbits,
    indices: Value,
    /// The values that a pruned weight keeps.
    kept: usize,
    lut: StoredLut,
    vector_axis: Option<usize>,
    scale: Option<Value>,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// Its tables.
struct StoredLut {
    entries: Value,
    shape: Vec<usize>,
    /// The scale and the offset of integer entries.
    scale: Option<Value>,
    offset: Option<Value>,
    /// Whether the scale of the quantized weight goes on the LUT.
    takes_scale: bool,
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
    /// Stores the tensors of `palette` for the opset of `target`, each by `store`.
    pub(crate) fn new(
        palette: &Palette,
        slot: Slot<'_>,
        target: Target,
        mut store: impl FnMut(DataType, &[usize], &[u8]) -> Result<Value, Error>,
    ) -> Result<Self, Error> {
        let form = match slot {
            Slot::NonzeroData { .. } => Form::Sparse,
            _ if target < Target::IOS18 => Form::Ios16,
            _ => Form::Dense,
        };
        // The op of iOS16 has no 3-bit form.
        let widen = form == Form::Ios16 && palette.nbits == Nbits::B3;
        let widened = widen.then(|| palette.widened(Nbits::B4));
        let palette = widened.as_ref().unwrap_or(palette);
        let mask = palette.mask.as_ref();
        let kept = mask.map_or(0, |mask| kept(mask, &palette.shape).unwrap_or(0));
        let mut bytes = 0;
        let mut store = |dtype: DataType, shape: &[usize], data: &[u8]| {
            bytes += data.len() as u64;
            store(dtype, shape, data)
        };
        let (index_dtype, index_shape) = match form {
            Form::Ios16 => (DataType::UInt8, &[palette.indices.len()][..]),
            Form::Dense => (index_dtype(palette.nbits), &palette.index_shape[..]),
            Form::Sparse => (index_dtype(palette.nbits), &[kept][..]),
        };
        let indices = store(index_dtype, index_shape, &palette.indices)?;
        let repeated = match slot {
            Slot::QuantizedData { op } if target < Target::IOS26 => repeated(palette, op),
            _ => None,
        };
        let lut = StoredLut::new(palette, form, repeated, &mut store)?;
        let dtype = data_type(palette.dtype);
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
            vector_axis: palette.vector_axis,
            scale,
            bytes,
        })
    }

    /// For a quantized weight, the operation that scales the LUT, and the one that looks the weight up in it, in the
    /// place of `op`, the operation that scales the weight; `None` if that one stays.
    pub(crate) fn on_lut(
        &self,
        op: &Operation,
        name: &str,
        names: &mut Names,
    ) -> Option<[Operation; 2]> {
        if !self.lut.takes_scale {
            return None;
        }
        let (dtype, _) = op.outputs.last()?.known_tensor()?;
        let of_lut = |name| lut_rank(in_place(op, name)?);
        let (scale, offset) = (of_lut("scale")?, of_lut("offset"));
        let lut_name = names.fresh(&format!("{name}_palettized_lut"));
        let scaled = self.lut.scaled(&lut_name, dtype, &scale, offset.as_ref());
        let inputs = [
            ("indices", bind_value(self.indices.clone())),
            ("lut", bind_name(&lut_name)),
        ];
        let outputs = op.outputs.clone();
        let looked_up = operation("constexpr_lut_to_dense", op_name(op), inputs, outputs);
        Some([scaled, looked_up])
    }

    /// What there is to note of it.
    pub(crate) fn written(&self) -> Written<'_> {
        let tables = match self.form {
            Form::Ios16 => &[],
            _ => self.lut.shape.get(..self.shape.len()).unwrap_or(&[]),
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

    /// The operations for the weight called `name`. The last output of the last operation is the weight's data; of a
    /// pruned weight, the one before it is the mask.
    pub(crate) fn operations(
        &self,
        name: &str,
        mask: Option<&Value>,
        names: &mut Names,
    ) -> Vec<Operation> {
        let mut ops = Vec::new();
        let palettized = names.fresh(&format!("{name}_palettized"));
        let mut lut = bind_value(self.lut.entries.clone());
        if let Some(scale) = &self.lut.scale {
            let lut_name = names.fresh(&format!("{name}_palettized_lut"));
            let offset = self.lut.offset.as_ref();
            ops.push(self.lut.scaled(&lut_name, self.dtype, scale, offset));
            lut = bind_name(&lut_name);
        }
        let outputs = self.outputs(&palettized, names);
        let scaled = self.scale.as_ref().map(|scale| {
            let scaled = names.fresh(&format!("{name}_palettized_pcs"));
            let scale = ("scale", bind_value(scale.clone()));
            let (op_type, inputs) = match &outputs[..] {
                [mask, data] => {
                    let mask = ("data_mask", bind_name(&mask.name));
                    let data = ("nonzero_data", bind_name(&data.name));
                    let sparse = "constexpr_sparse_blockwise_shift_scale";
                    (sparse, vec![mask, data, scale])
                }
                _ => {
                    let data = ("data", bind_name(&palettized));
                    ("constexpr_blockwise_shift_scale", vec![data, scale])
                }
            };
            operation(op_type, &scaled, inputs, self.outputs(&scaled, names))
        });
        ops.push(match self.form {
            Form::Ios16 => self.ios16(&palettized, outputs),
            Form::Dense | Form::Sparse => self.look_up(&palettized, lut, mask, outputs),
        });
        ops.extend(scaled);
        ops
    }

    /// The weight's data under a name; of a pruned weight, the mask, and the values where it has ones.
    fn outputs(&self, name: &str, names: &mut Names) -> Vec<NamedValueType> {
        if self.form != Form::Sparse {
            return vec![output(name, self.dtype, &self.shape)];
        }
        let mask = names.fresh(&format!("{name}_mask"));
        vec![
            output(&mask, DataType::UInt1, &self.shape),
            output(name, self.dtype, &[self.kept]),
        ]
    }

    fn look_up(
        &self,
        name: &str,
        lut: Argument,
        mask: Option<&Value>,
        outputs: Vec<NamedValueType>,
    ) -> Operation {
        let (op_type, indices) = match self.form {
            Form::Sparse => ("constexpr_lut_to_sparse", "indices_nonzero_data"),
            _ => ("constexpr_lut_to_dense", "indices"),
        };
        let mut inputs = vec![(indices, bind_value(self.indices.clone())), ("lut", lut)];
        inputs.extend(mask.map(|mask| ("indices_mask", bind_value(mask.clone()))));
        inputs.extend(self.vector_axis.map(|axis| {
            // A rank never comes near i32::MAX: it was counted from dimensions in a file of at most 2 GB.
            let axis = i32::try_from(axis).unwrap_or(i32::MAX);
            ("vector_axis", bind_value(int32_values(&[], vec![axis])))
        }));
        operation(op_type, name, inputs, outputs)
    }

    fn ios16(&self, name: &str, outputs: Vec<NamedValueType>) -> Operation {
        let dims = self.shape.iter();
        let dims: Vec<u8> = dims.flat_map(|&dim| (dim as u32).to_le_bytes()).collect();
        let shape = bytes_value(DataType::UInt32, &[self.shape.len()], &dims);
        let mut op = operation("constexpr_lut_to_dense", name, [], outputs);
        let (indices, lut) = (self.indices.clone(), self.lut.entries.clone());
        let attributes = [("indices", indices), ("lut", lut), ("shape", shape)];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
        op.attributes.extend(attributes);
        op
    }
}

impl StoredLut {
    /// Stores the tables of `palette`, or its `repeated` ones and their shape, which take the scale of the weight.
    fn new(
        palette: &Palette,
        form: Form,
        repeated: Option<(Vec<u8>, Vec<usize>)>,
        store: &mut impl FnMut(DataType, &[usize], &[u8]) -> Result<Value, Error>,
    ) -> Result<Self, Error> {
        let dtype = data_type(palette.dtype);
        let takes_scale = repeated.is_some();
        let (repeated, shape) = match (form, repeated) {
            (Form::Ios16, _) => (None, vec![palette.nbits.entries()]),
            (_, Some((entries, shape))) => (Some(entries), shape),
            (_, None) => (None, palette.lut_shape.clone()),
        };
        let (entries, scale, offset) = match &palette.lut {
            Lut::Float(data) => {
                let data = repeated.as_ref().unwrap_or(data);
                (store(dtype, &shape, data)?, None, None)
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
                let entries = store(int, &shape, data)?;
                let scale = store(dtype, scale_shape, scale)?;
                (entries, Some(scale), offset.transpose()?)
            }
        };
        Ok(Self {
            entries,
            shape,
            scale,
            offset,
            takes_scale,
        })
    }

    /// The operation that scales the entries.
    fn scaled(
        &self,
        name: &str,
        dtype: DataType,
        scale: &Value,
        offset: Option<&Value>,
    ) -> Operation {
        let (data, scale) = (bind_value(self.entries.clone()), bind_value(scale.clone()));
        let mut inputs = vec![("data", data), ("scale", scale)];
        inputs.extend(offset.map(|offset| ("offset", bind_value(offset.clone()))));
        let outputs = vec![output(name, dtype, &self.shape)];
        operation("constexpr_blockwise_shift_scale", name, inputs, outputs)
    }
}

/// A value for the weight as one for its tables: with two more axes.
fn lut_rank(value: &Value) -> Option<Value> {
    let (dtype, mut shape) = value.known_tensor()?;
    shape.extend([1, 1]);
    Some(Value {
        r#type: Some(tensor_type(dtype, &shape)),
        ..value.clone()
    })
}

/// The tables of the weight that `op` scales, each as often as there are scales in its part of the weight, and their
/// shape; `None` if scales and tables do not lie on each other, or the tables would grow beyond the indices.
fn repeated(palette: &Palette, op: &Operation) -> Option<(Vec<u8>, Vec<usize>)> {
    if matches!(param(op, "offset"), Some(Param::Name(_))) {
        return None;
    }
    let (_, scales) = in_place(op, "scale")?.known_tensor()?;
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
