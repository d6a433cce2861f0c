//! One mapping of a configuration: its keys, each read as what it has to be, with errors that name the whole path.

use palettizer_coreml::config::near;
use palettizer_palette::Nbits;
use serde_json::{Map, Value};

use super::{ConfigError, nbits_of};

/// The only configuration that palettizes.
const CONFIG_TYPE: &str = "OpPalettizerConfig";

/// A mapping and the path that leads to it.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        value: &'a Value,
        path: &'a str,
        expected: &str,
    ) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Fields { map, path }),
            _ => Err(ConfigError::Value {
                key: if path.is_empty() {
                    "the configuration"
                } else {
                    path
                }
                .to_owned(),
                found: describe(value),
                expected: expected.to_owned(),
            }),
        }
    }

    /// The whole path of a key.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
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

    /// Refuses keys other than these.
    pub(super) fn known(&self, allowed: &'static [&'static str]) -> Result<(), ConfigError> {
        for key in self.map.keys() {
            if key == "lut_function" {
                return Err(ConfigError::Custom { key: self.key(key) });
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
        match self.map.get("config_type") {
            Some(Value::String(found)) if found == CONFIG_TYPE => Ok(()),
            Some(value) => Err(self.unexpected("config_type", value, CONFIG_TYPE)),
            None if required => Err(ConfigError::Missing {
                key: self.key("config_type"),
                expected: CONFIG_TYPE.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// One of some names, in any case.
    pub(super) fn choice(
        &self,
        key: &str,
        allowed: &'static [&'static str],
    ) -> Result<Option<&'static str>, ConfigError> {
        let Some(value) = self.map.get(key) else {
            return Ok(None);
        };
        let found = value.as_str().and_then(|text| {
            allowed
                .iter()
                .find(|name| name.eq_ignore_ascii_case(text))
                .copied()
        });
        match found {
            Some(name) => Ok(Some(name)),
            // "custom" is known only to be refused with advice.
            None => Err(self.unexpected(key, value, &list(allowed, "custom"))),
        }
    }

    /// The bits; null is none.
    pub(super) fn nbits(&self) -> Result<Option<Nbits>, ConfigError> {
        match self.not_null("nbits") {
            None => Ok(None),
            Some((value, _)) => match value.as_u64().and_then(nbits_of) {
                Some(nbits) => Ok(Some(nbits)),
                None => Err(self.unexpected("nbits", value, "1, 2, 3, 4, 6 or 8")),
            },
        }
    }

    /// A whole number that is not below `least`.
    pub(super) fn at_least(&self, key: &str, least: usize) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.map.get(key) else {
            return Ok(None);
        };
        let number = value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok());
        match number.filter(|number| *number >= least) {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = format!("a whole number, {least} or more");
                Err(self.unexpected(key, value, &expected))
            }
        }
    }

    /// An axis; null is none.
    pub(super) fn axis(&self, key: &str) -> Result<Option<i64>, ConfigError> {
        match self.not_null(key) {
            None => Ok(None),
            Some((value, _)) => match value.as_i64() {
                Some(axis) => Ok(Some(axis)),
                None => Err(self.unexpected(
                    key,
                    value,
                    "a whole number, or null to pick it from the op",
                )),
            },
        }
    }

    /// A truth value.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        match self.map.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => Err(self.unexpected(key, value, "true or false")),
        }
    }

    fn unexpected(&self, key: &str, value: &Value, expected: &str) -> ConfigError {
        ConfigError::Value {
            key: self.key(key),
            found: describe(value),
            expected: expected.to_owned(),
        }
    }
}

/// `a, b or c`, without one of them.
fn list(names: &[&str], without: &str) -> String {
    let names: Vec<&str> = names
        .iter()
        .copied()
        .filter(|&name| name != without)
        .collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
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
