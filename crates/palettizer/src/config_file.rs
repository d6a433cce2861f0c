//! Configurations in files: the layout that coremltools' `OptimizationConfig.from_dict` and `from_yaml` read.
//!
//! ```yaml
//! config_type: OpPalettizerConfig   # required
//! global_config:                    # every op without settings of its own; absent or null: none
//!   mode: kmeans
//!   nbits: 4
//! preset: llm                       # embeddings and heads at 8 bits, rotary tables and masks as they are (an addition)
//! op_type_configs:
//!   conv: {mode: uniform, nbits: 6}
//!   linear: null                    # null leaves the weights of these ops alone
//! op_name_configs:                  # names of ops or of constants, or patterns of them
//!   conv_1: {mode: unique}
//!   '.*_norm_.*': null
//! ```
//!
//! A pattern is a regular expression that matches the whole name, as in configurations of PyTorch modules; types may be
//! patterns too. The name itself decides first, then the first pattern in the file that fits, then the type, then the
//! preset, then `global_config`. What is a name in the model is never taken for a pattern.
//!
//! The settings of one op. They are checked one by one and together; a key that is not here is an error.
//!
//! | key | value | when absent |
//! |---|---|---|
//! | `mode` | `kmeans`, `uniform` or `unique`, in any case | `kmeans` |
//! | `nbits` | 1, 2, 3, 4, 6 or 8; required for `kmeans` and `uniform`, refused for `unique` | |
//! | `granularity` | `per_tensor` or `per_grouped_channel` | `per_tensor` |
//! | `group_size` | channels per group, 0 for all of them; ignored for `per_tensor` | 32 |
//! | `channel_axis` | an axis, negative from the end, or null; ignored for `per_tensor` | picked from the op |
//! | `cluster_dim` | weights per index, at least 1 | 1 |
//! | `enable_per_channel_scale` | `true` or `false` | `false` |
//! | `weight_threshold` | only weights with more elements are palettized | 2048 |
//! | `lut_dtype` | `float`, `int8` or `uint8` (an addition) | `float` |
//! | `num_kmeans_workers` | at least 1; see below | |
//! | `config_type` | `OpPalettizerConfig`, again | |
//!
//! `num_kmeans_workers` is the number of worker processes there. Here the work is done by the threads of the
//! calling rayon pool (`--threads` of the command), and the result does not depend on how many there are: the
//! key is checked, so that such files can be read, and has no other effect.
//!
//! We differ from coremltools where it guesses: a number in quotes, a fraction, a 1 for `true` or a
//! repeated key is an error here. Mode `custom` needs a function, so it needs the Rust API.

mod document;
mod error;
mod fields;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::Path;

use palettizer_coreml::Error;
use palettizer_coreml::config::{OpPalettizerConfig, OptimizationConfig, Preset};
use palettizer_coreml::input::Input;
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec, Precision};
use serde_json::Value;

pub use error::ConfigError;
use fields::Fields;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// Channels per group when a grouped configuration does not say.
pub const DEFAULT_GROUP_SIZE: usize = 32;

/// The keys of a whole configuration.
const KEYS: [&str; 5] = [
    "config_type",
    "preset",
    "global_config",
    "op_type_configs",
    "op_name_configs",
];

/// The keys of the settings of one op.
const OP_KEYS: [&str; 11] = [
    "config_type",
    "mode",
    "nbits",
    "granularity",
    "group_size",
    "channel_axis",
    "cluster_dim",
    "enable_per_channel_scale",
    "num_kmeans_workers",
    "weight_threshold",
    "lut_dtype",
];

/// What every spec gets that a file has no key for.
///
/// What a whole configuration has beside its specs (strictness, the deployment target, joint compression) is set
/// on the [`OptimizationConfig`] that is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defaults {
    /// How hard scalar k-means tries.
    pub precision: Precision,
    /// The seed of vector k-means.
    pub seed: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            precision: Precision::Refined,
            seed: 0,
        }
    }
}

/// Reads a `.yaml`, `.yml` or `.json` file.
///
/// ```
/// use palettizer::config_file::{self, Defaults};
///
/// let path = std::env::temp_dir().join("palettizer-doc-config.json");
/// std::fs::write(&path, r#"{"config_type": "OpPalettizerConfig", "global_config": {"nbits": 5}}"#)?;
/// let error = config_file::from_path(&path, Defaults::default()).unwrap_err();
/// assert!(error.to_string().ends_with("global_config.nbits is 5; expected 1, 2, 3, 4, 6 or 8"));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// [`ConfigError::InFile`] around what is wrong with the file or in it.
pub fn from_path(
    path: impl AsRef<Path>,
    defaults: Defaults,
) -> Result<OptimizationConfig, ConfigError> {
    let path = path.as_ref();
    read_path(path, defaults).map_err(|source| ConfigError::InFile {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn read_path(path: &Path, defaults: Defaults) -> Result<OptimizationConfig, ConfigError> {
    // A pipe has no extension as a rule, and that is not what is wrong with it.
    let text = read_text(path);
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let parse = match extension.as_deref() {
        Some("yaml" | "yml") => from_yaml_str,
        Some("json") => from_json_str,
        _ => match text {
            Err(error @ ConfigError::NotAFile { .. }) => return Err(error),
            _ => return Err(ConfigError::Extension),
        },
    };
    parse(&text?, defaults)
}

/// The text of a file.
fn read_text(path: &Path) -> Result<String, ConfigError> {
    let bytes = Input::open(path).and_then(|input| input.read(MAX_BYTES));
    let bytes = bytes.map_err(|error| match error {
        Error::Io { source, .. } => ConfigError::Read(source),
        Error::TooLarge { limit, .. } => ConfigError::TooLarge {
            limit,
            what: "bytes",
        },
        Error::NotAFile { found, .. } => ConfigError::NotAFile { found },
        error => ConfigError::Read(std::io::Error::other(error)),
    })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ConfigError::Encoding("this is UTF-16".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ConfigError::Encoding(format!("not UTF-8 at byte {}", at + 1))
    })
}

/// A YAML document as a tree, as [`from_yaml_str`] reads it: for settings that are not ours.
///
/// ```
/// let value = palettizer::config_file::yaml_value("a: [1, yes]")?;
/// assert_eq!(value, serde_json::json!({"a": [1, true]}));
/// # Ok::<(), palettizer::config_file::ConfigError>(())
/// ```
///
/// # Errors
/// [`ConfigError::Syntax`] with line and column, [`ConfigError::TooLarge`].
pub fn yaml_value(text: &str) -> Result<Value, ConfigError> {
    document::yaml(text)
}

/// The YAML document of a file, whatever its name ends in, as a tree.
///
/// # Errors
/// As [`yaml_value`], in [`ConfigError::InFile`], and what reading the file may give.
pub fn yaml_file(path: impl AsRef<Path>) -> Result<Value, ConfigError> {
    let path = path.as_ref();
    read_text(path)
        .and_then(|text| document::yaml(&text))
        .map_err(|source| ConfigError::InFile {
            path: path.to_owned(),
            source: Box::new(source),
        })
}

/// Reads YAML text; `<<` merges are applied.
///
/// ```
/// use palettizer::config_file::{self, Defaults};
///
/// let text = "
/// config_type: OpPalettizerConfig
/// global_config: {nbits: 4}
/// op_type_configs: {linear: null}
/// ";
/// let config = config_file::from_yaml_str(text, Defaults::default())?;
/// assert_eq!(config.op_types()["linear"], None);
/// # Ok::<(), palettizer::config_file::ConfigError>(())
/// ```
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn from_yaml_str(text: &str, defaults: Defaults) -> Result<OptimizationConfig, ConfigError> {
    from_value(&document::yaml(text)?, defaults)
}

/// Reads JSON text.
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn from_json_str(text: &str, defaults: Defaults) -> Result<OptimizationConfig, ConfigError> {
    from_value(&document::json(text)?, defaults)
}

/// Reads a dictionary. Its patterns are tried in its order.
///
/// ```
/// use palettizer::config_file::{self, Defaults};
///
/// let value = serde_json::json!({
///     "config_type": "OpPalettizerConfig",
///     "op_name_configs": {"conv_1": {"nbit": 4}},
/// });
/// let error = config_file::from_value(&value, Defaults::default()).unwrap_err();
/// assert!(error.to_string().starts_with("unknown key op_name_configs.conv_1.nbit (did you mean nbits?)"));
/// ```
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn from_value(value: &Value, defaults: Defaults) -> Result<OptimizationConfig, ConfigError> {
    let fields = Fields::new(value, "", "a mapping with the key config_type")?;
    fields.known(&KEYS)?;
    fields.config_type(true)?;
    let mut config = OptimizationConfig::new();
    if let Some((value, key)) = fields.not_null("global_config") {
        config = config.with_global(op_config(value, &key, defaults)?);
    }
    if let Some((value, key)) = fields.not_null("preset") {
        config = config.with_preset(preset(value, key)?);
    }
    let what = "a mapping from names to settings";
    if let Some((value, key)) = fields.not_null("op_type_configs") {
        for (op_type, value, key) in Fields::new(value, &key, what)?.entries() {
            if op_type == "const" {
                return Err(ConfigError::ConstType { key });
            }
            config = config.with_op_type(op_type, op_config(value, &key, defaults)?);
        }
    }
    if let Some((value, key)) = fields.not_null("op_name_configs") {
        for (name, value, key) in Fields::new(value, &key, what)?.entries() {
            config = config.with_op_name(name, op_config(value, &key, defaults)?);
        }
    }
    Ok(config)
}

fn preset(value: &Value, key: String) -> Result<Preset, ConfigError> {
    let found = value.as_str().map(str::parse);
    found.and_then(Result::ok).ok_or_else(|| {
        let names: Vec<&str> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        ConfigError::Value {
            key,
            found: fields::describe(value),
            expected: names.join(" or "),
        }
    })
}

/// The settings of one op; `None` for null.
fn op_config(
    value: &Value,
    key: &str,
    defaults: Defaults,
) -> Result<Option<OpPalettizerConfig>, ConfigError> {
    if value.is_null() {
        return Ok(None);
    }
    let fields = Fields::new(value, key, "a mapping such as {nbits: 4}, or null for none")?;
    fields.known(&OP_KEYS)?;
    fields.config_type(false)?;
    let group_size = fields.at_least("group_size", 0)?;
    let channel_axis = fields.axis("channel_axis")?;
    let granularity = match fields.choice("granularity", &["per_tensor", "per_grouped_channel"])? {
        Some("per_grouped_channel") => Granularity::PerGroupedChannel {
            group_size: group_size.unwrap_or(DEFAULT_GROUP_SIZE),
            channel_axis,
        },
        _ => Granularity::PerTensor,
    };
    let lut_dtype = match fields.choice("lut_dtype", &["float", "int8", "uint8"])? {
        Some("int8") => LutDtype::Int8,
        Some("uint8") => LutDtype::Uint8,
        _ => LutDtype::Float,
    };
    fields.at_least("num_kmeans_workers", 1)?;
    let spec = PaletteSpec::new(mode(&fields)?)
        .with_granularity(granularity)
        .with_cluster_dim(fields.at_least("cluster_dim", 1)?.unwrap_or(1))
        .with_per_channel_scale(fields.flag("enable_per_channel_scale")?.unwrap_or(false))
        .with_lut_dtype(lut_dtype)
        .with_precision(defaults.precision)
        .with_seed(defaults.seed);
    spec.validate().map_err(|error| ConfigError::Value {
        key: format!("{key}.{}", error.field),
        found: error.found,
        expected: error.allowed.to_owned(),
    })?;
    let config = OpPalettizerConfig::new(spec);
    Ok(Some(match fields.at_least("weight_threshold", 0)? {
        Some(elements) => config.with_weight_threshold(elements),
        None => config,
    }))
}

/// `mode` and `nbits`, which decide about each other.
fn mode(fields: &Fields<'_>) -> Result<Mode, ConfigError> {
    let nbits = fields.nbits()?;
    let name = fields.choice("mode", &["kmeans", "uniform", "unique", "custom"])?;
    let required = |name: &str| {
        nbits.ok_or_else(|| ConfigError::Missing {
            key: fields.key("nbits"),
            expected: format!("1, 2, 3, 4, 6 or 8 (mode {name} needs it)"),
        })
    };
    match (name.unwrap_or("kmeans"), nbits) {
        ("unique", None) => Ok(Mode::Unique),
        ("unique", Some(nbits)) => Err(ConfigError::Value {
            key: fields.key("nbits"),
            found: nbits.to_string(),
            expected: "nothing, because mode unique takes as many bits as the values need"
                .to_owned(),
        }),
        ("custom", _) => Err(ConfigError::Custom {
            key: fields.key("mode"),
        }),
        ("uniform", _) => required("uniform").map(Mode::Uniform),
        _ => required("kmeans").map(Mode::Kmeans),
    }
}

/// The number of bits that an integer stands for.
fn nbits_of(number: u64) -> Option<Nbits> {
    u8::try_from(number)
        .ok()
        .and_then(|bits| Nbits::try_from(bits).ok())
}
