//! What a `constexpr_` operation stands for: its parameters read, its value computed.
//!
//! Both forms of each op are known: iOS16's, whose parameters are attributes with 1-D data and a `shape`, and
//! iOS18's, whose parameters are inputs of the weight's rank. The arithmetic is in `palettizer_palette::decode`.

use crate::Error;
use crate::decompress::numbers::{IntoNumbers, Numbers, collected, each_float, each_type};
use crate::package::Package;
use crate::program::constant::{Constant, release};
use crate::program::mil::{Param, element_count, in_place, integers, op_name, param};
use crate::proto::{DataType, Operation};
use palettizer_palette::decode::{self, Affine, DenseError, Packed};

/// A tensor that a `constexpr_` operation gives or takes. Masks and indices have one element a byte.
#[derive(Debug)]
pub struct Dense {
    /// The shape.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub numbers: Numbers,
}

impl Dense {
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
        "constexpr_blockwise_shift_scale" => params.shift_scale(params.required("data")?),
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
                let elements = element_count(&constant.shape).unwrap_or(0);
                let numbers = Numbers::read(constant.dtype, &constant.bytes, elements)
                    .map_err(|_| self.no_memory(elements))?;
                if let Some(place) = &value.blob_file {
                    release(self.package, place);
                }
                Dense {
                    shape: constant.shape,
                    numbers: numbers.ok_or_else(|| {
                        let dtype = constant.dtype.name();
                        self.bad(format!("{name} is of type {dtype}, which it cannot have"))
                    })?,
                }
            }
        };
        Ok(Some(found))
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
            other => {
                let found = other.dtype().name();
                let what = format!("{name} is of type {found}, expected an unsigned integer");
                Err(self.bad(what))
            }
        }
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
        let (shape, packed) = self.unsigned("indices")?;
        let mut lut = self.required("lut")?;
        if room.is_some()
            && let Numbers::F16(entries) = &lut.numbers
        {
            lut.numbers = Numbers::F32(entries.iter().map(|entry| entry.to_f32()).collect());
        }
        let axis = self.scalar("vector_axis")?;
        let (index_shape, lut_shape, nbits, indices) = match self.shape()? {
            None => (shape, lut.shape, 8, packed),
            // iOS16: packed bytes and a 1-D table.
            Some(shape) => {
                let entries = lut.shape.iter().product::<usize>();
                let elements = decode::count(&shape).map_err(self.dense_error())?;
                let nbits = entries.checked_ilog2().unwrap_or(0);
                let len = packed.len();
                let short = || {
                    let wanted = format!("{elements} indices of {nbits} bits");
                    self.bad(format!("{wanted} do not fit into {len} bytes"))
                };
                let bits = elements.checked_mul(nbits as usize);
                let fits = bits.is_some_and(|bits| bits.div_ceil(8) <= len);
                if !fits || !(1..=8).contains(&nbits) {
                    return Err(short());
                }
                let mut lut_shape = vec![1; shape.len()];
                lut_shape.extend([entries, 1]);
                (shape, lut_shape, nbits, packed)
            }
        };
        let shape =
            decode::dense_shape(&index_shape, &lut_shape, axis).map_err(self.dense_error())?;
        self.within(&shape, &lut.numbers)?;
        let packed = Packed {
            bytes: &indices,
            nbits,
        };
        let numbers = match &lut.numbers {
            Numbers::F32(lut) => {
                let mut out = room.unwrap_or_default();
                decode::lut_to_dense_in(&mut out, packed, &index_shape, lut, &lut_shape, axis)
                    .map(|()| Numbers::F32(out))
            }
            other => each_type!(other, lut => {
                let mut out = Vec::new();
                decode::lut_to_dense_in(&mut out, packed, &index_shape, lut, &lut_shape, axis)
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
        self.within(&data.shape, &scale.numbers)?;
        let numbers = each_float!(&scale.numbers, by => each_type!(&data.numbers, of => match &offset {
            None => decode::shift_scale(of, &data.shape, by, &scale.shape, None::<&[i8]>),
            Some(offset) => each_type!(offset, less => {
                decode::shift_scale(of, &data.shape, by, &scale.shape, Some(less))
            }),
        }.map(IntoNumbers::into_numbers)), return Err(self.no_float_scale(&scale)));
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
