//! JSON text to a tree, within limits.

use std::cell::Cell;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::ConfigError;
use super::limits::{MAX_DEPTH, MAX_VALUES, bounded};

/// Reads the one value of a text.
pub(super) fn read(text: &str) -> Result<Value, ConfigError> {
    let text = bounded(text)?;
    let limits = Limits::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = limits.node(0).deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| match limits.hit.get() {
            Some((limit, what)) => ConfigError::TooLarge { limit, what },
            None => ConfigError::Syntax {
                format: "JSON",
                message: error.to_string(),
            },
        })
}

/// What was counted, and which limit was hit: the parser's errors carry only text.
#[derive(Default)]
struct Limits {
    values: Cell<u64>,
    hit: Cell<Option<(u64, &'static str)>>,
}

impl Limits {
    fn node(&self, depth: u64) -> Node<'_> {
        Node {
            limits: self,
            depth,
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

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {key} is there twice"
                )));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
