//! Differentiable k-means of one weight: numpy bytes in, numpy bytes out.

use std::sync::atomic::AtomicBool;

use bytemuck::Pod;
use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use palettizer_palette::{Dkm, DkmElement, DkmForward, DkmSpec, Refusal};
use pyo3::prelude::*;

use crate::arrays::{optional_slice, slice, slice_mut};
use crate::error::{Failure, bad_value};
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

/// Calls a function with the type of the elements.
macro_rules! typed {
    ($self:expr, $name:ident ($($arg:expr),*)) => {
        match $self.elements {
            Elements::F64 => $name::<f64>($($arg),*),
            Elements::F32 => $name::<f32>($($arg),*),
            Elements::F16 => $name::<half::f16>($($arg),*),
            Elements::BF16 => $name::<half::bf16>($($arg),*),
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
        dtype, shape, *, nbits, cluster_dim = 1, group_size = None, iterations = 3, temperature = 1e-4, epsilon = 1e-4,
        floor = 1e-7, prune_threshold = 1e-7, enforce_zero = false, mode = "dkm", lut_dtype = None, scale_scheme = None,
        enabled = 1.0, cluster_tolerance = 0.0, starts = 1, seed = 0, implicit = false
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        dtype: &str,
        #[pyo3(from_py_with = whole::shape)] shape: Vec<usize>,
        #[pyo3(from_py_with = whole::nbits)] nbits: i64,
        #[pyo3(from_py_with = whole::cluster_dim)] cluster_dim: usize,
        #[pyo3(from_py_with = whole::group_size)] group_size: Option<usize>,
        #[pyo3(from_py_with = whole::iterations)] iterations: usize,
        temperature: f64,
        epsilon: f64,
        floor: f64,
        prune_threshold: f64,
        enforce_zero: bool,
        mode: &str,
        lut_dtype: Option<&str>,
        scale_scheme: Option<&str>,
        enabled: f64,
        cluster_tolerance: f64,
        #[pyo3(from_py_with = whole::starts)] starts: u32,
        #[pyo3(from_py_with = whole::seed)] seed: u64,
        implicit: bool,
    ) -> PyResult<Self> {
        let elements = match dtype {
            "f64" => Elements::F64,
            "f32" => Elements::F32,
            "f16" => Elements::F16,
            "bf16" => Elements::BF16,
            _ => {
                return Err(bad_value(format_args!(
                    "dtype is {dtype:?}; allowed: \"f64\", \"f32\", \"f16\" and \"bf16\""
                )));
            }
        };
        let spec = DkmSpec {
            nbits: nbits.to_string().parse().map_err(bad_value)?,
            cluster_dim,
            group_size,
            iterations,
            temperature,
            epsilon,
            floor,
            prune_threshold,
            enforce_zero,
            mode: mode.parse().map_err(bad_value)?,
            lut: match lut_dtype {
                None => Default::default(),
                Some(name) => name.parse().map_err(bad_value)?,
            },
            scale: scale_scheme
                .map(str::parse)
                .transpose()
                .map_err(bad_value)?,
            enabled,
            cluster_tolerance,
            starts,
            seed,
            implicit,
        };
        let dkm = work::brief(py, || Dkm::new(spec, &shape))?.map_err(Failure::from)?;
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

    #[pyo3(signature = (values, out, threads = None))]
    fn channel_scale(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        let values = slice("values", &values)?;
        let out = slice_mut("out", &mut out)?;
        run(py, threads, |_| {
            typed!(self, channel_scale(&self.dkm, values, out))
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
        let values = slice("values", &values)?;
        let scale = optional_slice("scale", &scale)?;
        let out = slice_mut("out", &mut out)?;
        run(py, threads, |stop| {
            typed!(self, seed(&self.dkm, values, scale, out, stop))
        })
    }

    #[pyo3(signature = (values, centroids, scale, noise, out, next, saved, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "as many as there are")]
    fn forward(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        centroids: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        #[pyo3(from_py_with = whole::noise)] noise: u64,
        mut out: Place<'_>,
        mut next: Place<'_>,
        mut saved: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        let values = slice("values", &values)?;
        let centroids = slice("centroids", &centroids)?;
        let scale = optional_slice("scale", &scale)?;
        let out = slice_mut("out", &mut out)?;
        let next = slice_mut("next", &mut next)?;
        let saved = slice_mut("saved", &mut saved)?;
        run(py, threads, |_| {
            typed!(
                self,
                forward(&self.dkm, values, centroids, scale, noise, out, next, saved)
            )
        })
    }

    #[pyo3(signature = (values, scale, noise, saved, grad, out, threads = None))]
    #[expect(clippy::too_many_arguments, reason = "as many as there are")]
    fn backward(
        &self,
        py: Python<'_>,
        values: Bytes<'_>,
        scale: Option<Bytes<'_>>,
        #[pyo3(from_py_with = whole::noise)] noise: u64,
        saved: Bytes<'_>,
        grad: Bytes<'_>,
        mut out: Place<'_>,
        #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
    ) -> PyResult<()> {
        let values = slice("values", &values)?;
        let scale = optional_slice("scale", &scale)?;
        let saved = slice("saved", &saved)?;
        let grad = slice("grad", &grad)?;
        let out = slice_mut("out", &mut out)?;
        run(py, threads, |_| {
            typed!(
                self,
                backward(&self.dkm, values, scale, noise, saved, grad, out)
            )
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
        let values = slice("values", &values)?;
        let centroids = slice("centroids", &centroids)?;
        let scale = optional_slice("scale", &scale)?;
        let out = slice_mut("out", &mut out)?;
        run(py, threads, |_| {
            typed!(self, assign(&self.dkm, values, centroids, scale, out))
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
        let values = slice("values", &values)?;
        let centroids = slice("centroids", &centroids)?;
        let scale = optional_slice("scale", &scale)?;
        run(py, threads, |_| {
            typed!(self, palette(&self.dkm, values, centroids, scale))
        })
        .map(Palette)
    }
}

/// Why nothing came of it.
enum Problem {
    Refusal(Refusal),
    Bytes(&'static str),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem::Refusal(refusal)
    }
}

fn run<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    job: impl FnOnce(&AtomicBool) -> Result<T, Problem> + Send,
) -> PyResult<T> {
    let stop = AtomicBool::new(false);
    let done = work::run(py, threads, None, &stop, |_| job(&stop))?;
    done.map_err(|problem| match problem {
        Problem::Refusal(refusal) => Failure::from(refusal).into(),
        Problem::Bytes(what) => bad_value(format_args!(
            "{what} is not a whole number of aligned elements; pass the bytes of a contiguous tensor"
        )),
    })
}

fn numbers<'a, T: Pod>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [T], Problem> {
    bytemuck::try_cast_slice(bytes).map_err(|_| Problem::Bytes(what))
}

fn numbers_mut<'a, T: Pod>(
    what: &'static str,
    bytes: &'a mut [u8],
) -> Result<&'a mut [T], Problem> {
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| Problem::Bytes(what))
}

fn optional<T: Pod>(bytes: Option<&[u8]>) -> Result<Option<&[T]>, Problem> {
    bytes.map(|bytes| numbers("scale", bytes)).transpose()
}

/// A weight and what it is palettized by.
struct Given<'a, E: DkmElement> {
    values: &'a [E],
    centroids: &'a [E::Real],
    scale: Option<&'a [E::Real]>,
}

impl<'a, E: DkmElement<Real: Pod>> Given<'a, E> {
    fn new(
        values: &'a [u8],
        centroids: &'a [u8],
        scale: Option<&'a [u8]>,
    ) -> Result<Self, Problem> {
        Ok(Given {
            values: numbers("values", values)?,
            centroids: numbers("centroids", centroids)?,
            scale: optional(scale)?,
        })
    }
}

fn put<T: Pod>(what: &'static str, numbers: &[T], out: &mut [u8]) -> Result<(), Problem> {
    let bytes: &[u8] = bytemuck::cast_slice(numbers);
    if bytes.len() != out.len() {
        return Err(Problem::Refusal(Refusal::Length {
            what,
            expected: numbers.len(),
            found: out.len() / size_of::<T>(),
        }));
    }
    out.copy_from_slice(bytes);
    Ok(())
}

fn channel_scale<E: DkmElement<Real: Pod>>(
    dkm: &Dkm,
    values: &[u8],
    out: &mut [u8],
) -> Result<(), Problem> {
    let scale = dkm.channel_scale::<E>(numbers("values", values)?)?;
    put("out", &scale.unwrap_or_default(), out)
}

fn seed<E: DkmElement<Real: Pod>>(
    dkm: &Dkm,
    values: &[u8],
    scale: Option<&[u8]>,
    out: &mut [u8],
    stop: &AtomicBool,
) -> Result<(), Problem> {
    let values = numbers("values", values)?;
    let centroids = dkm.seed::<E>(values, optional(scale)?, Some(stop))?;
    put("out", &centroids, out)
}

#[expect(clippy::too_many_arguments, reason = "as many as there are")]
fn forward<E: DkmElement<Real: Pod>>(
    dkm: &Dkm,
    values: &[u8],
    centroids: &[u8],
    scale: Option<&[u8]>,
    noise: u64,
    out: &mut [u8],
    next: &mut [u8],
    saved: &mut [u8],
) -> Result<(), Problem> {
    let forward = DkmForward {
        out: numbers_mut("out", out)?,
        next: numbers_mut("next", next)?,
        saved: numbers_mut("saved", saved)?,
    };
    let given = Given::<E>::new(values, centroids, scale)?;
    dkm.forward(given.values, given.centroids, given.scale, noise, forward)?;
    Ok(())
}

fn backward<E: DkmElement<Real: Pod>>(
    dkm: &Dkm,
    values: &[u8],
    scale: Option<&[u8]>,
    noise: u64,
    saved: &[u8],
    grad: &[u8],
    out: &mut [u8],
) -> Result<(), Problem> {
    dkm.backward::<E>(
        numbers("values", values)?,
        optional(scale)?,
        noise,
        numbers("saved", saved)?,
        numbers("grad", grad)?,
        numbers_mut("out", out)?,
    )?;
    Ok(())
}

fn assign<E: DkmElement<Real: Pod>>(
    dkm: &Dkm,
    values: &[u8],
    centroids: &[u8],
    scale: Option<&[u8]>,
    out: &mut [u8],
) -> Result<(), Problem> {
    let given = Given::<E>::new(values, centroids, scale)?;
    let out = numbers_mut("out", out)?;
    dkm.assign(given.values, given.centroids, given.scale, out)?;
    Ok(())
}

fn palette<E: DkmElement<Real: Pod>>(
    dkm: &Dkm,
    values: &[u8],
    centroids: &[u8],
    scale: Option<&[u8]>,
) -> Result<palettizer_palette::Palette, Problem> {
    let given = Given::<E>::new(values, centroids, scale)?;
    Ok(dkm.palette(given.values, given.centroids, given.scale)?)
}
