//! A safetensors checkpoint as Python has it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use numpy::PyReadonlyArray1;
use palettizer::SaveOptions;
use palettizer::safetensors::{Checkpoint as Inner, Content, DenseTensor, ElementType};
use pyo3::prelude::*;

use crate::arrays::{Dense, dense, slice};
use crate::config::Config;
use crate::error::bad_value;
use crate::json::json;
use crate::model::limits;
use crate::palette::Palette;
use crate::whole;
use crate::work;

/// Tensors by name: a `.safetensors` file, or a folder of them with its index.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct Checkpoint(Inner);

/// A tensor as Python has it: a palette, or (dtype, shape, bytes).
#[derive(IntoPyObject)]
enum Tensor<'py> {
    Palette(Bound<'py, Palette>),
    Dense(Dense<'py>),
}

/// The same, given to be written.
#[derive(FromPyObject)]
enum Given<'py> {
    Palette(PyRef<'py, Palette>),
    Dense((String, Vec<usize>, PyReadonlyArray1<'py, u8>)),
}

#[pymethods]
impl Checkpoint {
    /// Opens a file, a folder of shards, or its index.
    #[staticmethod]
    #[pyo3(signature = (path, *, max_expansion = None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        #[pyo3(from_py_with = whole::max_expansion)] max_expansion: Option<u64>,
    ) -> PyResult<Self> {
        work::brief(py, || Inner::open_with(path, limits(max_expansion))).map(Self)
    }

    /// The names of all tensors, a palettized weight's one among them.
    fn names(&self) -> Vec<&str> {
        self.0.names()
    }

    /// The strings that the file has for its users.
    fn metadata(&self) -> BTreeMap<String, String> {
        self.0.metadata()
    }

    /// One tensor.
    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Tensor<'py>> {
        match work::brief(py, || self.0.get(name))? {
            Content::Palette(palette) => Bound::new(py, Palette(*palette)).map(Tensor::Palette),
            Content::Dense(tensor) => {
                let name = tensor.element.name();
                dense(py, name, &tensor.shape, tensor.bytes).map(Tensor::Dense)
            }
        }
    }

    /// The weights that the configuration palettizes, with their bytes.
    fn jobs(&self, py: Python<'_>, config: Config) -> PyResult<Vec<(&str, u64)>> {
        let config = config.into_rust(&Arc::default())?;
        work::brief(py, || self.0.jobs(&config))
    }

    /// Palettizes to another checkpoint; the report as JSON.
    #[pyo3(signature = (config, out, *, overwrite = false, threads = None, progress = None))]
    fn compress_to(
        &self,
        py: Python<'_>,
        config: Config,
        out: PathBuf,
        overwrite: bool,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let options = SaveOptions::overwriting(overwrite);
        json(&config.run(py, threads, progress, |config, line| {
            self.0.palettize_to(config, out, options, line)
        })?)
    }

    /// Palettizes some of the weights to a part.
    #[pyo3(signature = (names, config, out, *, overwrite = false, threads = None))]
    fn compress_part(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        config: Config,
        out: PathBuf,
        overwrite: bool,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        let options = SaveOptions::overwriting(overwrite);
        config.run(py, threads, None, |config, line| {
            self.0.palettize_part(&names, config, out, options, line)
        })
    }

    /// Puts parts together: what `compress_to` would have written.
    #[pyo3(signature = (config, parts, out, *, overwrite = false))]
    fn assemble(
        &self,
        py: Python<'_>,
        config: Config,
        parts: Vec<PathBuf>,
        out: PathBuf,
        overwrite: bool,
    ) -> PyResult<String> {
        let options = SaveOptions::overwriting(overwrite);
        json(&config.run(py, None, None, |config, line| {
            self.0.assemble(config, &parts, out, options, line)
        })?)
    }

    /// Bytes of a file of tensors (name, type, shape), exactly; or at most, where it has palettes too and fewer than `most`.
    #[staticmethod]
    #[pyo3(signature = (tensors, metadata, most = None))]
    fn len_of(
        tensors: Vec<(String, String, Vec<usize>)>,
        metadata: BTreeMap<String, String>,
        most: Option<u64>,
    ) -> PyResult<u64> {
        let mut given = Vec::with_capacity(tensors.len());
        for (name, element, shape) in &tensors {
            given.push((
                name.as_str(),
                element_type(name, element)?,
                shape.as_slice(),
            ));
        }
        let len = match most {
            Some(most) => Inner::len_beside_palettes(&given, &metadata, most),
            None => Inner::len_of(&given, &metadata),
        };
        len.map_err(bad_value)
    }

    /// Writes palettes and tensors to one file.
    #[staticmethod]
    #[pyo3(signature = (out, contents, metadata, *, overwrite = false))]
    fn write(
        py: Python<'_>,
        out: PathBuf,
        contents: Vec<(String, Given<'_>)>,
        metadata: BTreeMap<String, String>,
        overwrite: bool,
    ) -> PyResult<()> {
        let mut given: Vec<(&str, Content<'_>)> = Vec::with_capacity(contents.len());
        for (name, content) in &contents {
            given.push((name, content.borrow(name)?));
        }
        let options = SaveOptions::overwriting(overwrite);
        work::brief(py, || Inner::write(out, &given, &metadata, options))
    }
}

impl Given<'_> {
    fn borrow(&self, name: &str) -> PyResult<Content<'_>> {
        match self {
            Given::Palette(palette) => Ok(Content::Palette(Box::new(palette.0.clone()))),
            Given::Dense((dtype, shape, data)) => Ok(Content::Dense(DenseTensor::new(
                element_type(name, dtype)?,
                shape.clone(),
                slice(name, data)?,
            ))),
        }
    }
}

/// The type of a tensor, by its name in a file.
fn element_type(name: &str, dtype: &str) -> PyResult<ElementType> {
    ElementType::from_name(dtype).ok_or_else(|| {
        bad_value(format_args!(
            "{name}: dtype is {dtype:?}; expected a name that safetensors has, such as \"F32\""
        ))
    })
}
