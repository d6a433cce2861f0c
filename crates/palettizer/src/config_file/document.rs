//! YAML and JSON text to a tree, within limits.
//!
//! The parsers' own trees would let a few lines of nested YAML aliases fill the memory and would drop all but the
//! last of a repeated key; this one counts values while it grows and refuses both.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{ConfigError, MAX_BYTES};

/// Values in a document after its aliases are replaced.
const MAX_VALUES: u64 = 500_000;
/// Mappings inside mappings; a configuration has three levels.
const MAX_DEPTH: u64 = 32;

pub(super) fn yaml(text: &str) -> Result<Value, ConfigError> {
    bounded(text)?;
    let limits = Limits::new(true);
    let mut documents = serde_yaml_ng::Deserializer::from_str(text);
    let value = match documents.next() {
        Some(document) => limits.node(0).deserialize(document),
        None => Ok(Value::Null),
    };
    if documents.next().is_some() {
        return Err(syntax("YAML", "more than one document in the file"));
    }
    value.map_err(|error| limits.explain("YAML", &error))
}

pub(super) fn json(text: &str) -> Result<Value, ConfigError> {
    bounded(text)?;
    let limits = Limits::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = limits.node(0).deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| limits.explain("JSON", &error))
}

fn bounded(text: &str) -> Result<(), ConfigError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge {
            limit: MAX_BYTES,
            what: "bytes",
        });
    }
    Ok(())
}

fn syntax(format: &'static str, message: impl fmt::Display) -> ConfigError {
    ConfigError::Syntax {
        format,
        message: message.to_string(),
    }
}

/// What is left, and which limit was hit: the parsers' errors carry only text.
struct Limits {
    values: Cell<u64>,
    hit: Cell<Option<(u64, &'static str)>>,
    merge_keys: bool,
}

impl Limits {
    fn new(merge_keys: bool) -> Self {
        Limits {
            values: Cell::new(0),
            hit: Cell::new(None),
            merge_keys,
        }
    }

    fn node(&self, depth: u64) -> Node<'_> {
        Node {
            limits: self,
            depth,
        }
    }

    fn explain(&self, format: &'static str, error: &dyn fmt::Display) -> ConfigError {
        match self.hit.get() {
            Some((limit, what)) => ConfigError::TooLarge { limit, what },
            None => syntax(format, error),
        }
    }

    fn refuse<T, E: serde::de::Error>(&self, limit: u64, what: &'static str) -> Result<T, E> {
        self.hit.set(Some((limit, what)));
        Err(E::custom("too large"))
    }
}

/// One value at some depth.
#[derive(Clone, Copy)]
struct Node<'a> {
    limits: &'a Limits,
    depth: u64,
}

impl<'a> Node<'a> {
    fn inner<E: serde::de::Error>(self) -> Result<Node<'a>, E> {
        if self.depth == MAX_DEPTH {
            return self.limits.refuse(MAX_DEPTH, "levels of nesting");
        }
        Ok(self.limits.node(self.depth + 1))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let count = self.limits.values.get() + 1;
        self.limits.values.set(count);
        if count > MAX_VALUES {
            return self.limits.refuse(MAX_VALUES, "values");
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value, list or mapping")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // No key takes a fraction; one that JSON cannot hold is shown as text.
        Ok(serde_json::Number::from_f64(value)
            .map_or_else(|| Value::String(value.to_string()), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(inner)?;
            if self.limits.merge_keys && key == "<<" {
                merged.push(value);
            } else if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {key} is there twice"
                )));
            } else {
                map.insert(key, value);
            }
        }
        for value in merged {
            merge(&mut map, value).map_err(A::Error::custom)?;
        }
        Ok(Value::Object(map))
    }
}

/// YAML's `<<`: the entries of a mapping, or of several, where the mapping itself has none.
fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) => list.into_iter().try_for_each(|value| merge(map, value)),
        _ => Err("<< merges mappings only"),
    }
}
