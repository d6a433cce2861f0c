//! How much memory a message will take, found out by a walk over its bytes that takes none.
//!
//! Two bytes are an empty operation of 150, and four an attribute that begins a map of 7,000: a model of 100 MB could
//! ask for 170 GB. The walk follows the fields that the messages name, and adds up what each will take.

use prost::encoding::{self, DecodeContext, WireType};

/// The deepest nesting that is walked: the limit of `prost`, which refuses what is deeper.
const MAX_DEPTH: u32 = 100;

/// A map's entries lie in nodes of so many, and the first one takes a whole node.
const NODE: usize = 11;

/// Grown lists, and nodes that are half full, take up to twice what is in them.
const SLACK: usize = 2;

/// What a field takes.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    /// Bytes of memory each time that it is there.
    own: usize,
    /// Bytes of memory for each of its bytes.
    each: usize,
    /// Bytes of memory once there is one.
    first: usize,
    /// The fields of the message that it is.
    inner: Option<fn(u32) -> Field>,
}

impl Field {
    /// Bytes that are copied: text, and what is not named.
    pub(super) const BYTES: Field = Field {
        own: 0,
        each: SLACK,
        first: 0,
        inner: None,
    };

    /// Items of a list, of this size, that take at least a byte each.
    pub(super) const fn items(size: usize) -> Field {
        Field {
            own: SLACK * size,
            each: SLACK * size,
            ..Self::BYTES
        }
    }

    /// Texts of a list.
    pub(super) const fn texts() -> Field {
        Field {
            own: SLACK * size_of::<String>(),
            ..Self::BYTES
        }
    }

    /// A message that lies in the one that it belongs to.
    pub(super) const fn message(inner: fn(u32) -> Field) -> Field {
        Field {
            each: 0,
            inner: Some(inner),
            ..Self::BYTES
        }
    }

    /// A message of a list, of this size.
    pub(super) const fn listed(size: usize, inner: fn(u32) -> Field) -> Field {
        Field {
            own: SLACK * size,
            ..Self::message(inner)
        }
    }

    /// A message of a map.
    pub(super) const fn mapped<M: Measure>() -> Field {
        let entry = size_of::<M>() + size_of::<String>();
        Field {
            own: SLACK * entry,
            first: NODE * entry,
            ..Self::message(entry_field::<M>)
        }
    }
}

/// What the fields of a map's entry take: its key is field 1, its value field 2.
fn entry_field<M: Measure>(tag: u32) -> Field {
    match tag {
        2 => Field::message(M::field),
        _ => Field {
            each: 1,
            ..Field::BYTES
        },
    }
}

/// Messages whose fields are known.
pub(crate) trait Measure {
    /// What the field of this number takes.
    fn field(tag: u32) -> Field;
}

/// Bytes of memory that a message takes, or the first sum above `limit`. Where the bytes are no message, the sum of what
/// comes before.
pub(crate) fn measure<M: Measure>(bytes: &[u8], limit: u64) -> u64 {
    let mut sum = Sum { bytes: 0, limit };
    // Either way the sum is what was asked for.
    let _ = sum.message(bytes, M::field, MAX_DEPTH);
    sum.bytes
}

struct Sum {
    bytes: u64,
    limit: u64,
}

impl Sum {
    /// `None` ends the walk: the limit is passed, or the bytes are no message.
    fn message(&mut self, mut bytes: &[u8], fields: fn(u32) -> Field, depth: u32) -> Option<()> {
        let mut seen = 0_u64;
        while !bytes.is_empty() {
            let (tag, wire_type) = encoding::decode_key(&mut bytes).ok()?;
            let field = fields(tag);
            self.add(field.own)?;
            let bit = 1_u64.checked_shl(tag).unwrap_or(0);
            if seen & bit == 0 {
                self.add(field.first)?;
                seen |= bit;
            }
            if wire_type != WireType::LengthDelimited {
                let before = bytes.len();
                encoding::skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).ok()?;
                if field.each > 0 {
                    self.add(before - bytes.len() + size_of::<u64>())?;
                }
                continue;
            }
            let len = encoding::decode_varint(&mut bytes).ok()?;
            let (content, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
            self.add(content.len().saturating_mul(field.each))?;
            if let Some(inner) = field.inner {
                self.message(content, inner, depth.checked_sub(1)?)?;
            }
            bytes = rest;
        }
        Some(())
    }

    fn add(&mut self, bytes: usize) -> Option<()> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        (self.bytes <= self.limit).then_some(())
    }
}
