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
//! | quantized weight | `constexpr_lut_to_dense` before the `constexpr_blockwise_shift_scale` that is there |

use crate::Error;
use crate::notes::Written;
use crate::opset::Target;
use crate::palettize::plan::Slot;
use crate::program::constant::data_type;
use crate::program::mil::{bind_name, bind_value, bytes_value, int32_value, output, string_value};
use crate::proto::{Argument, DataType, NamedValueType, Operation, Value};
use crate::rewrite::Rewriter;
use palettizer_palette::dense::kept;
use palettizer_palette::{Lut, Nbits, Palette};
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
        let lut_shape = match form {
            Form::Ios16 => vec![palette.nbits.entries()],
            _ => palette.lut_shape.clone(),
        };
        let (lut, lut_scale, lut_offset) = match &palette.lut {
            Lut::Float(data) => (store(dtype, &lut_shape, data)?, None, None),
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
            bytes: bytes as u64,
        })
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
