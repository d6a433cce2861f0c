//! The palette of a dense weight that is one already.

use numpy::PyReadonlyArray1;
use palettizer_palette::{ChannelScale, Dtype, Lut, Palette as Inner, Tensor};
use pyo3::prelude::*;

use crate::arrays::slice;
use crate::error::bad_value;
use crate::names::dtype as parse_dtype;
use crate::palette::Palette;
use crate::whole;
use crate::work;

type Bytes<'py> = PyReadonlyArray1<'py, u8>;

/// Finds the indices again. See `_native.pyi` for the arguments.
#[pyfunction]
#[pyo3(signature = (
    values, dtype, shape, *, lut, lut_shape, lut_dtype = None, lut_scale = None, lut_scale_shape = None,
    lut_offset = None, scale = None, scale_shape = None, vector_axis = None, threads = None
))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn recover(
    py: Python<'_>,
    values: Bytes<'_>,
    dtype: &str,
    #[pyo3(from_py_with = whole::shape)] shape: Vec<usize>,
    lut: Bytes<'_>,
    #[pyo3(from_py_with = whole::lut_shape)] lut_shape: Vec<usize>,
    lut_dtype: Option<&str>,
    lut_scale: Option<Bytes<'_>>,
    #[pyo3(from_py_with = whole::lut_scale_shape)] lut_scale_shape: Option<Vec<usize>>,
    lut_offset: Option<Bytes<'_>>,
    scale: Option<Bytes<'_>>,
    #[pyo3(from_py_with = whole::scale_shape)] scale_shape: Option<Vec<usize>>,
    #[pyo3(from_py_with = whole::vector_axis)] vector_axis: Option<usize>,
    #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
) -> PyResult<Palette> {
    let bytes = slice("values", &values)?;
    let tensor = Tensor::new(parse_dtype(dtype)?, &shape, bytes).map_err(bad_value)?;
    let data = slice("lut", &lut)?.to_vec();
    let lut = match lut_dtype {
        None => Lut::Float(data),
        Some(name) => Lut::Quantized {
            dtype: match name {
                "int8" => Dtype::I8,
                "uint8" => Dtype::U8,
                _ => {
                    return Err(bad_value(format_args!(
                        "lut_dtype is {name:?}; allowed: None, \"int8\" and \"uint8\""
                    )));
                }
            },
            data,
            scale: given("lut_scale", lut_scale)?,
            scale_shape: present("lut_scale_shape", lut_scale_shape)?,
            offset: lut_offset
                .map(|offset| slice("lut_offset", &offset).map(<[u8]>::to_vec))
                .transpose()?,
        },
    };
    let scale = match scale {
        None => None,
        Some(_) => Some(ChannelScale {
            bytes: given("scale", scale)?,
            shape: present("scale_shape", scale_shape)?,
        }),
    };
    let palette = work::run(py, threads, None, |_| {
        Inner::recover(&tensor, lut, &lut_shape, vector_axis, scale)
    });
    palette.map(Palette)
}

fn given(name: &str, array: Option<Bytes<'_>>) -> PyResult<Vec<u8>> {
    let array = present(name, array)?;
    Ok(slice(name, &array)?.to_vec())
}

fn present<T>(name: &str, value: Option<T>) -> PyResult<T> {
    value.ok_or_else(|| {
        bad_value(format_args!(
            "{name} is None, and what goes with it is given"
        ))
    })
}
