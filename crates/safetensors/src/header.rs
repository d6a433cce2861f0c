//! The header of a safetensors file, read as hostile and written as the safetensors library writes it.
//!
//! A file is a u64 length, so many bytes of JSON, and the data. The JSON has an entry for each tensor (type, shape,
//! first and last offset in the data), and may have one of strings for the user. What is accepted is what the
//! safetensors library accepts: the tensors cover the data without a hole or an overlap, in any order. Beyond it we
//! refuse a name that is there twice, of which the library keeps one or the other. That, and messages that say what
//! is wrong with which tensor, are why the header is parsed here.

use crate::element::ElementType;
use crate::json::{Object, twice};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

/// The largest header that is read or written: the limit of the safetensors library.
pub(crate) const MAX_HEADER: usize = 100_000_000;

/// Bytes of the header's length.
const LENGTH: usize = 8;

/// The key of the user's strings.
const METADATA: &str = "__metadata__";

/// What a file's header says, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Header {
    /// The user's strings.
    pub metadata: BTreeMap<String, String>,
    /// The tensors in the order of their data.
    pub tensors: Vec<Entry>,
}

impl Header {
    /// The place of each tensor, by name.
    pub(crate) fn places(&self) -> HashMap<&str, usize> {
        let names = self.tensors.iter().enumerate();
        names.map(|(at, entry)| (entry.name.as_str(), at)).collect()
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub name: String,
    pub element: ElementType,
    pub shape: Vec<usize>,
    /// Where its data lie in the file.
    pub range: Range<usize>,
}

impl Entry {
    /// The number of elements.
    pub(crate) fn elements(&self) -> usize {
        // The product was counted in bits when the header was read, unless there is a zero in it.
        match self.shape.contains(&0) {
            true => 0,
            false => self.shape.iter().product(),
        }
    }
}

/// A header's content before it is checked.
struct Raw {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawEntry)>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut metadata = BTreeMap::new();
        let mut tensors = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(twice(&key));
            }
            if key == METADATA {
                let strings = access.next_value::<Option<Object<String>>>()?;
                metadata = strings.map_or_else(BTreeMap::new, |object| object.0);
            } else {
                tensors.push((key, access.next_value()?));
            }
        }
        Ok(Raw { metadata, tensors })
    }
}

/// Reads the header of a file and checks it against the file's length.
///
/// # Errors
/// A text that says what is wrong.
pub(crate) fn read(file: &[u8]) -> Result<Header, String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(format!(
            "{} bytes, too short for the length of a header, which has {LENGTH}",
            file.len()
        ));
    };
    let length = u64::from_le_bytes(*length);
    let too_large = || format!("the header has {length} bytes, and readers accept {MAX_HEADER}");
    let wanted = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER)
        .ok_or_else(too_large)?;
    let json = rest.get(..wanted).ok_or_else(|| {
        format!(
            "the header has {length} bytes, but only {} follow: truncated? Copy the file again",
            rest.len()
        )
    })?;
    if json.first() != Some(&b'{') {
        return Err("the header does not begin with {".to_owned());
    }
    let raw: Raw = serde_json::from_slice(json).map_err(|error| format!("the header: {error}"))?;
    let data = LENGTH + wanted;
    let mut tensors = Vec::with_capacity(raw.tensors.len());
    for (name, entry) in raw.tensors {
        let checked = entry.check(data);
        let (element, range) = checked.map_err(|what| format!("tensor \"{name}\": {what}"))?;
        tensors.push(Entry {
            name,
            element,
            shape: entry.shape,
            range,
        });
    }
    // Tensors without data lie at the border between two others; the name makes their order certain.
    tensors.sort_by(|a, b| {
        let key = |entry: &Entry| (entry.range.start, entry.range.end);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    covered(&tensors, data, file.len())?;
    Ok(Header {
        metadata: raw.metadata,
        tensors,
    })
}

impl RawEntry {
    fn check(&self, data: usize) -> Result<(ElementType, Range<usize>), String> {
        let element = ElementType::from_name(&self.dtype)
            .ok_or_else(|| format!("unknown element type \"{}\"", self.dtype))?;
        let (start, end) = self.data_offsets;
        let size = end
            .checked_sub(start)
            .ok_or_else(|| format!("its data begin at {start} and end at {end}"))?;
        let shape = &self.shape;
        match element.bytes(shape) {
            Some(bytes) if bytes == size => {}
            Some(bytes) => {
                return Err(format!(
                    "{} elements of shape {shape:?} have {bytes} bytes, but its data have {size}",
                    self.dtype
                ));
            }
            None => {
                return Err(format!(
                    "{} elements of shape {shape:?} are no whole number of bytes that can be addressed",
                    self.dtype
                ));
            }
        }
        let at = |offset: usize| {
            data.checked_add(offset)
                .ok_or_else(|| format!("its data end at {end}, past every file's end"))
        };
        Ok((element, at(start)?..at(end)?))
    }
}

/// The tensors, in the order of their data, must cover the data exactly.
fn covered(tensors: &[Entry], data: usize, len: usize) -> Result<(), String> {
    let (mut end, mut before) = (data, "the header");
    for Entry { name, range, .. } in tensors {
        if range.start < end {
            return Err(format!("the data of \"{name}\" overlap those of {before}"));
        }
        if range.start > end {
            return Err(format!(
                "{} bytes between {before} and \"{name}\" belong to no tensor",
                range.start - end
            ));
        }
        (end, before) = (range.end, name);
    }
    match end.cmp(&len) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(format!(
            "the data of \"{before}\" end at {end}, but the file at {len}: truncated? Copy it again"
        )),
        std::cmp::Ordering::Less => Err(format!(
            "{} bytes after the last tensor belong to none",
            len - end
        )),
    }
}

/// The bytes of a header for tensors (name, type, shape, bytes) whose data lie in this order: its length, and JSON,
/// padded with spaces to a multiple of 8.
pub(crate) fn write<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl Iterator<Item = (&'a str, ElementType, &'a [usize], usize)>,
) -> serde_json::Result<Vec<u8>> {
    let mut header = vec![0; LENGTH];
    header.push(b'{');
    if !metadata.is_empty() {
        header.extend_from_slice(b"\"__metadata__\":");
        serde_json::to_writer(&mut header, metadata)?;
        header.push(b',');
    }
    let mut start = 0;
    for (name, element, shape, bytes) in tensors {
        serde_json::to_writer(&mut header, name)?;
        let offsets = (start, start + bytes);
        let dtype = element.name();
        header.extend_from_slice(format!(":{{\"dtype\":\"{dtype}\",\"shape\":").as_bytes());
        serde_json::to_writer(&mut header, shape)?;
        header.extend_from_slice(b",\"data_offsets\":");
        serde_json::to_writer(&mut header, &offsets)?;
        header.extend_from_slice(b"},");
        start += bytes;
    }
    if header.last() == Some(&b',') {
        header.pop();
    }
    header.push(b'}');
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() - LENGTH) as u64;
    header[..LENGTH].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}
