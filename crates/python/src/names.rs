//! Keyword arguments as a palette's specification: where strings become enums.

use palettizer_palette::{
    Dtype, Granularity, LutDtype, LutFunction, Mode, Nbits, PaletteSpec, Precision,
};
use pyo3::prelude::*;

use crate::error::bad_value;

/// What the fields of a configuration say about one weight.
pub(crate) struct Wishes<'a> {
    pub(crate) mode: &'a str,
    pub(crate) nbits: Option<i64>,
    pub(crate) lut_function: Option<LutFunction>,
    pub(crate) granularity: &'a str,
    pub(crate) group_size: Option<usize>,
    pub(crate) channel_axis: Option<i64>,
    pub(crate) cluster_dim: usize,
    pub(crate) per_channel_scale: bool,
    pub(crate) fold_scale: bool,
    pub(crate) half_scales: bool,
    pub(crate) lut_dtype: Option<&'a str>,
    pub(crate) exact: bool,
    pub(crate) seed: u64,
}

impl Wishes<'_> {
    /// The specification, checked.
    pub(crate) fn spec(self) -> PyResult<PaletteSpec> {
        let lut_dtype = match self.lut_dtype {
            None => LutDtype::Float,
            Some(name) => name.parse().map_err(bad_value)?,
        };
        let precision = match self.exact {
            true => Precision::Exact,
            false => Precision::Refined,
        };
        let granularity = match (self.granularity, self.group_size) {
            ("per_tensor", _) => Granularity::PerTensor,
            ("per_grouped_channel", Some(group_size)) => Granularity::PerGroupedChannel {
                group_size,
                channel_axis: self.channel_axis,
            },
            ("per_grouped_channel", None) => {
                return Err(bad_value(
                    "granularity per_grouped_channel needs a group_size",
                ));
            }
            (other, _) => {
                return Err(bad_value(format_args!(
                    "granularity is {other:?}; allowed: \"per_tensor\" and \"per_grouped_channel\""
                )));
            }
        };
        PaletteSpec::new(mode(self.mode, self.nbits, self.lut_function)?)
            .with_granularity(granularity)
            .with_cluster_dim(self.cluster_dim)
            .with_per_channel_scale(self.per_channel_scale)
            .with_fold_scale(self.fold_scale)
            .with_half_scales(self.half_scales)
            .with_lut_dtype(lut_dtype)
            .with_precision(precision)
            .with_seed(self.seed)
            .build()
            .map_err(bad_value)
    }
}

fn mode(name: &str, bits: Option<i64>, function: Option<LutFunction>) -> PyResult<Mode> {
    let nbits = || {
        let bits = bits.ok_or_else(|| bad_value(format_args!("mode {name:?} needs nbits")))?;
        bits.to_string().parse::<Nbits>().map_err(bad_value)
    };
    match (name, function) {
        ("kmeans", None) => Ok(Mode::Kmeans(nbits()?)),
        ("uniform", None) => Ok(Mode::Uniform(nbits()?)),
        ("unique" | "custom", _) if bits.is_some() => {
            Err(bad_value(format_args!("mode {name:?} takes no nbits")))
        }
        ("unique", None) => Ok(Mode::Unique),
        ("custom", Some(function)) => Ok(Mode::Custom(function)),
        ("custom", None) => Err(bad_value("mode \"custom\" needs a lut_function")),
        ("kmeans" | "uniform" | "unique", Some(_)) => Err(bad_value(format_args!(
            "mode {name:?} takes no lut_function"
        ))),
        _ => Err(bad_value(format_args!(
            "mode is {name:?}; allowed: \"kmeans\", \"uniform\", \"unique\" and \"custom\""
        ))),
    }
}

/// The dtypes of tensors, by the names that safetensors has for them, in small letters.
const DTYPES: [(&str, Dtype); 3] = [
    ("f32", Dtype::F32),
    ("f16", Dtype::F16),
    ("bf16", Dtype::BF16),
];

/// `f32`, `f16` or `bf16`.
pub(crate) fn dtype(name: &str) -> PyResult<Dtype> {
    let found = DTYPES.iter().find(|(known, _)| *known == name);
    found.map(|(_, dtype)| *dtype).ok_or_else(|| {
        bad_value(format_args!(
            "dtype is {name:?}; allowed: \"f32\", \"f16\" and \"bf16\""
        ))
    })
}

/// The opposite of [`dtype`].
pub(crate) fn dtype_name(dtype: Dtype) -> &'static str {
    let found = DTYPES.iter().find(|(_, known)| *known == dtype);
    found.map_or_else(|| dtype.name(), |(name, _)| name)
}
