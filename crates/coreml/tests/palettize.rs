//! Whole models palettized and made dense again, in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use palettizer_coreml::blob::BlobError;
use palettizer_coreml::proto::{self, DataType, Operation};
use palettizer_coreml::{Error, Model};
use palettizer_palette::{CustomLut, Granularity, LutDtype, LutFunction, Mode, Nbits, PaletteSpec};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::Report;
use palettizer_pipeline::config::Target;
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use support::{Builder, Parts, conv_model, values};

fn open(parts: &Parts) -> Model {
    Model::from_parts(&parts.model, parts.weights.clone()).unwrap()
}

fn config(spec: PaletteSpec) -> OptimizationConfig {
    OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec))
}

fn kmeans(nbits: Nbits) -> PaletteSpec {
    PaletteSpec::new(Mode::Kmeans(nbits))
}

fn grouped(group_size: usize) -> PaletteSpec {
    kmeans(Nbits::B2).with_granularity(Granularity::PerGroupedChannel {
        group_size,
        channel_axis: None,
    })
}

fn palettize(parts: &Parts, config: &OptimizationConfig) -> Result<(Model, Report), Error> {
    open(parts).palettize(config, &())
}

fn operations(model: &Model) -> Vec<&Operation> {
    let program = model.spec().ml_program.as_ref().unwrap();
    let function = program.functions.values().next().unwrap();
    let block = function.block_specializations.values().next().unwrap();
    block.operations.iter().collect()
}

fn types(model: &Model) -> Vec<&str> {
    let types = operations(model).into_iter().map(|op| op.r#type.as_str());
    types
        .filter(|op_type| op_type.starts_with("constexpr"))
        .collect()
}

/// A linear layer of 64 × 64 weights, and a second one that shares them.
fn shared(opset: &str) -> Builder {
    Builder::new(opset)
        .input("x", &[1, 64])
        .weight("w", &[64, 64], &values(64 * 64))
        .op("linear", "fc1", &[("x", "x"), ("weight", "w")], &[1, 64])
        .op("linear", "fc2", &[("x", "fc1"), ("weight", "w")], &[1, 64])
        .output("fc2")
}

#[test]
fn each_form_comes_out_and_goes_back() {
    let lut = "constexpr_lut_to_dense";
    let scale = "constexpr_blockwise_shift_scale";
    let cases = [
        ("CoreML6", kmeans(Nbits::B4), vec![lut]),
        ("CoreML8", kmeans(Nbits::B3), vec![lut]),
        ("CoreML8", grouped(8), vec![lut]),
        ("CoreML8", kmeans(Nbits::B4).with_cluster_dim(2), vec![lut]),
        (
            "CoreML8",
            kmeans(Nbits::B4).with_lut_dtype(LutDtype::Int8),
            vec![scale, lut],
        ),
        (
            "CoreML8",
            kmeans(Nbits::B4).with_lut_dtype(LutDtype::Uint8),
            vec![scale, lut],
        ),
        (
            "CoreML9",
            kmeans(Nbits::B4).with_per_channel_scale(true),
            vec![lut, scale],
        ),
    ];
    for (opset, spec, expected) in cases {
        let parts = conv_model(opset, 16, 32);
        let (small, outcome) = palettize(&parts, &config(spec.clone())).unwrap();
        assert_eq!(types(&small), expected, "{opset} {spec:?}");
        let row = &outcome.weights[0];
        assert!(row.figures().is_some());
        assert!(outcome.bytes_after < outcome.bytes_before);
        assert_eq!(outcome.bytes_after, small.stored_len());

        let dense = small.decompress(&()).unwrap();
        assert!(types(&dense).is_empty());
        // Dense again, and the error is the one that was reported.
        let before = first_blob(&open(&parts));
        let after = first_blob(&dense);
        let errors = before
            .iter()
            .zip(&after)
            .map(|(a, b)| f64::from(a - b).powi(2));
        let mse = errors.sum::<f64>() / before.len() as f64;
        let reported = row.figures().unwrap().mse;
        assert!(
            (mse - reported).abs() <= 1e-9 * reported,
            "{mse} {reported}"
        );
    }
}

/// The largest fp16 constant of a model.
fn first_blob(model: &Model) -> Vec<f32> {
    let ops = operations(model);
    let weight = ops.iter().filter(|op| op.r#type == "const");
    let places = weight.filter_map(|op| op.attributes["val"].blob_file.as_ref());
    let blobs = places.map(|place| {
        let file = model.package().weight_file(&place.file_name).unwrap();
        file.blob(place.offset).unwrap().data
    });
    let data = blobs.max_by_key(|data| data.len()).unwrap();
    let (halves, _) = data.as_chunks::<2>();
    halves
        .iter()
        .map(|&half| half::f16::from_le_bytes(half).to_f32())
        .collect()
}

#[test]
fn a_weight_of_several_users_is_palettized_once() {
    let (small, outcome) =
        palettize(&shared("CoreML8").build(), &config(kmeans(Nbits::B4))).unwrap();
    assert_eq!(types(&small).len(), 1);
    assert_eq!(outcome.weights.len(), 1);
    assert_eq!(outcome.weights[0].op_names, ["fc1", "fc2"]);
    for op in operations(&small).iter().filter(|op| op.r#type == "linear") {
        assert_eq!(op.inputs["weight"].arguments[0].name, "w_palettized");
    }
}

#[test]
fn constants_in_one_blob_share_one_palette() {
    let place = Builder::new("CoreML8")
        .weight("w", &[64, 64], &values(4096))
        .message();
    let ops =
        &place.0.ml_program.as_ref().unwrap().functions["main"].block_specializations["CoreML8"];
    let offset = ops.operations[0].attributes["val"]
        .blob_file
        .as_ref()
        .unwrap()
        .offset;
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .weight("w", &[64, 64], &values(4096))
        .blob_at("v", DataType::Float16, &[64, 64], offset)
        .op("linear", "fc1", &[("x", "x"), ("weight", "w")], &[1, 64])
        .op("linear", "fc2", &[("x", "fc1"), ("weight", "v")], &[1, 64])
        .output("fc2")
        .build();
    let (small, outcome) = palettize(&parts, &config(kmeans(Nbits::B4))).unwrap();
    assert_eq!(outcome.weights.len(), 1);
    assert_eq!(outcome.weights[0].shared_with, ["v"]);
    let luts = operations(&small);
    let luts: Vec<_> = luts
        .iter()
        .filter(|op| op.r#type == "constexpr_lut_to_dense")
        .collect();
    assert_eq!(luts.len(), 2);
    assert_eq!(luts[0].inputs, luts[1].inputs);
    // And so does the dense model again.
    let dense = small.decompress(&()).unwrap();
    let places: Vec<_> = operations(&dense)
        .iter()
        .filter_map(|op| op.attributes.get("val")?.blob_file.clone())
        .collect();
    assert_eq!(places[0], places[1]);
}

#[test]
fn what_is_skipped_comes_back_as_it_was() {
    let parts = conv_model("CoreML7", 16, 32);
    let model = open(&parts);
    let skip = OptimizationConfig::new().with_op_type("conv", None);
    let (same, outcome) = model.palettize(&skip, &()).unwrap();
    assert_eq!(same.spec(), model.spec());
    assert_eq!(same.to_parts().unwrap().1, parts.weights);
    assert_eq!(
        outcome.weights[0].reason(),
        Some("the configuration skips it")
    );
}

#[test]
fn configurations_resolve_by_constant_consumer_type_and_globally() {
    let bits = |config: &OptimizationConfig| {
        let (_, outcome) = palettize(&shared("CoreML8").build(), config).unwrap();
        outcome.weights[0].figures().map(|figures| figures.nbits)
    };
    let with = |nbits| OpPalettizerConfig::new(kmeans(nbits));
    let global = config(kmeans(Nbits::B8));
    assert_eq!(bits(&global), Some(8));
    let by_type = global.with_op_type("linear", with(Nbits::B6));
    assert_eq!(bits(&by_type), Some(6));
    let by_user = by_type
        .with_op_name("fc1", with(Nbits::B4))
        .with_op_name("fc2", with(Nbits::B4));
    assert_eq!(bits(&by_user), Some(4));
    let by_name = by_user.with_op_name("w", with(Nbits::B2));
    assert_eq!(bits(&by_name), Some(2));
    assert_eq!(bits(&by_name.with_op_name("w", None)), None);
}

#[test]
fn patterns_come_after_names_and_before_types() {
    let bits = |config: &OptimizationConfig| {
        let (_, outcome) = palettize(&shared("CoreML8").build(), config).unwrap();
        let unmatched = outcome.unmatched.into_iter();
        (
            outcome.weights[0].figures().map(|figures| figures.nbits),
            unmatched.collect::<Vec<String>>(),
        )
    };
    let with = |nbits| OpPalettizerConfig::new(kmeans(nbits));
    let by_type = config(kmeans(Nbits::B8)).with_op_type("lin.*r", with(Nbits::B6));
    assert_eq!(bits(&by_type), (Some(6), vec![]));
    // the very type goes before a pattern that was there first
    let by_exact_type = by_type.with_op_type("linear", with(Nbits::B3));
    assert_eq!(bits(&by_exact_type), (Some(3), vec![]));
    let by_pattern = by_exact_type
        .with_op_name("(?i)FC[12]", with(Nbits::B4))
        .with_op_name(".*", None)
        .with_op_name("x+", None);
    assert_eq!(bits(&by_pattern), (Some(4), vec!["x+".to_owned()]));
    let by_user = by_pattern
        .with_op_name("fc1", with(Nbits::B2))
        .with_op_name("fc2", with(Nbits::B2));
    assert_eq!(bits(&by_user).0, Some(2));
    assert_eq!(bits(&by_user.with_op_name("w", None)).0, None);
}

#[test]
fn a_key_that_is_neither_name_nor_pattern_is_an_error() {
    let config = config(kmeans(Nbits::B4)).with_op_name("*fc", None);
    let error = palettize(&shared("CoreML8").build(), &config).unwrap_err();
    assert!(
        matches!(&error, Error::Pipeline(PipelineError::Pattern { key, .. }) if key == "*fc"),
        "{error}"
    );
}

#[test]
fn entries_that_fit_nothing_are_named() {
    let config = config(kmeans(Nbits::B4))
        .with_op_type("conv", None)
        .with_op_type("lineal", None)
        .with_op_name("typo", None)
        .with_op_name("fc11", None);
    let (_, outcome) = palettize(&shared("CoreML8").build(), &config).unwrap();
    let unmatched = outcome.unmatched.iter();
    let unmatched: Vec<(&str, String)> = unmatched
        .map(|name| {
            (
                name.as_str(),
                outcome
                    .near_names
                    .get(name)
                    .map_or(String::new(), |near| near.join(" ")),
            )
        })
        .collect();
    let expected = [
        ("conv", ""),
        ("lineal", "linear"),
        ("typo", ""),
        ("fc11", "fc1"),
    ];
    assert_eq!(
        unmatched,
        expected.map(|(name, near)| (name, near.to_owned()))
    );
}

#[test]
fn users_that_are_configured_differently_are_an_error() {
    let config = config(kmeans(Nbits::B4)).with_op_name("fc1", None);
    let error = palettize(&shared("CoreML8").build(), &config).unwrap_err();
    assert!(
        matches!(error, Error::Pipeline(PipelineError::ConfigConflict { .. })),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("\"w\" is used by \"fc1\" and \"fc2\""),
        "{error}"
    );
}

#[test]
fn an_opset_that_is_too_old_names_the_flag() {
    let cases = [
        ("CoreML5", kmeans(Nbits::B4), "iOS16"),
        ("CoreML7", kmeans(Nbits::B3), "iOS18"),
        ("CoreML7", grouped(8), "iOS18"),
    ];
    for (opset, spec, needed) in cases {
        let parts = shared(opset).build();
        let error = palettize(&parts, &config(spec.clone())).unwrap_err();
        assert!(matches!(error, Error::OpsetTooOld { .. }), "{error}");
        let flag = format!("--minimum-deployment-target {needed}");
        assert!(error.to_string().contains(&flag), "{error}");
        let raised = config(spec).with_minimum_deployment_target(Target::IOS18);
        let (_, outcome) = palettize(&parts, &raised).unwrap();
        assert_eq!(outcome.target.as_deref(), Some("iOS18"));
    }
    let unknown = shared("CoreML12").build();
    let error = palettize(&unknown, &config(kmeans(Nbits::B4))).unwrap_err();
    assert!(matches!(error, Error::UnknownOpset { .. }), "{error}");
    let raised = config(kmeans(Nbits::B4)).with_minimum_deployment_target(Target::IOS18);
    let error = palettize(&unknown, &raised).unwrap_err();
    assert!(matches!(error, Error::Opset(_)), "{error}");
}

#[test]
fn strict_refuses_a_skip_that_was_not_asked_for() {
    let parts = shared("CoreML8").build();
    let odd = config(grouped(48));
    let (_, outcome) = palettize(&parts, &odd).unwrap();
    assert!(outcome.weights[0].figures().is_none());
    let error = palettize(&parts, &odd.with_strict(true)).unwrap_err();
    assert!(matches!(
        error,
        Error::Pipeline(PipelineError::Strict { .. })
    ));
    assert!(error.to_string().contains("w: group_size 48"), "{error}");
    // What only the values tell, too.
    let many = config(PaletteSpec::new(Mode::Unique)).with_strict(true);
    assert!(matches!(
        palettize(&parts, &many).unwrap_err(),
        Error::Pipeline(PipelineError::Strict { .. })
    ));
    let asked = OptimizationConfig::new()
        .with_op_type("linear", None)
        .with_strict(true);
    assert!(palettize(&parts, &asked).is_ok());
}

#[test]
fn a_second_pass_leaves_palettized_weights_alone() {
    let (small, _) = palettize(&shared("CoreML8").build(), &config(kmeans(Nbits::B4))).unwrap();
    let (again, outcome) = small.palettize(&config(kmeans(Nbits::B2)), &()).unwrap();
    assert_eq!(again.to_parts().unwrap(), small.to_parts().unwrap());
    let reason = outcome.weights[0].reason().unwrap();
    assert_eq!(reason, "already compressed (constexpr_lut_to_dense)");
}

#[test]
fn three_bits_of_unique_values_are_four_before_ios18() {
    let few: Vec<f32> = (0..4096).map(|at| (at % 5) as f32).collect();
    let parts = Builder::new("CoreML6")
        .input("x", &[1, 64])
        .weight("w", &[64, 64], &few)
        .op("linear", "fc", &[("x", "x"), ("weight", "w")], &[1, 64])
        .output("fc")
        .build();
    let unique = config(PaletteSpec::new(Mode::Unique));
    let (small, _) = palettize(&parts, &unique).unwrap();
    let lut = operations(&small)[0].attributes["lut"]
        .r#type
        .clone()
        .unwrap();
    assert_eq!(
        lut.tensor_type.unwrap().dimensions[0]
            .constant
            .as_ref()
            .unwrap()
            .size,
        16
    );
    assert_eq!(first_blob(&small.decompress(&()).unwrap()), few);
    let raised = unique.with_minimum_deployment_target(Target::IOS18);
    let (small, outcome) = palettize(&parts, &raised).unwrap();
    assert_eq!(
        outcome.weights[0].figures().map(|figures| figures.nbits),
        Some(3)
    );
    assert_eq!(first_blob(&small.decompress(&()).unwrap()), few);
}

#[test]
fn a_custom_function_makes_the_table() {
    let halves = LutFunction::new(|values, group| {
        assert_eq!((group.shape, group.channel_axis), (&[64, 64][..], Some(0)));
        let indices = values.iter().map(|&value| u8::from(value >= 0.0)).collect();
        let lut = vec![-0.5, 0.5];
        Ok(CustomLut::new(lut, indices))
    });
    let custom = config(PaletteSpec::new(Mode::Custom(halves)));
    let (small, outcome) = palettize(&shared("CoreML8").build(), &custom).unwrap();
    assert_eq!(
        outcome.weights[0].figures().map(|figures| figures.nbits),
        Some(1)
    );
    let expected: Vec<f32> = values(4096)
        .iter()
        .map(|&value| if value >= 0.0 { 0.5 } else { -0.5 })
        .collect();
    assert_eq!(first_blob(&small.decompress(&()).unwrap()), expected);

    let fails = LutFunction::new(|_, _| Err("no idea".to_owned()));
    let custom = config(PaletteSpec::new(Mode::Custom(fails)));
    let (_, outcome) = palettize(&shared("CoreML8").build(), &custom).unwrap();
    let reason = outcome.weights[0].reason().unwrap();
    assert!(reason.ends_with("no idea"), "{reason}");
}

#[test]
fn bf16_weights_stay_bf16() {
    let bytes: Vec<u8> = values(4096)
        .iter()
        .flat_map(|&value| half::bf16::from_f32(value).to_le_bytes())
        .collect();
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .blob("w", DataType::BFloat16, &[64, 64], &bytes)
        .op("linear", "fc", &[("x", "x"), ("weight", "w")], &[1, 64])
        .output("fc")
        .build();
    let (small, outcome) = palettize(&parts, &config(kmeans(Nbits::B8))).unwrap();
    assert_eq!(outcome.weights[0].dtype, "bf16");
    assert_eq!(
        outcome.weights[0]
            .figures()
            .and_then(|figures| figures.optimality_gap),
        Some(0.0)
    );
    let dense = small.decompress(&()).unwrap();
    let info = &dense.weights(2048).unwrap()[0];
    assert_eq!(info.dtype, "bf16");
    assert!(info.unique_values <= 256);
}

#[test]
fn a_name_that_nothing_defines_is_an_error() {
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .op("linear", "fc", &[("x", "x"), ("weight", "lost")], &[1, 64])
        .output("fc")
        .build();
    let opened = |parts: Parts| Model::from_parts(&parts.model, parts.weights);
    let error = opened(parts).unwrap_err();
    assert!(matches!(error, Error::UndefinedName { .. }));
    let cycle = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .op("relu", "a", &[("x", "b")], &[1, 64])
        .op("relu", "b", &[("x", "a")], &[1, 64])
        .output("b")
        .build();
    let error = opened(cycle).unwrap_err();
    assert!(
        error.to_string().contains("relu \"a\" (x) uses \"b\""),
        "{error}"
    );
}

#[test]
fn data_that_does_not_fit_its_type_is_an_error() {
    let bytes: Vec<u8> = values(4096).iter().flat_map(|v| v.to_le_bytes()).collect();
    let model = |dtype, shape: &[u64]| {
        let (_, weights) = Builder::new("CoreML8").message();
        let offset = weights.len().next_multiple_of(64) as u64;
        let builder = Builder::new("CoreML8")
            .input("x", &[1, 64])
            .blob("v", DataType::Float32, &[4096], &bytes)
            .blob_at("w", dtype, shape, offset);
        builder
            .op("linear", "fc", &[("x", "x"), ("weight", "w")], &[1, 64])
            .output("fc")
            .build()
    };
    for (dtype, shape) in [
        (DataType::Float16, [64u64, 64]),
        (DataType::Float32, [64, 65]),
        (DataType::Float32, [u64::MAX, 64]),
    ] {
        let parts = model(dtype, &shape);
        match Model::from_parts(&parts.model, parts.weights) {
            Err(Error::Blob(BlobError::Size { name, .. })) => assert_eq!(name, "w"),
            // A shape that no file could hold.
            Err(Error::BadValue { name, .. }) => {
                assert_eq!((name.as_str(), shape[0]), ("w", u64::MAX));
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{dtype:?} {shape:?} was accepted"),
        }
    }
}

#[test]
fn a_value_in_place_that_does_not_fit_its_type_is_an_error() {
    let (mut value, mut op) = (proto::Value::default(), None);
    let parts = Builder::new("CoreML8")
        .weight("w", &[64, 64], &values(4096))
        .message();
    for found in &parts.0.ml_program.as_ref().unwrap().functions["main"].block_specializations {
        op = found.1.operations.first().cloned();
    }
    value.r#type = op.unwrap().outputs[0].r#type.clone();
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .constant("w", value)
        .op("linear", "fc", &[("x", "x"), ("weight", "w")], &[1, 64])
        .output("fc")
        .build();
    let error = palettize(&parts, &config(kmeans(Nbits::B4))).unwrap_err();
    assert!(matches!(error, Error::BadValue { .. }));
    assert!(
        error
            .to_string()
            .contains("neither a value in place nor a blob"),
        "{error}"
    );
}

#[test]
fn a_compressed_constant_without_its_parts_is_an_error() {
    let (small, _) = palettize(&shared("CoreML8").build(), &config(kmeans(Nbits::B4))).unwrap();
    let (spec, weights) = small.to_parts().unwrap();
    let mut message: proto::Model = prost::Message::decode(&spec[..]).unwrap();
    let program = message.ml_program.as_mut().unwrap();
    let function = program.functions.get_mut("main").unwrap();
    let block = function.block_specializations.get_mut("CoreML8").unwrap();
    block.operations[0].inputs.remove("lut");
    let spec = prost::Message::encode_to_vec(&message);
    let damaged = Model::from_parts(&spec, weights).unwrap();
    let error = damaged.decompress(&()).unwrap_err();
    assert!(matches!(error, Error::Constexpr { .. }));
    assert!(
        error.to_string().contains("parameter lut is missing"),
        "{error}"
    );
}

#[test]
fn masks_of_infinities_and_constant_weights_are_handled() {
    let mask: Vec<f32> = (0..4096)
        .map(|at| [0.0, f32::NEG_INFINITY][at % 2])
        .collect();
    let same = vec![0.5; 4096];
    let mut broken = values(4096);
    broken[7] = f32::NAN;
    for (data, exact) in [(mask, true), (same, true), (broken, false)] {
        let parts = Builder::new("CoreML8")
            .input("x", &[64, 64])
            .weight("w", &[64, 64], &data)
            .op("add", "sum", &[("x", "x"), ("y", "w")], &[64, 64])
            .output("sum")
            .build();
        let (small, outcome) = palettize(&parts, &config(kmeans(Nbits::B4))).unwrap();
        let row = &outcome.weights[0];
        assert_eq!(row.figures().is_some(), exact, "{:?}", row.reason());
        if exact {
            assert_eq!(first_blob(&small.decompress(&()).unwrap()), data);
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let parts = conv_model("CoreML8", 64, 128);
    let spec = grouped(16).with_lut_dtype(LutDtype::Int8);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let (small, _) = pool
            .install(|| palettize(&parts, &config(spec.clone())))
            .unwrap();
        small.to_parts().unwrap()
    };
    assert_eq!(with(1), with(4));
}
