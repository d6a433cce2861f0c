//! One weight, palettized.

use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn, PyReadwriteArray1, PyUntypedArrayMethods};
use palettizer_palette::{
    Context, DEFAULT_DAMPING, DEFAULT_ROUNDS, Deferred, FittedTables, GranularityName, Layerwise,
    LayerwiseAlgorithm, LayerwiseSettings, ModeName, MomentsShape, Nbits, PaletteSpec, Precision,
    Refusal, SpecError, SpecOptions, Tensor,
};
use pyo3::prelude::*;

use crate::arrays::{optional_slice, slice, slice_mut};
use crate::error::bad_value;
use crate::names::{dtype as parse_dtype, name};
use crate::palette::{DeferredPalette, Palette};
use crate::whole;
use crate::work;

/// Palettizes one weight. See `_native.pyi` for the arguments.
#[pyfunction]
#[pyo3(signature = (
    values, dtype, shape, *, mode = "kmeans", nbits = None, granularity = "per_tensor", group_size = None,
    channel_axis = None, output_axis = None, cluster_dim = 1, enable_per_channel_scale = false, lut_dtype = None,
    fold_scale = false, half_scales = false, exact = false, seed = 0, sensitivity = None, second_moments = None,
    algorithm = LayerwiseAlgorithm::default(), rounds = DEFAULT_ROUNDS, damping = DEFAULT_DAMPING, deferred = false,
    threads = None
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
    second_moments: Option<PyReadonlyArrayDyn<'_, f32>>,
    #[pyo3(from_py_with = name)] algorithm: LayerwiseAlgorithm,
    #[pyo3(from_py_with = whole::rounds)] rounds: usize,
    damping: f64,
    deferred: bool,
    #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
) -> PyResult<Palettized> {
    let spec = Asked {
        mode,
        nbits,
        granularity,
        group_size,
        channel_axis,
        cluster_dim,
        enable_per_channel_scale,
        lut_dtype,
        fold_scale,
        half_scales,
        exact,
        seed,
    };
    let spec = spec.build().map_err(bad_value)?;
    let bytes = slice("values", &values)?;
    let tensor = Tensor::new(parse_dtype(dtype)?, &shape, bytes).map_err(bad_value)?;
    let sensitivity = optional_slice("sensitivity", &sensitivity)?;
    let settings = LayerwiseSettings {
        algorithm,
        rounds,
        damping,
    };
    let layerwise = inputs(&second_moments, settings)?;
    work::run(py, threads, None, |line| {
        let context = Context {
            output_axis,
            sensitivity,
            layerwise,
            stop: Some(line.stop),
            ..Context::default()
        };
        if deferred && let Some(deferred) = Deferred::new(&tensor, &spec, &context)? {
            return Ok(Palettized::Later(DeferredPalette { deferred, threads }));
        }
        let palette = palettizer_palette::palettize(&tensor, &spec, &context)?;
        Ok::<_, Refusal>(Palettized::Now(Palette(palette)))
    })
}

/// What `palettize` gives.
#[derive(IntoPyObject)]
pub(crate) enum Palettized {
    Now(Palette),
    Later(DeferredPalette),
}

/// The palette of tables that were fitted elsewhere. See `_native.pyi` for the arguments.
#[pyfunction]
#[pyo3(signature = (
    values, dtype, shape, *, luts, indices, scales = None, nbits, granularity = "per_tensor", group_size = None,
    channel_axis = None, output_axis = None, enable_per_channel_scale = false, lut_dtype = None, fold_scale = false,
    half_scales = false, second_moments = None, damping = DEFAULT_DAMPING, threads = None
))]
#[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(crate) fn assemble(
    py: Python<'_>,
    values: PyReadonlyArray1<'_, u8>,
    dtype: &str,
    #[pyo3(from_py_with = whole::shape)] shape: Vec<usize>,
    luts: PyReadonlyArray1<'_, f32>,
    indices: PyReadonlyArray1<'_, u8>,
    scales: Option<PyReadonlyArray1<'_, f32>>,
    #[pyo3(from_py_with = whole::nbits)] nbits: Option<Nbits>,
    granularity: &str,
    #[pyo3(from_py_with = whole::group_size)] group_size: Option<usize>,
    #[pyo3(from_py_with = whole::channel_axis)] channel_axis: Option<i64>,
    #[pyo3(from_py_with = whole::output_axis)] output_axis: Option<usize>,
    enable_per_channel_scale: bool,
    lut_dtype: Option<&str>,
    fold_scale: bool,
    half_scales: bool,
    second_moments: Option<PyReadonlyArrayDyn<'_, f32>>,
    damping: f64,
    #[pyo3(from_py_with = whole::threads)] threads: Option<usize>,
) -> PyResult<Palette> {
    let spec = Asked {
        mode: ModeName::default().name(),
        nbits,
        granularity,
        group_size,
        channel_axis,
        cluster_dim: 1,
        enable_per_channel_scale,
        lut_dtype,
        fold_scale,
        half_scales,
        exact: false,
        seed: 0,
    };
    let spec = spec.build().map_err(bad_value)?;
    let bytes = slice("values", &values)?;
    let tensor = Tensor::new(parse_dtype(dtype)?, &shape, bytes).map_err(bad_value)?;
    let fitted = FittedTables {
        luts: slice("luts", &luts)?,
        indices: slice("indices", &indices)?,
        scales: optional_slice("scales", &scales)?,
    };
    let settings = LayerwiseSettings {
        damping,
        ..LayerwiseSettings::default()
    };
    let layerwise = inputs(&second_moments, settings)?;
    let palette = work::run(py, threads, None, |line| {
        let context = Context {
            output_axis,
            layerwise,
            stop: Some(line.stop),
            ..Context::default()
        };
        palettizer_palette::assemble(&tensor, &spec, &context, fitted)
    });
    palette.map(Palette)
}

/// The arguments that describe a palette.
struct Asked<'a> {
    mode: &'a str,
    nbits: Option<Nbits>,
    granularity: &'a str,
    group_size: Option<usize>,
    channel_axis: Option<i64>,
    cluster_dim: usize,
    enable_per_channel_scale: bool,
    lut_dtype: Option<&'a str>,
    fold_scale: bool,
    half_scales: bool,
    exact: bool,
    seed: u64,
}

impl Asked<'_> {
    fn build(self) -> Result<PaletteSpec, SpecError> {
        let granularity = self.granularity.parse()?;
        if granularity == GranularityName::PerGroupedChannel && self.group_size.is_none() {
            let expected = "a whole number, 0 or more (granularity per_grouped_channel needs it)";
            return Err(SpecError::new("group_size", "missing", expected));
        }
        let options = SpecOptions {
            nbits: self.nbits,
            mode: Some(self.mode.parse()?),
            granularity: Some(granularity),
            group_size: self.group_size,
            channel_axis: self.channel_axis,
            cluster_dim: Some(self.cluster_dim),
            enable_per_channel_scale: Some(self.enable_per_channel_scale),
            lut_dtype: self.lut_dtype.map(str::parse).transpose()?,
            lut_function: None,
            precision: self.exact.then_some(Precision::Exact),
            seed: Some(self.seed),
        };
        let spec = options.ignoring_unused_groups().build()?;
        spec.with_fold_scale(self.fold_scale)
            .with_half_scales(self.half_scales)
            .build()
    }
}

/// Second moments as one weight has them.
fn inputs<'a>(
    moments: &'a Option<PyReadonlyArrayDyn<'_, f32>>,
    settings: LayerwiseSettings,
) -> PyResult<Option<Layerwise<'a>>> {
    let Some(moments) = moments else {
        return Ok(None);
    };
    let shape = MomentsShape::of(moments.shape()).ok_or_else(|| {
        bad_value(format_args!(
            "second_moments has the shape {:?}; expected [row_runs, blocks, n, n], [row_runs, n, n] or [n, n]",
            moments.shape()
        ))
    })?;
    Ok(Some(Layerwise {
        moments: slice("second_moments", moments)?,
        shape,
        settings,
    }))
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
