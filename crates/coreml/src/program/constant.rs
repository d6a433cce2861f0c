//! A constant's data: its type, and its bytes from the program or from a weight file.

use crate::Error;
use crate::blob::BlobError;
use crate::package::Package;
use crate::program::mil::{element_count, immediate_bytes, stored_bytes};
use crate::proto::{BlobFileValue, DataType, Value};
use palettizer_palette::Dtype;
use std::borrow::Cow;

/// A constant tensor, read and checked: `bytes` hold exactly the elements of `shape`.
#[derive(Clone, Debug)]
pub struct Constant<'a> {
    /// The element type.
    pub dtype: DataType,
    /// The shape.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major; sub-byte ones packed from the least significant bit.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Constant<'a> {
    /// Reads `value`; `name` says in an error whose it is.
    ///
    /// # Errors
    /// [`BlobError::Size`] if the weight file holds another type or size, [`Error::BadValue`] if the type is
    /// unknown or a value in place has another size; what reading a weight file may give.
    pub(crate) fn read(package: &'a Package, name: &str, value: &'a Value) -> Result<Self, Error> {
        Self::read_if(package, name, value, |dtype, found| dtype == found)
    }

    /// As [`read`](Self::read), where raising an opset may have given the type of packed elements to the bytes that hold
    /// them: the blob says uint8 yet.
    pub(crate) fn read_raised(
        package: &'a Package,
        name: &str,
        value: &'a Value,
    ) -> Result<Self, Error> {
        Self::read_if(package, name, value, |dtype, found| {
            let packed = dtype.bits().is_some_and(|bits| bits < 8);
            dtype == found || (packed && found == DataType::UInt8)
        })
    }

    /// Reads `value`, if `same` says that a blob of a type may hold elements of the value's.
    fn read_if(
        package: &'a Package,
        name: &str,
        value: &'a Value,
        same: impl Fn(DataType, DataType) -> bool,
    ) -> Result<Self, Error> {
        let bad = |what: &str| Error::bad_value(name, what);
        let known = value.known_tensor();
        let (dtype, shape) = known.ok_or_else(|| bad("its type is no tensor of known size"))?;
        let tensor = || format!("a {} tensor of shape {shape:?}", dtype.name());
        let expected = element_count(&shape)
            .and_then(|elements| stored_bytes(dtype, elements))
            .ok_or_else(|| bad(&format!("no file holds {}", tensor())))?;
        if let Some(place) = &value.blob_file {
            let file = package.weight_file(&place.file_name)?;
            let blob = file.blob(place.offset)?;
            let found = blob.dtype;
            // coremltools keeps booleans in uint8 blobs.
            let boolean = (dtype, found) == (DataType::Bool, DataType::UInt8);
            if !(boolean || same(dtype, found)) || blob.data.len() != expected {
                return Err(BlobError::Size {
                    name: name.to_owned(),
                    file: file.path().to_owned(),
                    offset: place.offset,
                    found: format!("{} {} elements", blob.elements(), found.name()),
                    expected: tensor(),
                }
                .into());
            }
            return Ok(Self {
                dtype,
                bytes: Cow::Borrowed(blob.data),
                shape,
            });
        }
        let bytes = immediate_bytes(value)
            .ok_or_else(|| bad("it has neither a value in place nor a blob"))?;
        let (tensor, found) = (tensor(), bytes.len());
        if found != expected {
            return Err(bad(&format!(
                "{tensor} has {expected} bytes, found {found}"
            )));
        }
        Ok(Self {
            dtype,
            shape,
            bytes,
        })
    }
}

impl Constant<'_> {
    /// Those of its rows, along the first axis, that are named, in their order; `None` if one does not begin where a byte does, or
    /// is not there.
    pub fn rows(&self, named: &[usize]) -> Option<Constant<'static>> {
        let bytes = rows_of(&self.bytes, &self.shape, self.dtype.bits()?, named)?;
        Some(Constant {
            dtype: self.dtype,
            shape: [&[named.len()], self.shape.get(1..)?].concat(),
            bytes: Cow::Owned(bytes),
        })
    }
}

/// The rows that are named, of packed elements of a shape.
pub(crate) fn rows_of(
    bytes: &[u8],
    shape: &[usize],
    nbits: u32,
    named: &[usize],
) -> Option<Vec<u8>> {
    let (&of, row) = shape.split_first()?;
    let bits = element_count(row)?.checked_mul(nbits as usize)?;
    if bits % 8 != 0 {
        return None;
    }
    let len = bits / 8;
    let mut rows = Vec::new();
    rows.try_reserve_exact(len.checked_mul(named.len())?).ok()?;
    for &at in named {
        let begin = at.checked_mul(len).filter(|_| at < of)?;
        rows.extend_from_slice(bytes.get(begin..)?.get(..len)?);
    }
    Some(rows)
}

/// Lets the memory go that the pages of a mapped blob take, once it has been read.
pub(crate) fn release(package: &Package, place: &BlobFileValue) {
    let file = package.weight_file(&place.file_name);
    if let Some((file, blob)) = file
        .ok()
        .and_then(|file| Some((file, file.blob(place.offset).ok()?)))
    {
        file.release(blob.data_range());
    }
}

/// The element type as the palette crate has it; `None` for one that is never a weight.
pub(crate) fn palette_dtype(dtype: DataType) -> Option<Dtype> {
    Some(match dtype {
        DataType::Float16 => Dtype::F16,
        DataType::BFloat16 => Dtype::BF16,
        DataType::Float32 => Dtype::F32,
        DataType::Int8 => Dtype::I8,
        DataType::UInt8 => Dtype::U8,
        _ => return None,
    })
}

/// The element type as a file has it.
pub(crate) fn data_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F16 => DataType::Float16,
        Dtype::BF16 => DataType::BFloat16,
        Dtype::F32 => DataType::Float32,
        Dtype::I8 => DataType::Int8,
        Dtype::U8 => DataType::UInt8,
    }
}
