//! Differentiable k-means of one weight: numpy bytes in, numpy bytes out.

use bytemuck::Pod;
use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use palettizer_palette::{
    Dkm, DkmConstants, DkmForward, DkmLut, DkmMode, DkmSpec, Nbits, Refusal, ScaleScheme,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{slice, slice_mut};
use crate::error::{Failure, bad_value};
use crate::names::{name, optional_name};
use crate::palette::Palette;
use crate::whole;
use crate::work;

type Bytes<'py> = PyReadonlyArray1<'py, u8>;
type Place<'py> = PyReadwriteArray1<'py, u8>;

/// What the weight is made of.
#[derive(Clone, Copy)]
enum Elements {
    F64,
    F32,
    F16,
    BF16,
}

impl Elements {
    fn named(dtype: &str) -> PyResult<Self> {
        match dtype {
            "f64" => Ok(Elements::F64),
            "f32" => Ok(Elements::F32),
            "f16" => Ok(Elements::F16),
            "bf16" => Ok(Elements::BF16),
            _ => Err(bad_value(format_args!(
                "dtype is {dtype:?}; allowed: \"f64\", \"f32\", \"f16\" and \"bf16\""
            ))),
        }
    }
}

/// Does something with the type of the elements, which has the name `$E` in it.
macro_rules! typed {
    ($self:ident, $E:ident => $body:expr) => {
        match $self.elements {
            Elements::F64 => {
                type $E = f64;
                $body
            }
            Elements::F32 => {
                type $E = f32;
                $body
            }
            Elements::F16 => {
                type $E = half::f16;
                $body
            }
            Elements::BF16 => {
                type $E = half::bf16;
                $body
            }
        }
    };
}

/// See `_native.pyi`.
#[pyclass(frozen, module = "palettizer._native")]
pub(crate) struct SoftKMeans {
    dkm: Dkm,
    elements: Elements,
}

#[pymethods]
impl SoftKMeans {
    #[new]
    #[pyo3(signature = (
        dtype, shape, *, nbits, cluster_dim = DkmSpec::default().cluster_dim, group_size = DkmSpec::default().group_size,
        iterations = DkmSpec::default().iterations, temperature = DkmSpec::default().temperature,
        epsilon = DkmSpec::default().epsilon, floor = DkmSpec::default().floor,
        prune_threshold = DkmSpec::default().prune_threshold, enforce_zero = DkmSpec::default().enforce_zero,
        mode = DkmSpec::default().mode, lut_dtype = None, scale_scheme = None,
        enabled = DkmSpec::default().enabled, cluster_tolerance = DkmSpec::default().cluster_tolerance,
        starts = DkmSpec::default().starts, seed = DkmSpec::default().seed, implicit = DkmSpec::default().implicit
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        dtype: &str,
        #[pyo3(from_py_with = whole::shape)] shape: Vec<usize>,
        #[pyo3(from_py_with = whole::nbits)] nbits: Nbits,
        #[pyo3(from_py_with = whole::cluster_dim)] cluster_dim: usize,
        #[pyo3(from_py_with = whole::group_size)] group_size: Option<usize>,
        #[pyo3(from_py_with = whole::iterations)] iterations: usize,
        temperature: Option<f64>,
        epsilon: f64,
        floor: Option<f64>,
        prune_threshold: Option<f64>,
        enforce_zero: bool,
        #[pyo3(from_py_with = name)] mode: DkmMode,
        #[pyo3(from_py_with = optional_name)] lut_dtype: Option<DkmLut>,
        #[pyo3(from_py_with = optional_name)] scale_scheme: Option<ScaleScheme>,
        enabled: f64,
        cluster_tolerance: f64,
        #[pyo3(from_py_with = whole::starts)] starts: u32,
        #[pyo3(from_py_with = whole::seed)] seed: u64,
        implicit: bool,
    ) -> PyResult<Self> {
        let elements = Elements::named(dtype)?;
        let spec = DkmSpec {
            nbits,
            cluster_dim,
            group_size,
            iterations,
            temperature,
            epsilon,
            floor,
            prune_threshold,
            enforce_zero,
            mode,
            lut: lut_dtype.unwrap_or_default(),
            scale: scale_scheme,
            enabled,
            cluster_tolerance,
            starts,
            seed,
            implicit,
        };
        let dkm = work::brief(py, || Dkm::new(spec, &shape))?;
        Ok(SoftKMeans { dkm, elements })
    }

    #[getter]
    fn groups(&self) -> usize {
        self.dkm.groups()
    }

    #[getter]
    fn clusters(&self) -> usize {
        self.dkm.clusters()
    }

    #[getter]
    fn cluster_dim(&self) -> usize {
        self.dkm.spec().cluster_dim
    }

    #[getter]
    fn saved_len(&self) -> usize {
        self.dkm.saved_len()
    }

    #[getter]
    fn finds_temperature(&self) -> bool {
        self.dkm.spec().finds_temperature()
    }

    #[getter]
    fn floor(&self) -> f64 {
        self.dkm.spec().least_attention()
    }

    #[getter]
    fn prune_threshold(&self) -> f64 {
        self.dkm.spec().lowered_by()
    }

    #[pyo3(signature = (values, out, threads = None))]
    fn channel_scale(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        typed!(self, E => {
            let (values, out) = (numbers::<E>("values", &values)?, numbers_mut("out", &mut out)?);
            let scale = work::run(py, threads, None, |_| self.dkm.channel_scale(values))?;
            put(&scale.unwrap_or_default(), out)
        })
    }

    #[pyo3(signature = (values, scale, out, threads = None))]
    fn seed_centroids(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        typed!(self, E => {
            let (values, scale) = (numbers::<E>("values", &values)?, optional(&scale)?);
            let out = numbers_mut("out", &mut out)?;
            put(&work::run(py, threads, None, |line| self.dkm.seed(values, scale, Some(line.stop)))?, out)
        })
    }

    #[pyo3(signature = (values, centroids, scale, out, threads = None))]
    fn temperatures(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        centroids: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        typed!(self, E => {
            let values = numbers::<E>("values", &values)?;
            let (centroids, scale) = (numbers("centroids", &centroids)?, optional(&scale)?);
            let out = numbers_mut("out", &mut out)?;
            put(&work::run(py, threads, None, |_| self.dkm.temperatures(values, centroids, scale))?, out)
        })
    }

    #[pyo3(signature = (values, centroids, scale, temperatures, noise, out, next, saved, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "as many as there are")]
    fn forward(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        centroids: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        temperatures: Option<Bytes<'_>>,
        #[pyo3(from_py_with = whole::noise)] noise: u64,
        mut out: Place<'_>,
        mut next: Place<'_>,
        mut saved: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        typed!(self, E => {
            let values = numbers::<E>("values", &values)?;
            let centroids = numbers("centroids", &centroids)?;
            let constants = constants(&scale, &temperatures, noise)?;
            let forward = DkmForward {
                out: numbers_mut("out", &mut out)?,
                next: numbers_mut("next", &mut next)?,
                saved: numbers_mut("saved", &mut saved)?,
            };
            work::run(py, threads, None, |_| self.dkm.forward(values, centroids, constants, forward))
        })
    }

    #[pyo3(signature = (values, scale, temperatures, noise, saved, grad, out, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "as many as there are")]
    fn backward(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        temperatures: Option<Bytes<'_>>,
        #[pyo3(from_py_with = whole::noise)] noise: u64,
        saved: Bytes<'_>,
        grad: Bytes<'_>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        typed!(self, E => {
            let values = numbers::<E>("values", &values)?;
            let constants = constants(&scale, &temperatures, noise)?;
            let (saved, grad) = (numbers("saved", &saved)?, numbers("grad", &grad)?);
            let out = numbers_mut("out", &mut out)?;
            work::run(py, threads, None, |_| self.dkm.backward(values, constants, saved, grad, out))
        })
    }

    #[pyo3(signature = (values, centroids, scale, out, threads = None))]
    fn assign(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        centroids: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        typed!(self, E => {
            let values = numbers::<E>("values", &values)?;
            let (centroids, scale) = (numbers("centroids", &centroids)?, optional(&scale)?);
            let out = numbers_mut("out", &mut out)?;
            work::run(py, threads, None, |_| self.dkm.assign(values, centroids, scale, out))
        })
    }

    #[pyo3(signature = (values, centroids, scale, threads = None))]
    fn palette(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        centroids: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<Palette> {
        typed!(self, E => {
            let values = numbers::<E>("values", &values)?;
            let (centroids, scale) = (numbers("centroids", &centroids)?, optional(&scale)?);
            work::run(py, threads, None, |_| self.dkm.palette(values, centroids, scale)).map(Palette)
        })
    }
}

/// The settings of `SoftKMeans` that need not be given, with what they are then.
#[pyfunction]
pub(crate) fn dkm_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let spec = DkmSpec::default();
    let defaults = PyDict::new(py);
    defaults.set_item("cluster_dim", spec.cluster_dim)?;
    defaults.set_item("group_size", spec.group_size)?;
    defaults.set_item("iterations", spec.iterations)?;
    defaults.set_item("temperature", spec.temperature)?;
    defaults.set_item("epsilon", spec.epsilon)?;
    defaults.set_item("floor", spec.floor)?;
    defaults.set_item("prune_threshold", spec.prune_threshold)?;
    defaults.set_item("enforce_zero", spec.enforce_zero)?;
    defaults.set_item("mode", spec.mode.name())?;
    defaults.set_item("enabled", spec.enabled)?;
    defaults.set_item("cluster_tolerance", spec.cluster_tolerance)?;
    defaults.set_item("starts", spec.starts)?;
    defaults.set_item("seed", spec.seed)?;
    defaults.set_item("implicit", spec.implicit)?;
    Ok(defaults)
}

fn unaligned(what: &str) -> PyErr {
    bad_value(format_args!(
        "{what} is not a whole number of aligned elements; pass the bytes of a contiguous tensor"
    ))
}

fn numbers<'a, T: Pod>(what: &str, bytes: &'a Bytes<'_>) -> PyResult<&'a [T]> {
    bytemuck::try_cast_slice(slice(what, bytes)?).map_err(|_| unaligned(what))
}

fn numbers_mut<'a, T: Pod>(what: &str, bytes: &'a mut Place<'_>) -> PyResult<&'a mut [T]> {
    bytemuck::try_cast_slice_mut(slice_mut(what, bytes)?).map_err(|_| unaligned(what))
}

fn optional<'a, T: Pod>(bytes: &'a Option<Bytes<'_>>) -> PyResult<Option<&'a [T]>> {
    let bytes = bytes.as_ref();
    bytes.map(|bytes| numbers("scale", bytes)).transpose()
}

fn constants<'a, R: Pod>(
    scale: &'a Option<Bytes<'_>>,
    temperatures: &'a Option<Bytes<'_>>,
    noise: u64,
) -> PyResult<DkmConstants<'a, R>> {
    let temperatures = temperatures.as_ref();
    let found = temperatures.map(|bytes| numbers("temperatures", bytes));
    Ok(DkmConstants {
        scale: optional(scale)?,
        temperatures: found.transpose()?.unwrap_or_default(),
        noise,
    })
}

fn put<T: Copy>(numbers: &[T], out: &mut [T]) -> PyResult<()> {
    if numbers.len() != out.len() {
        return Err(Failure::from(Refusal::Length {
            what: "out",
            expected: numbers.len(),
            found: out.len(),
        })
        .into());
    }
    out.copy_from_slice(numbers);
    Ok(())
}
