//! Pruned weights palettized: in their own opset, and raised to a newer one on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use palettizer_coreml::Model;
use palettizer_coreml::proto::{self, DataType, Operation};
use palettizer_palette::{Mode, Nbits, PaletteSpec};
use palettizer_pipeline::config::Target;
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use prost::Message;
use std::collections::BTreeMap;
use support::{Builder, Parts, WEIGHTS, immediate, named, string_value, tensor_type, values};

const ROWS: u64 = 64;
const COLUMNS: u64 = 96;

/// A linear layer whose weight is pruned as iOS16 has it: of each pair of elements the first is kept.
fn pruned() -> Parts {
    let elements = (ROWS * COLUMNS) as usize;
    let mask = vec![0b0101_0101; elements / 8];
    let (mut model, weights) = Builder::new("CoreML6")
        .input("x", &[1, COLUMNS])
        .blob("mask", DataType::UInt8, &[mask.len() as u64], &mask)
        .weight("kept", &[(elements / 2) as u64], &values(elements / 2))
        .op("linear", "fc", &[("x", "x"), ("weight", "w")], &[1, ROWS])
        .output("fc")
        .message();
    let program = model.ml_program.as_mut().unwrap();
    let function = program.functions.get_mut("main").unwrap();
    let block = function.block_specializations.get_mut("CoreML6").unwrap();
    let mut value = |at: usize| block.operations[at].attributes.remove("val").unwrap();
    let (mask, kept) = (value(0), value(1));
    let shape = [ROWS as u32, COLUMNS as u32];
    let shape = proto::TensorValue {
        bytes: Some(proto::RepeatedBytes {
            values: shape.iter().flat_map(|dim| dim.to_le_bytes()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let op = Operation {
        r#type: "constexpr_sparse_to_dense".to_owned(),
        outputs: vec![named("w", tensor_type(DataType::Float16, &[ROWS, COLUMNS]))],
        attributes: BTreeMap::from([
            ("name".to_owned(), string_value("w")),
            ("mask".to_owned(), mask),
            ("nonzero_data".to_owned(), kept),
            (
                "shape".to_owned(),
                immediate(tensor_type(DataType::UInt32, &[2]), shape),
            ),
        ]),
        ..Default::default()
    };
    block.operations.splice(0..2, [op]);
    Parts {
        model: model.encode_to_vec(),
        weights: BTreeMap::from([(WEIGHTS.to_owned(), weights)]),
    }
}

fn dense(model: &Model) -> Vec<f32> {
    let values = model.weight_values("w").unwrap();
    let (halves, _) = values.bytes.as_chunks::<2>();
    let halves = halves.iter().map(|&half| half::f16::from_le_bytes(half));
    halves.map(half::f16::to_f32).collect()
}

#[test]
fn what_is_left_of_a_pruned_weight_is_palettized_in_a_raised_program() {
    let parts = pruned();
    let model = Model::from_parts(&parts.model, parts.weights).unwrap();
    let (lut, scale, sparse) = (
        "constexpr_lut_to_sparse",
        "constexpr_sparse_blockwise_shift_scale",
        "constexpr_sparse_to_dense",
    );
    for (scaled, expected) in [(false, vec![lut, sparse]), (true, vec![lut, scale, sparse])] {
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_per_channel_scale(scaled);
        let config = OptimizationConfig::new()
            .with_global(OpPalettizerConfig::new(spec))
            .with_joint_compression(true)
            .with_minimum_deployment_target(Target::IOS18);
        let (small, outcome) = model.palettize(&config, &()).unwrap();
        let row = &outcome.weights[0];
        assert!(row.figures().is_some(), "{:?}", row.reason());
        let weight = &small.weights(0).unwrap()[0];
        assert_eq!(weight.compression.as_ref().unwrap().ops, expected);

        let (before, after) = (dense(&model), dense(&small));
        assert_eq!(after, dense(&small.decompress(&()).unwrap()));
        assert!(after.iter().skip(1).step_by(2).all(|&value| value == 0.0));
        let pairs = before.iter().zip(&after);
        let error: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let reported = row.figures().unwrap().mse * before.len() as f64;
        assert!(
            (error - reported).abs() <= 1e-9 * reported,
            "{error} {reported}"
        );
    }
}
