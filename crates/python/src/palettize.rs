//! One weight, palettized.

use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use palettizer_palette::{
    Context, GranularityName, Nbits, PaletteSpec, Precision, SpecError, SpecOptions, Tensor,
};
use pyo3::prelude::*;

use crate::arrays::{optional_slice, slice, slice_mut};
use crate::error::bad_value;
use crate::names::dtype as parse_dtype;
use crate::palette::Palette;
use crate::whole;
use crate::work;

/// Palettizes one weight. See `_native.pyi` for the arguments.
#[pyfunction]
#[pyo3(signature = (
    values, dtype, shape, *, mode = "kmeans", nbits = None, granularity = "per_tensor", group_size = None,
    channel_axis = None, output_axis = None, cluster_dim = 1, enable_per_channel_scale = false, lut_dtype = None,
    fold_scale = false, half_scales = false, exact = false, seed = 0, sensitivity = None, threads = None
))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn palettize(
    py: Python<'_>,
    values: PyReadonlyArray1<'_, u8>,
    dtype: &str,
    #[pyo3(from_py_with = whole::shape)] shape: Vec<usize>,
    mode: &str,
    #[pyo3(from_py_with = whole::nbits)] nbits: Option<Nbits>,
    granularity: &str,
    #[pyo3(from_py_with = whole::group_size)] group_size: Option<usize>,
    #[pyo3(from_py_with = whole::channel_axis)] channel_axis: Option<i64>,
    #[pyo3(from_py_with = whole::output_axis)] output_axis: Option<usize>,
    #[pyo3(from_py_with = whole::cluster_dim)] cluster_dim: usize,
    enable_per_channel_scale: bool,
    lut_dtype: Option<&str>,
    fold_scale: bool,
    half_scales: bool,
    exact: bool,
    #[pyo3(from_py_with = whole::seed)] seed: u64,
    sensitivity: Option<PyReadonlyArray1<'_, f32>>,
    #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
) -> PyResult<Palette> {
    let spec = || -> Result<PaletteSpec, SpecError> {
        let granularity = granularity.parse()?;
        if granularity == GranularityName::PerGroupedChannel && group_size.is_none() {
            let expected = "a whole number, 0 or more (granularity per_grouped_channel needs it)";
            return Err(SpecError::new("group_size", "missing", expected));
        }
        let options = SpecOptions {
            nbits,
            mode: Some(mode.parse()?),
            granularity: Some(granularity),
            group_size,
            channel_axis,
            cluster_dim: Some(cluster_dim),
            enable_per_channel_scale: Some(enable_per_channel_scale),
            lut_dtype: lut_dtype.map(str::parse).transpose()?,
            lut_function: None,
            precision: exact.then_some(Precision::Exact),
            seed: Some(seed),
        };
        let spec = options.ignoring_unused_groups().build()?;
        spec.with_fold_scale(fold_scale)
            .with_half_scales(half_scales)
            .build()
    };
    let spec = spec().map_err(bad_value)?;
    let bytes = slice("values", &values)?;
    let tensor = Tensor::new(parse_dtype(dtype)?, &shape, bytes).map_err(bad_value)?;
    let sensitivity = optional_slice("sensitivity", &sensitivity)?;
    let palette = work::run(py, threads, None, |line| {
        let context = Context {
            output_axis,
            sensitivity,
            stop: Some(line.stop),
            ..Context::default()
        };
        palettizer_palette::palettize(&tensor, &spec, &context)
    });
    palette.map(Palette)
}

/// Makes raw sensitivities usable as weights, in place: see `_native.pyi`.
#[pyfunction]
pub(crate) fn normalise_sensitivity(
    py: Python<'_>,
    mut values: PyReadwriteArray1<'_, f32>,
) -> PyResult<()> {
    let values = slice_mut("values", &mut values)?;
    work::brief(py, || palettizer_palette::sensitivity::normalise(values))
}
