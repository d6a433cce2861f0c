//! What a model says of its constants, and models whose weights lie in a folder by themselves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use palettizer_coreml::blob::BlobError;
use palettizer_coreml::package::PackageError;
use palettizer_coreml::{Error, Model};
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec};
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::staged_output::SaveOptions;
use std::borrow::Cow;
use std::fs;
use support::{Builder, Parts, WEIGHTS, conv_model, linear_model, values};

fn open(parts: &Parts) -> Model {
    Model::from_parts(&parts.model, parts.weights.clone()).unwrap()
}

fn halves(values: &[f32]) -> Vec<u8> {
    let bytes = values
        .iter()
        .flat_map(|&v| half::f16::from_f32(v).to_le_bytes());
    bytes.collect()
}

#[test]
fn consumers_say_what_they_take() {
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .weight("w", &[64, 64], &values(4096))
        .weight("b", &[64], &values(64))
        .op(
            "linear",
            "fc1",
            &[("x", "x"), ("weight", "w"), ("bias", "b")],
            &[1, 64],
        )
        .op("matmul", "fc2", &[("x", "fc1"), ("y", "w")], &[1, 64])
        .output("fc2")
        .build();
    let model = open(&parts);
    let users = |threshold: usize| {
        let weights = model.weights(threshold).unwrap();
        let consumers = &weights[0].consumers;
        let text = |(param, name): (&String, &String)| format!("{param}={name}");
        let one = |user: &palettizer_coreml::Consumer| {
            let params: Vec<String> = user.params.iter().map(text).collect();
            format!("{}({}, {})", user.op_type, user.name, params.join(", "))
        };
        consumers.iter().map(one).collect::<Vec<_>>()
    };
    // Parameters whose constants are below the threshold are left out, as the peer has it.
    assert_eq!(users(64), ["linear(fc1, weight=w)", "matmul(fc2, y=w)"]);
    assert_eq!(
        users(63),
        ["linear(fc1, bias=b, weight=w)", "matmul(fc2, y=w)"]
    );
}

#[test]
fn values_by_name() {
    let model = open(&linear_model());
    let found = model.weight_values("w").unwrap();
    assert_eq!((found.dtype, &found.shape[..]), ("fp16", &[8, 4][..]));
    assert_eq!(found.bytes, halves(&values(32)));
    assert!(matches!(found.bytes, Cow::Borrowed(_)));
    let error = model.weight_values("v").unwrap_err();
    assert!(matches!(&error, Error::NoConstant { name } if name == "v"));
    assert_eq!(
        error.to_string(),
        "no constant is called \"v\"; list the model's weights for their names"
    );

    // In place, and of another type.
    let model = open(&conv_model("CoreML8", 4, 8));
    let pad = model.weight_values("pad").unwrap();
    assert_eq!((pad.dtype, &pad.shape[..]), ("int32", &[4][..]));
    assert_eq!(*pad.bytes, [0; 16]);
    let groups = model.weight_values("groups").unwrap();
    assert_eq!((groups.shape.len(), &*groups.bytes), (0, &[1, 0, 0, 0][..]));
}

#[test]
fn compressed_ones_have_the_values_that_they_stand_for() {
    let model = open(&conv_model("CoreML8", 16, 32));
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2))
        .with_per_channel_scale(true)
        .with_lut_dtype(LutDtype::Int8)
        .with_granularity(Granularity::PerGroupedChannel {
            group_size: 8,
            channel_axis: None,
        });
    let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    let (small, _) = model.palettize(&config, &()).unwrap();
    let weight = &small.weights(2048).unwrap()[0];
    assert!(weight.compression.is_some());
    let found = small.weight_values(&weight.name).unwrap();
    let dense = small.decompress(&()).unwrap();
    let wanted = dense.weight_values(&weight.name).unwrap();
    assert_eq!(found.bytes, wanted.bytes);
    assert_eq!((found.dtype, &found.shape), (wanted.dtype, &wanted.shape));
    assert_ne!(found.bytes, model.weight_values("w").unwrap().bytes);
}

#[test]
fn weights_may_lie_in_a_folder_of_their_own() {
    let parts = conv_model("CoreML8", 16, 32);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("weight.bin"), &parts.weights[WEIGHTS]).unwrap();
    let model = Model::open_parts(&parts.model, folder.path()).unwrap();
    assert_eq!(model.stored_len(), open(&parts).stored_len());
    assert_eq!(model.to_parts().unwrap(), open(&parts).to_parts().unwrap());
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    let (small, _) = model.palettize(&config, &()).unwrap();
    let (same, _) = open(&parts).palettize(&config, &()).unwrap();
    assert_eq!(small.to_parts().unwrap(), same.to_parts().unwrap());
    // And on to a package.
    let out = folder.path().join("Out.mlpackage");
    model.save(&out, SaveOptions::overwriting(false)).unwrap();
    let again = Model::open(&out).unwrap();
    assert_eq!(again.to_parts().unwrap(), model.to_parts().unwrap());
}

#[test]
fn folders_that_lack_what_the_program_names() {
    let folder = tempfile::tempdir().unwrap();
    let parts = linear_model();
    let error = Model::open_parts(&parts.model, folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Package(PackageError::MissingWeightFile { name, .. }) if name == WEIGHTS)
    );
    let nowhere = folder.path().join("nowhere");
    let error = Model::open_parts(&parts.model, &nowhere).unwrap_err();
    assert!(matches!(
        error,
        Error::Package(PackageError::MissingWeightFile { .. })
    ));
    fs::write(folder.path().join("weight.bin"), [0; 3]).unwrap();
    let error = Model::open_parts(&parts.model, folder.path()).unwrap_err();
    assert!(matches!(
        error,
        Error::Blob(BlobError::Header { len: 3, .. })
    ));
    let error = Model::open_parts(&[0xff], folder.path()).unwrap_err();
    assert!(matches!(
        error,
        Error::Package(PackageError::Protobuf { .. })
    ));
    // Nothing but weights is looked for there.
    let text = String::from_utf8_lossy(&parts.model).into_owned();
    assert!(text.contains(WEIGHTS));
    let elsewhere = replaced(
        &parts.model,
        b"@model_path/weights/",
        b"@model_path/weight_/",
    );
    let error = Model::open_parts(&elsewhere, folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Package(PackageError::MissingWeightFile { name, .. }) if name.contains("weight_"))
    );
    let outside = replaced(
        &parts.model,
        b"@model_path/weights/",
        b"@model_path/../eig/h",
    );
    let error = Model::open_parts(&outside, folder.path()).unwrap_err();
    assert!(matches!(
        error,
        Error::Package(PackageError::WeightFileName { .. })
    ));

    let bare = Builder::new("CoreML8")
        .input("x", &[1, 4])
        .op("relu", "y", &[("x", "x")], &[1, 4])
        .output("y")
        .build();
    assert!(Model::open_parts(&bare.model, &nowhere).is_ok());
}

/// Bytes with every occurrence of `from` replaced by as many others.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in 0..out.len().saturating_sub(from.len()) {
        if out[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}
