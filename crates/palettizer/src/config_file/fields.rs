//! One mapping of a configuration: its keys, each read as what it has to be, with errors that name the whole path.

use palettizer_pipeline::config::near;
use serde_json::{Map, Value};

use super::ConfigError;

/// The only configuration that palettizes.
const CONFIG_TYPE: &str = "OpPalettizerConfig";

/// A mapping and the path that leads to it.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a Value, path: &str, expected: &str) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Fields {
                map,
                path: path.to_owned(),
            }),
            _ => Err(ConfigError::Value {
                key: match path {
                    "" => "the configuration".to_owned(),
                    path => path.to_owned(),
                },
                found: describe(value),
                expected: expected.to_owned(),
            }),
        }
    }

    /// The whole path of a key.
    pub(super) fn key(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Every key with its value and its whole path.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value, String)> {
        self.map
            .iter()
            .map(|(key, value)| (key.as_str(), value, self.key(key)))
    }

    /// A value that is there and not null, with its whole path.
    pub(super) fn not_null(&self, key: &str) -> Option<(&'a Value, String)> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some((value, self.key(key)))
    }

    /// The entries of a mapping from names to settings; none if it is not there, or null.
    pub(super) fn settings(
        &self,
        key: &str,
    ) -> Result<Vec<(&'a str, &'a Value, String)>, ConfigError> {
        let Some((value, path)) = self.not_null(key) else {
            return Ok(Vec::new());
        };
        let settings = Fields::new(value, &path, "a mapping from names to settings")?;
        Ok(settings.entries().collect())
    }

    /// Refuses keys other than these.
    pub(super) fn known(
        &self,
        allowed: impl IntoIterator<Item = &'static str>,
    ) -> Result<(), ConfigError> {
        let allowed: Vec<_> = allowed.into_iter().collect();
        for (key, value) in self.map {
            if key == "lut_function" {
                let expected = "no such key, because a file cannot hold a function; \
                                use Mode::Custom of the Rust API, or one of kmeans, uniform, unique";
                return Err(self.unexpected(key, describe(value), expected));
            }
            if !allowed.contains(&key.as_str()) {
                return Err(ConfigError::UnknownKey {
                    key: self.key(&shorten(key)),
                    nearest: near(key, allowed.iter().copied()).first().copied(),
                    allowed,
                });
            }
        }
        Ok(())
    }

    /// Refuses another `config_type` than palettization, or none if it is required.
    pub(super) fn config_type(&self, required: bool) -> Result<(), ConfigError> {
        let found = match self.map.get("config_type") {
            Some(Value::String(found)) if found == CONFIG_TYPE => return Ok(()),
            None if !required => return Ok(()),
            Some(value) => describe(value),
            None => "missing".to_owned(),
        };
        Err(self.unexpected("config_type", found, CONFIG_TYPE))
    }

    /// What is wrong with a key's value.
    pub(super) fn unexpected(
        &self,
        key: &str,
        found: String,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            key: self.key(key),
            found,
            expected: expected.into(),
        }
    }
}

/// A value as a reader of the file would call it.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("\"{}\"", shorten(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    const KEEP: usize = 60;
    match text.char_indices().nth(KEEP) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
