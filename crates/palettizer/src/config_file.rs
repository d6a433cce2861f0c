//! Configurations in files: the layout that coremltools' `OptimizationConfig.from_dict` and `from_yaml` read.
//!
//! ```yaml
//! config_type: OpPalettizerConfig   # required
//! global_config:                    # every op without settings of its own; absent or null: none
//!   mode: kmeans
//!   nbits: 4
//! budget: {target_size: 20MB}        # bits and granularity are chosen for a size: see below (an addition)
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
//! A budget has one of `target_size` (bytes, or a text such as 20MB), `target_bpw` (bits a weight), `target_ratio` (times
//! smaller) and `min_snr` (dB), and maybe `choices`: lists of values, such as `{nbits: [2, 3, 4], group_size: [none, 16]}`.
//! What it chooses are bits and granularity of all weights that have no settings of their own; `global_config` may then be
//! left out, and its bits and groups count for nothing.
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

mod budget;
mod document;
mod error;
mod fields;
mod json;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::Path;

use palettizer_palette::{OptionField, OptionKind, SpecError};
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig, Preset};
use serde_json::Value;

use crate::OpOptions;
pub use document::{MAX_BYTES, yaml_file, yaml_value};
pub use error::ConfigError;
use fields::{Fields, describe};

/// The keys of a whole configuration.
const KEYS: [&str; 6] = [
    "config_type",
    "preset",
    "global_config",
    "op_type_configs",
    "op_name_configs",
    "budget",
];

/// The options for which null is the same as nothing.
const NULLABLE: [&str; 2] = ["nbits", "channel_axis"];

/// Read, so that files of coremltools can be, and of no effect.
const WORKERS: OptionField = OptionField::new(
    "num_kmeans_workers",
    OptionKind::Whole(1),
    "Processes to work with",
);

/// Reads a `.yaml`, `.yml` or `.json` file. What its ops do not say, `base` does: precision and seed, say, which have
/// no keys.
///
/// What a whole configuration has beside its specs (strictness, the deployment target, joint compression) is set
/// on the [`OptimizationConfig`] that is returned.
///
/// ```
/// use palettizer::{OpOptions, config_file};
///
/// let path = std::env::temp_dir().join("palettizer-doc-config.json");
/// std::fs::write(&path, r#"{"config_type": "OpPalettizerConfig", "global_config": {"nbits": 5}}"#)?;
/// let error = config_file::from_path(&path, &OpOptions::default()).unwrap_err();
/// assert!(error.to_string().ends_with("global_config.nbits is 5; expected 1, 2, 3, 4, 6 or 8"));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// [`ConfigError::InFile`] around what is wrong with the file or in it.
pub fn from_path(
    path: impl AsRef<Path>,
    base: &OpOptions,
) -> Result<OptimizationConfig, ConfigError> {
    let path = path.as_ref();
    let config = document::file_value(path).and_then(|value| from_value(&value, base));
    config.map_err(|source| source.in_file(path))
}

/// Reads YAML text; `<<` merges are applied.
///
/// ```
/// use palettizer::{OpOptions, config_file};
///
/// let text = "
/// config_type: OpPalettizerConfig
/// global_config: {nbits: 4}
/// op_type_configs: {linear: null}
/// ";
/// let config = config_file::from_yaml_str(text, &OpOptions::default())?;
/// assert_eq!(config.op_types()["linear"], None);
/// # Ok::<(), palettizer::config_file::ConfigError>(())
/// ```
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn from_yaml_str(text: &str, base: &OpOptions) -> Result<OptimizationConfig, ConfigError> {
    from_value(&yaml_value(text)?, base)
}

/// Reads JSON text.
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn from_json_str(text: &str, base: &OpOptions) -> Result<OptimizationConfig, ConfigError> {
    from_value(&document::json_value(text)?, base)
}

/// Reads a dictionary. Its patterns are tried in its order.
///
/// ```
/// use palettizer::{OpOptions, config_file};
///
/// let value = serde_json::json!({
///     "config_type": "OpPalettizerConfig",
///     "op_name_configs": {"conv_1": {"nbit": 4}},
/// });
/// let error = config_file::from_value(&value, &OpOptions::default()).unwrap_err();
/// assert!(error.to_string().starts_with("unknown key op_name_configs.conv_1.nbit (did you mean nbits?)"));
/// ```
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn from_value(value: &Value, base: &OpOptions) -> Result<OptimizationConfig, ConfigError> {
    let fields = Fields::new(value, "", "a mapping with the key config_type")?;
    fields.known(KEYS)?;
    fields.config_type(true)?;
    let mut config = OptimizationConfig::new();
    if let Some((value, key)) = fields.not_null("global_config") {
        config = config.with_global(op_config(value, &key, base)?);
    }
    if let Some((value, key)) = fields.not_null("preset") {
        config = config.with_preset(preset(value, key)?);
    }
    if let Some((value, key)) = fields.not_null("budget") {
        config = config.with_budget(budget::read(value, &key)?);
    }
    for (op_type, value, key) in fields.settings("op_type_configs")? {
        if op_type == "const" {
            return Err(ConfigError::ConstType { key });
        }
        config = config.with_op_type(op_type, op_config(value, &key, base)?);
    }
    for (name, value, key) in fields.settings("op_name_configs")? {
        config = config.with_op_name(name, op_config(value, &key, base)?);
    }
    Ok(config)
}

fn preset(value: &Value, key: String) -> Result<Preset, ConfigError> {
    let found = value.as_str().map(str::parse);
    found.and_then(Result::ok).ok_or_else(|| {
        let names: Vec<&str> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        ConfigError::Value {
            key,
            found: describe(value),
            expected: names.join(" or "),
        }
    })
}

/// The settings of one op; `None` for null.
fn op_config(
    value: &Value,
    key: &str,
    base: &OpOptions,
) -> Result<Option<OpPalettizerConfig>, ConfigError> {
    if value.is_null() {
        return Ok(None);
    }
    let fields = Fields::new(value, key, "a mapping such as {nbits: 4}, or null for none")?;
    let keys = OpOptions::fields().map(|field| field.name);
    fields.known(keys.chain(["config_type", WORKERS.name]))?;
    fields.config_type(false)?;
    let mut options = OpOptions::default();
    for (name, value, _) in fields.entries() {
        let done = match OpOptions::field(name) {
            Some(_) if value.is_null() && NULLABLE.contains(&name) => Ok(()),
            Some(field) => text(field, value).and_then(|text| options.set(field, &text)),
            None if name == WORKERS.name => text(&WORKERS, value)
                .and_then(|text| WORKERS.read::<usize>(&text))
                .map(drop),
            None => Ok(()),
        };
        done.map_err(|error| {
            let or_null = match name {
                "channel_axis" => ", or null to pick it from the op",
                _ => "",
            };
            fields.unexpected(name, describe(value), error.allowed + or_null)
        })?;
    }
    options.spec = options.spec.ignoring_unused_groups();
    let config = options.over(base).build().map(Some);
    config.map_err(|error| fields.unexpected(error.field, error.found, error.allowed))
}

/// A value as the text that its option is read from. It has to be of the option's own type: a number in quotes is none.
fn text(field: &OptionField, value: &Value) -> Result<String, SpecError> {
    match (field.kind, value) {
        (OptionKind::Names(_), Value::String(text)) => Ok(text.clone()),
        (OptionKind::Flag, Value::Bool(flag)) => Ok(flag.to_string()),
        (OptionKind::Bits | OptionKind::Whole(_) | OptionKind::Integer, Value::Number(number)) => {
            Ok(number.to_string())
        }
        _ => Err(field.error(value)),
    }
}
