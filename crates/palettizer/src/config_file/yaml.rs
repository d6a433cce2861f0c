//! YAML text to a tree, in one pass over the parser's events.
//!
//! Nothing is built before it is counted: depth as it grows, values and text also where an alias stands for them, so
//! that neither nesting nor a few lines of aliases of aliases take time or memory. Plain scalars are typed as YAML
//! 1.2's core schema has it, and `yes`, `no`, `on` and `off` are booleans, as they are to PyYAML, whose files these are.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

use super::ConfigError;

/// Values in a document after its aliases are replaced.
const MAX_VALUES: u64 = 500_000;
/// Lists and mappings inside each other; a configuration has three levels.
const MAX_DEPTH: u64 = 32;
/// Bytes of keys and texts after aliases are replaced.
const MAX_TEXT: u64 = 16 << 20;

/// Reads the one document of a text.
pub(super) fn read(text: &str) -> Result<Value, ConfigError> {
    printable(text)?;
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, span.start)?,
            // The parser's own bound, where it looks further ahead than it has told of.
            Err(error) if error.info().starts_with("recursion limit") => return Err(too_deep()),
            Err(error) => return Err(fault(error.info(), error.marker())),
        }
    }
    Ok(builder.root.unwrap_or(Value::Null))
}

/// Refuses characters that YAML does not have; the parser takes NUL for the end of the text.
fn printable(text: &str) -> Result<(), ConfigError> {
    let bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let Some((at, found)) = text.char_indices().find(|&(_, c)| bad(c)) else {
        return Ok(());
    };
    let before = &text[..at];
    let line = before.matches('\n').count();
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].chars().count();
    let what = format!("control character U+{:04X}", u32::from(found));
    Err(fault(what, &Marker::new(at, line + 1, column)))
}

fn fault(what: impl fmt::Display, at: &Marker) -> ConfigError {
    let (line, column) = (at.line(), at.col() + 1);
    ConfigError::Syntax {
        format: "YAML",
        message: format!("{what} at line {line} column {column}"),
    }
}

fn too_deep() -> ConfigError {
    ConfigError::TooLarge {
        limit: MAX_DEPTH,
        what: "levels of nesting",
    }
}

/// What a value comes to, with what is in it.
#[derive(Clone, Copy, Default)]
struct Size {
    values: u64,
    text: u64,
    /// Levels of lists and mappings.
    height: u64,
}

/// A list or a mapping that is still open.
struct Open {
    kind: Kind,
    anchor: usize,
    size: Size,
}

enum Kind {
    List(Vec<Value>),
    Map {
        map: Map<String, Value>,
        /// The values of `<<`.
        merged: Vec<(Value, Marker)>,
        key: Option<Key>,
    },
}

/// A key whose value comes next.
struct Key {
    name: String,
    merges: bool,
    at: Marker,
}

#[derive(Default)]
struct Builder {
    root: Option<Value>,
    documents: u64,
    /// Of all that is there, aliases replaced.
    total: Size,
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, Size)>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), ConfigError> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                match self.documents {
                    1 => Ok(()),
                    _ => Err(fault("more than one document in the file", &at)),
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if self.expects_key() {
                    return self.key(&text, plain, at);
                }
                let size = Size {
                    values: 1,
                    text: text.len() as u64,
                    height: 0,
                };
                self.count(size)?;
                let value =
                    scalar(&text, plain, tag.as_deref()).map_err(|what| fault(what, &at))?;
                self.put(value, size, anchor, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Kind::List(Vec::new()), anchor, (tag.as_deref(), "seq"), at)
            }
            Event::MappingStart(anchor, tag) => {
                let kind = Kind::Map {
                    map: Map::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.begin(kind, anchor, (tag.as_deref(), "map"), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        let last = self.open.last().map(|open| &open.kind);
        matches!(last, Some(Kind::Map { key: None, .. }))
    }

    /// Adds to what is there, unless that is too much.
    fn count(&mut self, size: Size) -> Result<(), ConfigError> {
        self.total.values += size.values;
        self.total.text += size.text;
        for (found, limit, what) in [
            (self.total.values, MAX_VALUES, "values"),
            (
                self.total.text,
                MAX_TEXT,
                "bytes once its aliases are replaced",
            ),
            (
                self.open.len() as u64 + size.height,
                MAX_DEPTH,
                "levels of nesting",
            ),
        ] {
            if found > limit {
                return Err(ConfigError::TooLarge { limit, what });
            }
        }
        Ok(())
    }

    fn key(&mut self, text: &str, plain: bool, at: Marker) -> Result<(), ConfigError> {
        self.count(Size {
            text: text.len() as u64,
            ..Size::default()
        })?;
        if let Some(Kind::Map { key, .. }) = self.open.last_mut().map(|open| &mut open.kind) {
            *key = Some(Key {
                name: text.to_owned(),
                merges: plain && text == "<<",
                at,
            });
        }
        Ok(())
    }

    fn begin(
        &mut self,
        kind: Kind,
        anchor: usize,
        (tag, own): (Option<&Tag>, &str),
        at: Marker,
    ) -> Result<(), ConfigError> {
        if self.expects_key() {
            return Err(fault("a list or a mapping as a key: expected a name", &at));
        }
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == own)) {
            return Err(fault(unknown(tag), &at));
        }
        let size = Size {
            values: 1,
            text: 0,
            height: 1,
        };
        self.count(size)?;
        self.open.push(Open { kind, anchor, size });
        Ok(())
    }

    fn end(&mut self, at: Marker) -> Result<(), ConfigError> {
        let Some(Open { kind, anchor, size }) = self.open.pop() else {
            return Ok(());
        };
        let value = match kind {
            Kind::List(list) => Value::Array(list),
            Kind::Map {
                mut map, merged, ..
            } => {
                for (value, at) in merged {
                    merge(&mut map, value).map_err(|what| fault(what, &at))?;
                }
                Value::Object(map)
            }
        };
        self.put(value, size, anchor, at)
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<(), ConfigError> {
        let known = self.anchors.get(&anchor);
        let &(_, size) =
            known.ok_or_else(|| fault("an alias inside of what it stands for", &at))?;
        self.count(size)?;
        let value = self.anchors.get(&anchor).map(|(value, _)| value.clone());
        let value = value.unwrap_or_default();
        match (self.expects_key(), &value) {
            (true, Value::String(text)) => self.key(text, false, at),
            (true, _) => Err(fault("an alias as a key: expected a name", &at)),
            (false, _) => self.put(value, size, 0, at),
        }
    }

    /// Puts a whole value where it belongs.
    fn put(
        &mut self,
        value: Value,
        size: Size,
        anchor: usize,
        at: Marker,
    ) -> Result<(), ConfigError> {
        if anchor > 0 {
            // The copy that an alias may ask for is counted as if one had asked.
            self.count(size)?;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        open.size.values += size.values;
        open.size.text += size.text;
        open.size.height = open.size.height.max(size.height + 1);
        match &mut open.kind {
            Kind::List(list) => list.push(value),
            Kind::Map { map, merged, key } => {
                let Some(key) = key.take() else {
                    return Err(fault("a value without a key", &at));
                };
                open.size.text += key.name.len() as u64;
                if key.merges {
                    merged.push((value, key.at));
                } else if map.contains_key(&key.name) {
                    let what = format!("the key {} is there twice", key.name);
                    return Err(fault(what, &key.at));
                } else {
                    map.insert(key.name, value);
                }
            }
        }
        Ok(())
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

fn unknown(tag: &Tag) -> String {
    format!("unknown tag {tag}")
}

/// A scalar with its type: that of its tag, or of how it is written.
fn scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    let string = || Value::String(text.to_owned());
    let Some(tag) = tag else {
        return Ok(if plain { typed(text) } else { string() });
    };
    if tag.handle.is_empty() && tag.suffix == "!" {
        return Ok(string());
    }
    if !tag.is_yaml_core_schema() {
        return Err(unknown(tag));
    }
    let value = typed(text);
    let fits = match tag.suffix.as_str() {
        "str" => return Ok(string()),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "bool" => value.is_boolean(),
        "null" => value.is_null(),
        _ => return Err(unknown(tag)),
    };
    match fits {
        true => Ok(value),
        false => Err(format!("\"{text}\" is no {}", tag.suffix)),
    }
}

/// What a plain scalar is.
fn typed(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let digits = text.strip_prefix(prefix);
        if let Some(digits) = digits.filter(|digits| !digits.starts_with(['-', '+'])) {
            return u64::from_str_radix(digits, radix).ok().map(Number::from);
        }
    }
    let plain = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-' | b'+'));
    // What begins with a zero is octal to some readers and decimal to others: it stays a text.
    let zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if !plain || zero || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    whole
        .parse::<u64>()
        .map(Number::from)
        .or_else(|_| whole.parse::<i64>().map(Number::from))
        .ok()
        .or_else(|| Number::from_f64(whole.parse().ok()?))
}
