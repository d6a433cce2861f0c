//! What a `constexpr_` operation stands for: its parameters read, its value computed.
//!
//! Both forms of each op are known: iOS16's, whose parameters are attributes with 1-D data and a `shape`, and
//! iOS18's, whose parameters are inputs of the weight's rank. The arithmetic is in `palettizer_palette::decode`.

use crate::Error;
use crate::decompress::numbers::{IntoNumbers, Numbers, collected, each_float, each_type};
use crate::package::Package;
use crate::program::constant::{Constant, release, rows_of};
use crate::program::mil::{Param, element_count, in_place, integers, op_name, param};
use crate::proto::{BlobFileValue, DataType, Operation};
use palettizer_palette::decode::{self, Affine, DenseError, Packed};
use std::borrow::Cow;

/// A tensor that a `constexpr_` operation gives or takes. Masks and indices have one element a byte.
#[derive(Debug)]
pub struct Dense {
    /// The shape.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub numbers: Numbers,
}

impl Dense {
    /// Of tables or scales that lie in blocks along the first axis of a tensor: one for each row that is named, or the one for all. `None`
    /// if a block is larger than a row, whose copies could be more than all blocks.
    fn for_rows(self, rows: Rows<'_>, row: usize) -> Option<Self> {
        let (&blocks, rest) = self.shape.split_first()?;
        if blocks == 1 {
            return Some(self);
        }
        let each = rows.of.checked_div(blocks).filter(|&each| each > 0)?;
        let len = element_count(rest)?;
        if each * blocks != rows.of || len > row {
            return None;
        }
        let numbers = each_type!(&self.numbers, values => {
            let mut picked = Vec::new();
            picked.try_reserve_exact(len.checked_mul(rows.named.len())?).ok()?;
            for at in rows.named {
                let begin = (at / each).checked_mul(len)?;
                picked.extend_from_slice(values.get(begin..)?.get(..len)?);
            }
            picked.into_numbers()
        });
        Some(Dense {
            shape: [&[rows.named.len()], rest].concat(),
            numbers,
        })
    }

    /// A copy; `name` says in an error whose it is.
    pub(crate) fn try_clone(&self, name: &str) -> Result<Self, Error> {
        let copy = self.numbers.try_clone();
        Ok(Dense {
            shape: self.shape.clone(),
            numbers: copy.map_err(|_| Error::no_memory(name, self.numbers.bytes().len()))?,
        })
    }
}

/// Computes the outputs of `op`; `made` gives what earlier operations made, by name. With `room`, the fp16 elements of a palettized
/// weight come as fp32: the same values, and a pass over them the less where they are to be computed with. They lie in `room` if it
/// is enough.
///
/// # Errors
/// [`Error::Constexpr`] if a parameter is missing or does not fit the others, [`Error::BadValue`] and the
/// errors of the weight file if one cannot be read.
pub(crate) fn evaluate<'a>(
    package: &'a Package,
    op: &'a Operation,
    made: &'a dyn Fn(&str) -> Option<&'a Dense>,
    room: Option<Vec<f32>>,
) -> Result<Vec<Dense>, Error> {
    let params = Params { package, op, made };
    let dense = match op.r#type.as_str() {
        "constexpr_lut_to_dense" => params.lut_to_dense(room),
        "constexpr_blockwise_shift_scale" => params
            .required("data")
            .and_then(|data| params.shift_scale(data)),
        "constexpr_affine_dequantize" => params.affine_dequantize(),
        "constexpr_sparse_to_dense" => params.sparse_to_dense(),
        "constexpr_cast" => params.cast(),
        "constexpr_lut_to_sparse" => return params.lut_to_sparse(),
        "constexpr_sparse_blockwise_shift_scale" => return params.sparse_shift_scale(),
        _ => Err(params.bad("this kind of compressed constant is not known".to_owned())),
    };
    Ok(vec![dense?])
}

/// What a `constexpr_blockwise_shift_scale` would make of `data` in place of its own: numbers of the weight's float type.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn shift_scaled(
    package: &Package,
    op: &Operation,
    data: Dense,
) -> Result<Numbers, Error> {
    let made = &|_: &str| None;
    let params = Params { package, op, made };
    Ok(params.shift_scale(data)?.numbers)
}

/// Rows of a tensor that are asked for: on its first axis, of so many.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub of: usize,
    pub named: &'a [usize],
}

/// What [`evaluate`] makes, but rows of it alone; `data` are those of the data that `op` is chained to. `None` for what cannot be read
/// by rows, which may be damaged. With `room`, fp16 rows of a table may come as fp32, and lie in it.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn evaluate_rows<'a>(
    package: &'a Package,
    op: &'a Operation,
    made: &'a dyn Fn(&str) -> Option<&'a Dense>,
    data: Option<Dense>,
    rows: Rows<'_>,
    room: Option<Vec<f32>>,
) -> Result<Option<Dense>, Error> {
    let params = Params { package, op, made };
    match (op.r#type.as_str(), data) {
        ("constexpr_lut_to_dense", None) => params.rows_looked_up(rows, room),
        ("constexpr_blockwise_shift_scale", data) => params.rows_scaled(data, rows),
        _ => Ok(None),
    }
}

/// The indices of a palettized weight, packed.
struct Indices<'a> {
    shape: Vec<usize>,
    nbits: u32,
    bytes: Cow<'a, [u8]>,
}

struct Params<'a> {
    package: &'a Package,
    op: &'a Operation,
    made: &'a dyn Fn(&str) -> Option<&'a Dense>,
}

impl Params<'_> {
    fn bad(&self, what: String) -> Error {
        Error::Constexpr {
            op_type: self.op.r#type.clone(),
            name: op_name(self.op).to_owned(),
            what,
        }
    }

    fn dense_error(&self) -> impl Fn(DenseError) -> Error + '_ {
        |error| self.bad(error.to_string())
    }

    /// Refuses a tensor of this shape, with elements like those of `numbers`, that is more than the files may unfold to.
    fn within(&self, shape: &[usize], numbers: &Numbers) -> Result<(), Error> {
        let elements = decode::count(shape).map_err(self.dense_error())?;
        let size = numbers.dtype().bits().unwrap_or(8).div_ceil(8);
        let asked = (elements as u64).saturating_mul(u64::from(size));
        let stored = self.package.stored_len();
        let limits = self.package.limits();
        Ok(limits.check(op_name(self.op), asked, stored)?)
    }

    fn no_memory(&self, bytes: usize) -> Error {
        Error::no_memory(op_name(self.op), bytes)
    }

    fn optional(&self, name: &str) -> Result<Option<Dense>, Error> {
        let found = match param(self.op, name) {
            None => return Ok(None),
            Some(Param::Name(from)) => {
                let made = (self.made)(from).ok_or_else(|| {
                    self.bad(format!(
                        "{name} is \"{from}\", which is no compressed constant"
                    ))
                })?;
                made.try_clone(op_name(self.op))?
            }
            Some(Param::Value(value)) => {
                let constant = Constant::read(self.package, op_name(self.op), value)?;
                let dense = self.numbers(name, &constant)?;
                if let Some(place) = &value.blob_file {
                    release(self.package, place);
                }
                dense
            }
        };
        Ok(Some(found))
    }

    /// The elements of a parameter.
    fn numbers(&self, name: &str, constant: &Constant<'_>) -> Result<Dense, Error> {
        let elements = element_count(&constant.shape).unwrap_or(0);
        let numbers = Numbers::read(constant.dtype, &constant.bytes, elements)
            .map_err(|_| self.no_memory(elements))?;
        Ok(Dense {
            shape: constant.shape.clone(),
            numbers: numbers.ok_or_else(|| {
                let dtype = constant.dtype.name();
                self.bad(format!("{name} is of type {dtype}, which it cannot have"))
            })?,
        })
    }

    fn required(&self, name: &str) -> Result<Dense, Error> {
        self.optional(name)?
            .ok_or_else(|| self.bad(format!("parameter {name} is missing")))
    }

    /// Integers of a small parameter, such as an axis or a shape.
    fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, Error> {
        let Some(value) = in_place(self.op, name) else {
            return Ok(None);
        };
        let Constant { dtype, bytes, .. } = Constant::read(self.package, op_name(self.op), value)?;
        let known = matches!(dtype, DataType::Int32 | DataType::UInt32);
        let found = known.then(|| integers(dtype, &bytes)).flatten();
        let wrong = || format!("{name} is of type {}, expected int32", dtype.name());
        Ok(Some(found.ok_or_else(|| self.bad(wrong()))?))
    }

    fn shape(&self) -> Result<Option<Vec<usize>>, Error> {
        let dims = self.integers("shape")?;
        let dims = dims.map(|dims| dims.into_iter().map(usize::try_from).collect());
        dims.transpose()
            .map_err(|_| self.bad("shape has a negative dimension".to_owned()))
    }

    fn scalar(&self, name: &str) -> Result<Option<i64>, Error> {
        let integers = self.integers(name)?;
        Ok(integers.and_then(|values| values.first().copied()))
    }

    /// A parameter of unsigned integers, and its shape.
    fn unsigned(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>), Error> {
        let Dense { shape, numbers } = self.required(name)?;
        match numbers {
            Numbers::U8(values) => Ok((shape, values)),
            other => Err(self.no_unsigned(name, other.dtype())),
        }
    }

    fn no_unsigned(&self, name: &str, found: DataType) -> Error {
        let found = found.name();
        self.bad(format!(
            "{name} is of type {found}, expected an unsigned integer"
        ))
    }

    /// A mask of one element for each of the weight's, its bits packed, and its shape.
    fn mask(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>), Error> {
        let (shape, mask) = self.unsigned(name)?;
        Ok((shape, pack_mask(&mask)))
    }

    /// What a computation gave.
    fn dense(
        &self,
        shape: Vec<usize>,
        numbers: Result<Numbers, DenseError>,
    ) -> Result<Dense, Error> {
        let numbers = numbers.map_err(self.dense_error())?;
        Ok(Dense { shape, numbers })
    }

    fn lut_to_dense(&self, room: Option<Vec<f32>>) -> Result<Dense, Error> {
        let (indices, lut) = self.palette()?;
        let dense = self.looked_up(&indices, lut, room);
        if let (Cow::Borrowed(_), Some(place)) = (&indices.bytes, self.place("indices")) {
            release(self.package, place);
        }
        dense
    }

    fn rows_looked_up(
        &self,
        rows: Rows<'_>,
        room: Option<Vec<f32>>,
    ) -> Result<Option<Dense>, Error> {
        let (indices, lut) = self.palette()?;
        let Some((&of, row)) = indices.shape.split_first() else {
            return Ok(None);
        };
        let [.., entries, vector] = lut.shape[..] else {
            return Ok(None);
        };
        let axis = self.scalar("vector_axis")?.unwrap_or(0);
        let along_rows = vector > 1 && (axis == 0 || axis.unsigned_abs() == 1 + row.len() as u64);
        // an index that no table has is refused in whatever row it is
        let beyond = entries >> indices.nbits == 0;
        if of != rows.of || along_rows || beyond {
            return Ok(None);
        }
        let bytes = rows_of(&indices.bytes, &indices.shape, indices.nbits, rows.named);
        let lut = lut.for_rows(rows, element_count(row).unwrap_or(0));
        let (Some(bytes), Some(lut)) = (bytes, lut) else {
            return Ok(None);
        };
        let indices = Indices {
            shape: [&[rows.named.len()], row].concat(),
            nbits: indices.nbits,
            bytes: Cow::Owned(bytes),
        };
        self.looked_up(&indices, lut, room).map(Some)
    }

    /// Indices and tables, shaped as in iOS18.
    fn palette(&self) -> Result<(Indices<'_>, Dense), Error> {
        let (shape, nbits, bytes) = match param(self.op, "indices") {
            Some(Param::Value(value)) => {
                let Constant {
                    dtype,
                    shape,
                    bytes,
                } = Constant::read(self.package, op_name(self.op), value)?;
                (shape, self.bits(dtype)?, bytes)
            }
            _ => {
                let (shape, values) = self.unsigned("indices")?;
                (shape, 8, Cow::Owned(values))
            }
        };
        let mut lut = self.required("lut")?;
        let Some(shape) = self.shape()? else {
            let indices = Indices {
                shape,
                nbits,
                bytes,
            };
            return Ok((indices, lut));
        };
        // iOS16: packed bytes and a 1-D table.
        let entries = lut.shape.iter().product::<usize>();
        let elements = decode::count(&shape).map_err(self.dense_error())?;
        let nbits = entries.checked_ilog2().unwrap_or(0);
        let needed = elements.checked_mul(nbits as usize);
        let enough = needed.is_some_and(|bits| bits.div_ceil(8) <= bytes.len());
        if !enough || !(1..=8).contains(&nbits) {
            let (wanted, len) = (format!("{elements} indices of {nbits} bits"), bytes.len());
            return Err(self.bad(format!("{wanted} do not fit into {len} bytes")));
        }
        lut.shape = vec![1; shape.len()];
        lut.shape.extend([entries, 1]);
        let indices = Indices {
            shape,
            nbits,
            bytes,
        };
        Ok((indices, lut))
    }

    /// The bits of an index of this type.
    fn bits(&self, dtype: DataType) -> Result<u32, Error> {
        let unsigned = matches!(
            dtype,
            DataType::UInt8
                | DataType::UInt1
                | DataType::UInt2
                | DataType::UInt3
                | DataType::UInt4
                | DataType::UInt6
        );
        let bits = dtype.bits().filter(|_| unsigned);
        bits.ok_or_else(|| self.no_unsigned("indices", dtype))
    }

    /// Where a parameter lies in a weight file.
    fn place(&self, name: &str) -> Option<&BlobFileValue> {
        in_place(self.op, name)?.blob_file.as_ref()
    }

    fn looked_up(
        &self,
        indices: &Indices<'_>,
        mut lut: Dense,
        room: Option<Vec<f32>>,
    ) -> Result<Dense, Error> {
        if room.is_some()
            && let Numbers::F16(entries) = &lut.numbers
        {
            lut.numbers = Numbers::F32(entries.iter().map(|entry| entry.to_f32()).collect());
        }
        let axis = self.scalar("vector_axis")?;
        let Dense {
            shape: lut_shape,
            numbers: lut,
        } = lut;
        let index_shape = &indices.shape;
        let shape =
            decode::dense_shape(index_shape, &lut_shape, axis).map_err(self.dense_error())?;
        self.within(&shape, &lut)?;
        let packed = Packed {
            bytes: &indices.bytes,
            nbits: indices.nbits,
        };
        let numbers = match &lut {
            Numbers::F32(lut) => {
                let mut out = room.unwrap_or_default();
                decode::lut_to_dense_in(&mut out, packed, index_shape, lut, &lut_shape, axis)
                    .map(|()| Numbers::F32(out))
            }
            other => each_type!(other, lut => {
                let mut out = Vec::new();
                decode::lut_to_dense_in(&mut out, packed, index_shape, lut, &lut_shape, axis)
                    .map(|()| out.into_numbers())
            }),
        };
        self.dense(shape, numbers)
    }

    fn lut_to_sparse(&self) -> Result<Vec<Dense>, Error> {
        let (index_shape, mask) = self.mask("indices_mask")?;
        let (_, indices) = self.unsigned("indices_nonzero_data")?;
        let lut = self.required("lut")?;
        let axis = self.scalar("vector_axis")?;
        let shape =
            decode::dense_shape(&index_shape, &lut.shape, axis).map_err(self.dense_error())?;
        self.within(&shape, &lut.numbers)?;
        each_type!(&lut.numbers, table => {
            let sparse =
                decode::lut_to_sparse(&mask, &index_shape, &indices, table, &lut.shape, axis)
                    .map_err(self.dense_error())?;
            self.sparse_outputs(shape, &sparse.mask, sparse.values.into_numbers())
        })
    }

    fn shift_scale(&self, data: Dense) -> Result<Dense, Error> {
        let scale = self.required("scale")?;
        let offset = self.offset(&scale)?;
        self.scaled(data, &scale, offset)
    }

    fn rows_scaled(&self, data: Option<Dense>, rows: Rows<'_>) -> Result<Option<Dense>, Error> {
        let data = match (data, param(self.op, "data")) {
            (Some(data), _) => Some(data),
            (None, Some(Param::Value(value))) => {
                let constant = Constant::read(self.package, op_name(self.op), value)?;
                let same = constant.shape.first() == Some(&rows.of);
                let rows = same.then(|| constant.rows(rows.named)).flatten();
                rows.map(|rows| self.numbers("data", &rows)).transpose()?
            }
            _ => None,
        };
        let scale = self.required("scale")?;
        let offset = self.offset(&scale)?;
        let Some(data) = data else {
            return Ok(None);
        };
        let row = data.shape.iter().skip(1).product();
        let offset = offset.map(|numbers| {
            let shape = scale.shape.clone();
            Dense { shape, numbers }.for_rows(rows, row)
        });
        let (Some(scale), None | Some(Some(_))) = (scale.for_rows(rows, row), &offset) else {
            return Ok(None);
        };
        let offset = offset.flatten().map(|offset| offset.numbers);
        self.scaled(data, &scale, offset).map(Some)
    }

    fn scaled(&self, data: Dense, scale: &Dense, offset: Option<Numbers>) -> Result<Dense, Error> {
        self.within(&data.shape, &scale.numbers)?;
        let numbers = each_float!(&scale.numbers, by => each_type!(&data.numbers, of => match &offset {
            None => decode::shift_scale(of, &data.shape, by, &scale.shape, None::<&[i8]>),
            Some(offset) => each_type!(offset, less => {
                decode::shift_scale(of, &data.shape, by, &scale.shape, Some(less))
            }),
        }.map(IntoNumbers::into_numbers)), return Err(self.no_float_scale(scale)));
        self.dense(data.shape, numbers)
    }

    fn sparse_shift_scale(&self) -> Result<Vec<Dense>, Error> {
        let (shape, mask) = self.mask("data_mask")?;
        let data = self.required("nonzero_data")?;
        let scale = self.required("scale")?;
        let offset = self.offset(&scale)?;
        let numbers = each_float!(&scale.numbers, by => each_type!(&data.numbers, of => match &offset {
            None => {
                decode::sparse_shift_scale(&mask, &shape, of, by, &scale.shape, None::<&[i8]>)
            }
            Some(offset) => each_type!(offset, less => {
                decode::sparse_shift_scale(&mask, &shape, of, by, &scale.shape, Some(less))
            }),
        }.map(IntoNumbers::into_numbers)), return Err(self.no_float_scale(&scale)));
        let values = numbers.map_err(self.dense_error())?;
        self.sparse_outputs(shape, &mask, values)
    }

    fn offset(&self, scale: &Dense) -> Result<Option<Numbers>, Error> {
        let Some(offset) = self.optional("offset")? else {
            return Ok(None);
        };
        if offset.shape != scale.shape {
            return Err(self.bad(format!(
                "offset has the shape {:?}, scale {:?}: they must be equal",
                offset.shape, scale.shape
            )));
        }
        Ok(Some(offset.numbers))
    }

    fn no_float_scale(&self, scale: &Dense) -> Error {
        let found = scale.numbers.dtype().name();
        self.bad(format!("scale is of type {found}, expected fp16 or fp32"))
    }

    fn affine_dequantize(&self) -> Result<Dense, Error> {
        let data = self.required("quantized_data")?;
        let scale = self.required("scale")?;
        let zero_point = self.required("zero_point")?;
        let axis = self.scalar("axis")?.unwrap_or(0);
        self.within(&data.shape, &scale.numbers)?;
        let numbers = each_float!(&scale.numbers, scale => each_type!(&data.numbers, of => {
            each_type!(&zero_point.numbers, zero_point => {
                let params = Affine { scale, zero_point, axis };
                decode::affine_dequantize(of, &data.shape, &params)
            })
        }.map(IntoNumbers::into_numbers)), return Err(self.no_float_scale(&scale)));
        self.dense(data.shape, numbers)
    }

    fn sparse_to_dense(&self) -> Result<Dense, Error> {
        let values = self.required("nonzero_data")?;
        let (shape, mask) = match self.shape()? {
            // iOS16: the mask's bits are packed already.
            Some(shape) => (shape, self.unsigned("mask")?.1),
            None => self.mask("mask")?,
        };
        self.within(&shape, &values.numbers)?;
        let numbers = each_type!(&values.numbers, values => {
            decode::sparse_to_dense(values, &mask, &shape).map(IntoNumbers::into_numbers)
        });
        self.dense(shape, numbers)
    }

    /// The two outputs of an op that stays sparse: the mask, one element a byte, and the values.
    fn sparse_outputs(
        &self,
        shape: Vec<usize>,
        mask: &[u8],
        values: Numbers,
    ) -> Result<Vec<Dense>, Error> {
        let elements = element_count(&shape).unwrap_or(0);
        let bit = |at: usize| mask.get(at / 8).map_or(0, |byte| byte >> (at % 8) & 1);
        let wide = collected((0..elements).map(bit));
        let kept = each_type!(&values, values => values.len());
        Ok(vec![
            Dense {
                shape,
                numbers: Numbers::U8(wide.map_err(|_| self.no_memory(elements))?),
            },
            Dense {
                shape: vec![kept],
                numbers: values,
            },
        ])
    }

    fn cast(&self) -> Result<Dense, Error> {
        let source = self.required("source_val")?;
        let numbers = each_type!(&source.numbers, from => decode::cast::<_, f32>(from));
        self.dense(source.shape, numbers.map(IntoNumbers::into_numbers))
    }
}

/// One bit for each byte that is not zero, the least significant first.
fn pack_mask(mask: &[u8]) -> Vec<u8> {
    let pack = |chunk: &[u8]| {
        let bits = chunk.iter().enumerate();
        bits.fold(0u8, |byte, (at, &bit)| byte | u8::from(bit != 0) << at)
    };
    mask.chunks(8).map(pack).collect()
}
