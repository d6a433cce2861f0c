//! Models that stand for far more than they are: refused before memory or disk is taken for them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use palettizer_coreml::blob::WeightWriter;
use palettizer_coreml::package::Package;
use palettizer_coreml::proto::{
    self, Argument, Binding, BlobFileValue, DataType, Operation, Value,
};
use palettizer_coreml::{Error, Model};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::Limits;
use palettizer_pipeline::staged_output::SaveOptions;
use prost::Message as _;
use prost::encoding;
use std::io::Cursor;
use support::{Builder, Parts, immediate, named, string_value, tensor_type};

/// The weight file of the bomb, beside the model's own.
const BOMB: &str = "@model_path/weights/bomb.bin";

fn in_place(value: Value) -> Argument {
    Argument {
        arguments: vec![Binding {
            value: Some(value),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// `constexpr_lut_to_dense` of `rows` indices of one bit, into two vectors of `columns` elements.
fn lut_to_dense(name: &str, rows: u64, columns: u64, indices: u64, lut: u64) -> Operation {
    let blob = |dtype, shape: &[u64], offset| Value {
        r#type: Some(tensor_type(dtype, shape)),
        blob_file: Some(BlobFileValue {
            file_name: BOMB.to_owned(),
            offset,
            ..Default::default()
        }),
        ..Default::default()
    };
    let axis = proto::TensorValue {
        ints: Some(proto::RepeatedInts {
            values: vec![1],
            ..Default::default()
        }),
        ..Default::default()
    };
    let inputs = [
        ("indices", blob(DataType::UInt1, &[rows, 1], indices)),
        ("lut", blob(DataType::Float16, &[1, 1, 2, columns], lut)),
        (
            "vector_axis",
            immediate(tensor_type(DataType::Int32, &[]), axis),
        ),
    ];
    Operation {
        r#type: "constexpr_lut_to_dense".to_owned(),
        inputs: inputs
            .map(|(name, value)| (name.to_owned(), in_place(value)))
            .into(),
        outputs: vec![named(
            name,
            tensor_type(DataType::Float16, &[rows, columns]),
        )],
        attributes: [("name".to_owned(), string_value(name))].into(),
        ..Default::default()
    }
}

/// A model with `count` weights of this size, all made of the same bytes in another way.
fn bomb(count: u64, rows: u64, columns: u64) -> Parts {
    let mut writer = WeightWriter::new(Cursor::new(Vec::new())).unwrap();
    let indices = vec![0b0101_0101; rows.div_ceil(8) as usize];
    let indices = writer.append(DataType::UInt1, &indices, 0).unwrap();
    let mut builder = Builder::new("CoreML8").input("x", &[1, columns]);
    let mut operations = Vec::new();
    for at in 0..count {
        let (weight, op) = (format!("w{at}"), format!("fc{at}"));
        let lut = vec![at as u8; 4 * columns as usize];
        let lut = writer.append(DataType::Float16, &lut, 0).unwrap();
        operations.push(lut_to_dense(&weight, rows, columns, indices, lut));
        builder = builder
            .op(
                "linear",
                &op,
                &[("x", "x"), ("weight", &weight)],
                &[1, rows],
            )
            .output(&op);
    }
    let (mut model, weights) = builder.message();
    let function = model.ml_program.as_mut().unwrap().functions.get_mut("main");
    let block = function.unwrap().block_specializations.get_mut("CoreML8");
    block.unwrap().operations.splice(0..0, operations);
    Parts {
        model: model.encode_to_vec(),
        weights: [
            (support::WEIGHTS.to_owned(), weights),
            (BOMB.to_owned(), writer.finish().unwrap().into_inner()),
        ]
        .into(),
    }
}

fn open(parts: &Parts) -> Model {
    Model::from_parts(&parts.model, parts.weights.clone()).unwrap()
}

fn is_refused<T: std::fmt::Debug>(done: Result<T, Error>, name: &str, asked: u64) {
    let error = done.unwrap_err();
    match &error {
        Error::Pipeline(PipelineError::Expansion {
            name: found,
            asked: bytes,
            ..
        }) => assert_eq!((found.as_str(), *bytes), (name, asked)),
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("--max-expansion"), "{error}");
}

#[test]
fn one_weight_of_long_vectors() {
    let parts = bomb(1, 65536, 32768);
    let size: usize = parts.weights.values().map(Vec::len).sum();
    assert!(size < 200_000);
    let model = open(&parts);
    let asked = 65536 * 32768 * 2;
    is_refused(model.decompress(&()), "w0", asked);
    is_refused(model.weight_values("w0"), "w0", asked);
    is_refused(model.weights(0), "w0", asked);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.mlpackage");
    is_refused(
        model.decompress_to(&out, SaveOptions::overwriting(false), &()),
        "w0",
        asked,
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn many_weights_of_the_same_bytes_are_counted_together() {
    // Each unfolds to 32 MiB, which is always allowed; ten of them are 320.
    let model = open(&bomb(10, 4096, 4096));
    assert_eq!(model.weights(0).unwrap().len(), 10);
    is_refused(model.decompress(&()), "w8", 9 * (32 << 20));
    let allowed = model.with_limits(Limits::default().with_max_expansion(2000));
    allowed.decompress(&()).unwrap();
}

#[test]
fn what_honest_models_unfold_to_is_allowed() {
    let limits = Limits::default();
    let gib = 1 << 30;
    // One bit for an fp32 element, for a vector of eight, and for one of sixteen.
    for times in [32, 8 * 32, 16 * 32] {
        limits.check("w", times * gib, gib).unwrap();
    }
    // Small files are no danger.
    limits.check("w", 256 << 20, 1).unwrap();
    is_refused(
        limits.check("w", 513 * gib, gib).map_err(Error::from),
        "w",
        513 * gib,
    );
    let raised = limits.with_max_expansion(u64::MAX);
    raised.check("w", u64::MAX, gib).unwrap();
}

/// A program of `count` operations in one block, each of these bytes.
fn program(operation: &[u8], count: usize) -> Vec<u8> {
    let nest = |tag, inner: &[u8]| {
        let mut bytes = Vec::new();
        encoding::bytes::encode(tag, &inner.to_vec(), &mut bytes);
        bytes
    };
    let map_entry = |tag, inner: &[u8]| nest(tag, &nest(2, inner));
    let operations = nest(3, operation).repeat(count);
    let block = map_entry(3, &operations);
    nest(502, &map_entry(2, &block))
}

#[test]
fn a_program_of_empty_messages_is_refused_before_it_is_read() {
    // An operation with one attribute that says nothing: four bytes that begin a map.
    let bytes = program(&[0x2a, 0], 3_000_000);
    let error = Package::from_parts(&bytes, [].into()).unwrap_err();
    assert!(
        matches!(error, Error::Pipeline(PipelineError::Expansion { .. })),
        "{error}"
    );
}
