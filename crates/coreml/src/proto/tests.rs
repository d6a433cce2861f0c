//! What must survive reading and writing: every field that we do not know, at any depth.

use super::*;
use prost::Message;
use prost::encoding::{self, WireType};

/// One field of each wire type, under numbers that no message here uses.
fn foreign_fields() -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding::uint64::encode(9_001, &u64::MAX, &mut bytes);
    encoding::fixed32::encode(9_002, &7, &mut bytes);
    encoding::fixed64::encode(9_003, &8, &mut bytes);
    encoding::string::encode(9_004, &"new in a later version".to_owned(), &mut bytes);
    // The same field again, and an empty one: neither may be merged or left out.
    encoding::uint64::encode(9_001, &0, &mut bytes);
    encoding::bytes::encode(9_005, &Vec::<u8>::new(), &mut bytes);
    bytes
}

fn round_trip<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = message.encode_to_vec();
    assert_eq!(bytes.len(), message.encoded_len());
    let again = M::decode(bytes.as_slice()).unwrap();
    assert_eq!(again, *message);
    assert_eq!(again.encode_to_vec(), bytes);
}

#[test]
fn unknown_fields_survive_in_every_message() {
    macro_rules! check {
        ($($message:ident),*) => {$({
            let read = $message::decode(foreign_fields().as_slice()).unwrap();
            assert_eq!(read.unknown, foreign_fields(), stringify!($message));
            assert_eq!(read.encode_to_vec(), foreign_fields(), stringify!($message));
            round_trip(&read);
        })*};
    }
    check!(
        Model,
        Pipeline,
        TypedPipeline,
        Program,
        Function,
        Block,
        Operation,
        Argument,
        Binding,
        NamedValueType,
        ValueType,
        TensorType,
        Dimension,
        ConstantDimension,
        Value,
        ImmediateValue,
        BlobFileValue,
        TensorValue,
        RepeatedFloats,
        RepeatedInts,
        RepeatedBools,
        RepeatedStrings,
        RepeatedLongInts,
        RepeatedDoubles,
        RepeatedBytes
    );
}

/// A model in which a block lies in a block, `depth` times, each level with foreign fields.
fn nested(depth: usize) -> Model {
    let unknown = foreign_fields();
    let mut block = Block::default();
    for _ in 0..depth {
        let operation = Operation {
            r#type: "cond".to_owned(),
            blocks: vec![block],
            unknown: unknown.clone(),
            ..Default::default()
        };
        block = Block {
            operations: vec![operation],
            unknown: unknown.clone(),
            ..Default::default()
        };
    }
    let function = Function {
        block_specializations: [("CoreML7".to_owned(), block)].into(),
        unknown: unknown.clone(),
        ..Default::default()
    };
    Model {
        ml_program: Some(Program {
            functions: [("main".to_owned(), function)].into(),
            ..Default::default()
        }),
        unknown,
        ..Default::default()
    }
}

#[test]
fn blocks_within_blocks_survive_until_the_limit() {
    round_trip(&nested(0));
    round_trip(&nested(40));
    // Deeper than any program, and too deep for the stack in the end: refused, not followed.
    let bytes = nested(60).encode_to_vec();
    let error = Model::decode(bytes.as_slice()).unwrap_err().to_string();
    assert!(error.contains("recursion limit"), "{error}");
}

#[test]
fn maps_are_written_in_one_order() {
    let attributes = |names: &[&str]| Operation {
        attributes: names
            .iter()
            .map(|name| ((*name).to_owned(), Value::default()))
            .collect(),
        ..Default::default()
    };
    let bytes = attributes(&["val", "name", "a"]).encode_to_vec();
    assert_eq!(bytes, attributes(&["a", "val", "name"]).encode_to_vec());
    // A file may have them in any order.
    let (mut swapped, mut entry) = (Vec::new(), Vec::new());
    for name in ["val", "a", "name"] {
        entry.clear();
        encoding::string::encode(1, &name.to_owned(), &mut entry);
        encoding::message::encode(2, &Value::default(), &mut entry);
        encoding::bytes::encode(5, &entry, &mut swapped);
    }
    assert_ne!(swapped, bytes);
    let read = Operation::decode(swapped.as_slice()).unwrap();
    assert_eq!(read.encode_to_vec(), bytes);
}

#[test]
fn numbers_may_be_packed_or_not() {
    let mut unpacked = Vec::new();
    encoding::int32::encode_repeated(1, &[1, -1, i32::MIN], &mut unpacked);
    let read = RepeatedInts::decode(unpacked.as_slice()).unwrap();
    assert_eq!(read.values, [1, -1, i32::MIN]);
    round_trip(&read);
    assert!(read.encoded_len() < unpacked.len());
}

#[test]
fn a_field_of_the_wrong_wire_type_is_an_error() {
    // `functions` (a map), `block_specializations` (a map), `operations`, `dataType`: as the other kind.
    for (tag, wire_type) in [
        (2, WireType::Varint),
        (2, WireType::SixtyFourBit),
        (2, WireType::ThirtyTwoBit),
    ] {
        let mut bytes = Vec::new();
        encoding::encode_key(tag, wire_type, &mut bytes);
        bytes.extend([0x0a; 64]);
        Program::decode(bytes.as_slice()).unwrap_err();
        Operation::decode(bytes.as_slice()).unwrap_err();
        Block::decode(bytes.as_slice()).unwrap_err();
    }
}

#[test]
fn a_length_beyond_the_input_reserves_nothing() {
    for tag in [1u32, 2, 3, 4, 5, 900] {
        let mut bytes = Vec::new();
        encoding::encode_key(tag, WireType::LengthDelimited, &mut bytes);
        encoding::encode_varint(1 << 40, &mut bytes);
        Operation::decode(bytes.as_slice()).unwrap_err();
        TensorValue::decode(bytes.as_slice()).unwrap_err();
        RepeatedBytes::decode(bytes.as_slice()).unwrap_err();
    }
}

#[test]
fn groups_are_dropped_and_must_be_closed() {
    let mut bytes = Vec::new();
    encoding::encode_key(9_006, WireType::StartGroup, &mut bytes);
    Block::decode(bytes.as_slice()).unwrap_err();
    encoding::uint64::encode(1, &5, &mut bytes);
    encoding::encode_key(9_006, WireType::EndGroup, &mut bytes);
    assert_eq!(Block::decode(bytes.as_slice()).unwrap(), Block::default());
}

#[test]
fn what_a_message_takes_is_known_before_it_is_read() {
    let operation = |attributes: usize| Operation {
        r#type: "const".to_owned(),
        attributes: (0..attributes)
            .map(|at| (at.to_string(), Value::default()))
            .collect(),
        ..Default::default()
    };
    let block = |operations: Vec<Operation>| Block {
        operations,
        ..Default::default()
    };
    let taken = |block: Block| measure::<Block>(&block.encode_to_vec(), u64::MAX);
    let bare = taken(block(vec![operation(0); 1000]));
    assert!(bare >= 1000 * size_of::<Operation>() as u64, "{bare}");
    // A map takes a node of eleven entries, whatever is in it.
    let node = 11 * (size_of::<Value>() + size_of::<String>()) as u64;
    let mapped = taken(block(vec![operation(1); 1000]));
    assert!(mapped >= bare + 1000 * node, "{mapped}");
    // The walk ends where it has seen enough, and where there is no message.
    let bytes = block(vec![operation(1); 1000]).encode_to_vec();
    let cut = measure::<Block>(&bytes, 10_000);
    assert!((10_000..40_000).contains(&cut), "{cut}");
    measure::<Block>(&bytes[..bytes.len() / 2 + 1], u64::MAX);
    measure::<Block>(&[0xff; 40], u64::MAX);
}
