//! How a message is read and written: the fields that we name, and every other field as it came.
//!
//! `prost`'s own derive drops the fields that it does not know. A Core ML model written by a newer
//! tool would lose them on the way through, so [`messages!`](super) implements `prost::Message` over
//! `prost`'s wire functions and keeps each unknown field's bytes, in order, in `unknown`.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use std::collections::BTreeMap;

/// Copies one field that no message names, key and all, to the end of `unknown`.
pub(super) fn keep_unknown(
    tag: u32,
    wire_type: WireType,
    buf: &mut impl Buf,
    unknown: &mut Vec<u8>,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    match wire_type {
        WireType::Varint => {
            let value = encoding::decode_varint(buf)?;
            encoding::encode_key(tag, wire_type, unknown);
            encoding::encode_varint(value, unknown);
        }
        WireType::SixtyFourBit => {
            let mut value = 0u64;
            encoding::fixed64::merge(wire_type, &mut value, buf, ctx)?;
            encoding::fixed64::encode(tag, &value, unknown);
        }
        WireType::ThirtyTwoBit => {
            let mut value = 0u32;
            encoding::fixed32::merge(wire_type, &mut value, buf, ctx)?;
            encoding::fixed32::encode(tag, &value, unknown);
        }
        WireType::LengthDelimited => {
            let mut value = Vec::new();
            encoding::bytes::merge(wire_type, &mut value, buf, ctx)?;
            encoding::bytes::encode(tag, &value, unknown);
        }
        // Groups were withdrawn before proto3; no Core ML message has one. `skip_field` checks
        // their nesting, and there is nothing of ours in them to keep.
        WireType::StartGroup | WireType::EndGroup => {
            encoding::skip_field(wire_type, tag, buf, ctx)?;
        }
    }
    Ok(())
}

/// Writes a string-keyed map of messages, keys ascending, so that equal maps give equal bytes.
pub(super) fn encode_map<V: Message>(tag: u32, map: &BTreeMap<String, V>, buf: &mut impl BufMut) {
    for (key, value) in map {
        encoding::encode_key(tag, WireType::LengthDelimited, buf);
        encoding::encode_varint(entry_len(key, value) as u64, buf);
        encoding::string::encode(1, key, buf);
        encoding::message::encode(2, value, buf);
    }
}

/// The bytes that [`encode_map`] writes.
pub(super) fn encoded_map_len<V: Message>(tag: u32, map: &BTreeMap<String, V>) -> usize {
    map.iter()
        .map(|(key, value)| {
            let len = entry_len(key, value);
            encoding::key_len(tag) + encoding::encoded_len_varint(len as u64) + len
        })
        .sum()
}

fn entry_len<V: Message>(key: &String, value: &V) -> usize {
    encoding::string::encoded_len(1, key) + encoding::message::encoded_len(2, value)
}

/// Reads one entry of a string-keyed map of messages.
pub(super) fn merge_map<V: Message + Default>(
    wire_type: WireType,
    map: &mut BTreeMap<String, V>,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    // `prost` leaves this to its derive; without it a number would be read as a length.
    encoding::check_wire_type(WireType::LengthDelimited, wire_type)?;
    encoding::btree_map::merge(
        encoding::string::merge,
        encoding::message::merge,
        map,
        buf,
        ctx,
    )
}

/// Whether a field has the value that proto3 leaves out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares messages: for each a struct with the named fields and `unknown`, its `prost::Message` and its `Measure`.
///
/// A line is `tag => name: kind,` where kind is one of
/// `string`, `bytes`, `int32`, `int64`, `uint64`, `bool`, `float`, `double` (left out when zero or empty, as proto3 has it),
/// `[float]`, `[double]`, `[int32]`, `[int64]`, `[bool]`, `[string]` (repeated, numbers packed),
/// `(T)` (an optional message), `[(T)]` (repeated messages), `{T}` (a map from string to message).
macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $tag:literal => $field:ident : $kind:tt),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$fmeta])* pub $field: field_type!($kind),)*
            /// Fields that this crate does not name, as they were read: they are written back after the others.
            pub unknown: Vec<u8>,
        }

        impl prost::Message for $name {
            fn encode_raw(&self, buf: &mut impl prost::bytes::BufMut) {
                $(field_encode!($kind, $tag, &self.$field, buf);)*
                buf.put_slice(&self.unknown);
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: prost::encoding::WireType,
                buf: &mut impl prost::bytes::Buf,
                ctx: prost::encoding::DecodeContext,
            ) -> Result<(), prost::DecodeError> {
                match tag {
                    $($tag => field_merge!($kind, &mut self.$field, wire_type, buf, ctx),)*
                    _ => wire::keep_unknown(tag, wire_type, buf, &mut self.unknown, ctx),
                }
            }

            fn encoded_len(&self) -> usize {
                0 $(+ field_len!($kind, $tag, &self.$field))* + self.unknown.len()
            }

            fn clear(&mut self) {
                *self = Self::default();
            }
        }

        impl measure::Measure for $name {
            fn field(tag: u32) -> measure::Field {
                match tag {
                    $($tag => field_measure!($kind),)*
                    _ => measure::Field::BYTES,
                }
            }
        }
    )*};
}

macro_rules! field_type {
    (string) => { String };
    (bytes) => { Vec<u8> };
    (int32) => { i32 };
    (int64) => { i64 };
    (uint64) => { u64 };
    (bool) => { bool };
    (float) => { f32 };
    (double) => { f64 };
    ([float]) => { Vec<f32> };
    ([double]) => { Vec<f64> };
    ([int32]) => { Vec<i32> };
    ([int64]) => { Vec<i64> };
    ([bool]) => { Vec<bool> };
    ([string]) => { Vec<String> };
    ([($t:ty)]) => { Vec<$t> };
    (($t:ty)) => { Option<$t> };
    ({$t:ty}) => { std::collections::BTreeMap<String, $t> };
}

macro_rules! field_encode {
    ([string], $tag:literal, $value:expr, $buf:expr) => {
        prost::encoding::string::encode_repeated($tag, $value, $buf)
    };
    ([($t:ty)], $tag:literal, $value:expr, $buf:expr) => {
        prost::encoding::message::encode_repeated($tag, $value, $buf)
    };
    ([$scalar:ident], $tag:literal, $value:expr, $buf:expr) => {
        prost::encoding::$scalar::encode_packed($tag, $value, $buf)
    };
    (($t:ty), $tag:literal, $value:expr, $buf:expr) => {
        if let Some(value) = $value {
            prost::encoding::message::encode($tag, value, $buf)
        }
    };
    ({$t:ty}, $tag:literal, $value:expr, $buf:expr) => {
        wire::encode_map($tag, $value, $buf)
    };
    ($scalar:ident, $tag:literal, $value:expr, $buf:expr) => {
        if !wire::is_default($value) {
            prost::encoding::$scalar::encode($tag, $value, $buf)
        }
    };
}

macro_rules! field_merge {
    ([string], $value:expr, $wire:expr, $buf:expr, $ctx:expr) => {
        prost::encoding::string::merge_repeated($wire, $value, $buf, $ctx)
    };
    ([($t:ty)], $value:expr, $wire:expr, $buf:expr, $ctx:expr) => {
        prost::encoding::message::merge_repeated($wire, $value, $buf, $ctx)
    };
    ([$scalar:ident], $value:expr, $wire:expr, $buf:expr, $ctx:expr) => {
        prost::encoding::$scalar::merge_repeated($wire, $value, $buf, $ctx)
    };
    (($t:ty), $value:expr, $wire:expr, $buf:expr, $ctx:expr) => {
        prost::encoding::message::merge(
            $wire,
            $value.get_or_insert_with(Default::default),
            $buf,
            $ctx,
        )
    };
    ({$t:ty}, $value:expr, $wire:expr, $buf:expr, $ctx:expr) => {
        wire::merge_map($wire, $value, $buf, $ctx)
    };
    ($scalar:ident, $value:expr, $wire:expr, $buf:expr, $ctx:expr) => {
        prost::encoding::$scalar::merge($wire, $value, $buf, $ctx)
    };
}

macro_rules! field_measure {
    ([string]) => {
        measure::Field::texts()
    };
    ([($t:ty)]) => {
        measure::Field::listed(size_of::<$t>(), <$t as measure::Measure>::field)
    };
    // Varints take a byte at least.
    ([int32]) => {
        measure::Field::items(size_of::<i32>())
    };
    ([int64]) => {
        measure::Field::items(size_of::<i64>())
    };
    // Numbers and booleans take in memory what they take in the file.
    ([$scalar:ident]) => {
        measure::Field::items(1)
    };
    (($t:ty)) => {
        measure::Field::message(<$t as measure::Measure>::field)
    };
    ({$t:ty}) => {
        measure::Field::mapped::<$t>()
    };
    ($scalar:ident) => {
        measure::Field::BYTES
    };
}

macro_rules! field_len {
    ([string], $tag:literal, $value:expr) => {
        prost::encoding::string::encoded_len_repeated($tag, $value)
    };
    ([($t:ty)], $tag:literal, $value:expr) => {
        prost::encoding::message::encoded_len_repeated($tag, $value)
    };
    ([$scalar:ident], $tag:literal, $value:expr) => {
        prost::encoding::$scalar::encoded_len_packed($tag, $value)
    };
    (($t:ty), $tag:literal, $value:expr) => {
        $value.as_ref().map_or(0, |value| {
            prost::encoding::message::encoded_len($tag, value)
        })
    };
    ({$t:ty}, $tag:literal, $value:expr) => {
        wire::encoded_map_len($tag, $value)
    };
    ($scalar:ident, $tag:literal, $value:expr) => {
        if wire::is_default($value) {
            0
        } else {
            prost::encoding::$scalar::encoded_len($tag, $value)
        }
    };
}

pub(super) use {field_encode, field_len, field_measure, field_merge, field_type, messages};
