//! Bad packages: one test for each error, and nothing but errors.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use palettizer_coreml::Error;
use palettizer_coreml::package::Package;
use palettizer_coreml::package::PackageError;
use palettizer_coreml::proto::{DataType, Model, Pipeline};
use palettizer_pipeline::Error as PipelineError;
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Builder, Parts, WEIGHTS, WEIGHTS_ID, linear_model, manifest, values};
use tempfile::TempDir;

/// A package on disk.
fn package() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("M.mlpackage"));
    (folder, path)
}

/// The error of opening a package whose manifest went through `change`.
fn with_manifest(change: impl Fn(&str) -> String) -> Error {
    let (_folder, path) = package();
    fs::write(path.join("Manifest.json"), change(&manifest())).unwrap();
    Package::open(&path).unwrap_err()
}

fn model_file(package: &Path) -> PathBuf {
    package.join("Data/com.apple.CoreML/model.mlmodel")
}

fn weight_file(package: &Path) -> PathBuf {
    package.join("Data/com.apple.CoreML/weights/weight.bin")
}

macro_rules! assert_error {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        let message = error.to_string();
        assert!(message.len() < 500 && !message.contains('\n'), "{message}");
    };
}

#[test]
fn nothing_there() {
    assert_error!(Package::open("/no/such.mlpackage").unwrap_err(), Error::Pipeline(PipelineError::Io { path, .. }) if path.ends_with("such.mlpackage"));
}

#[test]
fn a_folder_that_is_no_package() {
    let folder = TempDir::new().unwrap();
    assert_error!(
        Package::open(folder.path()).unwrap_err(),
        Error::Package(PackageError::NotAPackage { .. })
    );
    fs::write(folder.path().join("coremldata.bin"), "").unwrap();
    assert_error!(Package::open(folder.path()).unwrap_err(), Error::Pipeline(PipelineError::Foreign { what, .. }) if what.contains("compiled"));
}

#[test]
fn folders_where_files_should_be() {
    for file in [|p: &Path| p.join("Manifest.json"), model_file, weight_file] {
        let (_folder, path) = package();
        fs::remove_file(file(&path)).unwrap();
        fs::create_dir(file(&path)).unwrap();
        assert_error!(Package::open(&path).unwrap_err(), Error::Pipeline(PipelineError::NotAFile { path: found, .. }) if *found == file(&path));
    }
}

#[test]
fn a_manifest_that_is_too_large() {
    let error = with_manifest(|text| text.to_owned() + &" ".repeat(2 << 20));
    assert_error!(error, Error::Pipeline(PipelineError::TooLarge { limit, .. }) if *limit == 1 << 20);
}

#[test]
fn a_model_that_is_too_large() {
    let (_folder, path) = package();
    let file = fs::File::create(model_file(&path)).unwrap();
    // Sparse: it takes no room on disk, and nobody reads it.
    file.set_len(3 << 30).unwrap();
    assert_error!(Package::open(&path).unwrap_err(), Error::Pipeline(PipelineError::TooLarge { found, .. }) if *found == 3 << 30);
}

#[test]
fn folders_without_end() {
    let (_folder, path) = package();
    let mut deep = path.join("Data");
    for _ in 0..40 {
        deep.push("d");
    }
    fs::create_dir_all(deep).unwrap();
    assert_error!(
        Package::open(&path).unwrap_err(),
        Error::Package(PackageError::TooMany { limit: 32, .. })
    );
}

#[test]
fn manifests_that_are_no_json() {
    for text in ["", "{", "{\"a\": 1,}", "\u{feff}{}", &"[".repeat(100_000)] {
        assert_error!(
            with_manifest(|_| text.to_owned()),
            Error::Package(PackageError::ManifestSyntax { .. })
        );
    }
}

#[test]
fn manifest_fields_missing_or_of_the_wrong_kind() {
    let change = |from: &'static str, to: &'static str| {
        with_manifest(move |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
    };
    assert_error!(with_manifest(|_| "[1]".to_owned()), Error::Package(PackageError::ManifestField { found, .. }) if found == "an array");
    for (from, to, field, found) in [
        (
            "\"fileFormatVersion\"",
            "\"x\"",
            "fileFormatVersion",
            "missing",
        ),
        ("\"1.0.0\"", "1", "fileFormatVersion", "a number"),
        (
            "\"itemInfoEntries\": {",
            "\"itemInfoEntries\": null, \"x\": {",
            "itemInfoEntries",
            "null",
        ),
        (
            "\"rootModelIdentifier\": ",
            "\"rootModelIdentifier\": \"nobody\", \"x\": ",
            "rootModelIdentifier",
            "\"nobody\"",
        ),
        (
            "\"rootModelIdentifier\"",
            "\"x\"",
            "rootModelIdentifier",
            "missing",
        ),
        (
            "\"com.apple.CoreML/weights\"",
            "[]",
            "itemInfoEntries",
            "an array",
        ),
        (
            "\"com.apple.CoreML/weights\"",
            "true",
            "itemInfoEntries",
            "a boolean",
        ),
    ] {
        assert_error!(change(from, to), Error::Package(PackageError::ManifestField { field: f, found: w, .. }) if f.starts_with(field) && w == found);
    }
    let whole_entry =
        with_manifest(|text| text.replace(&format!("\"{WEIGHTS_ID}\": {{"), "\"a\": 7, \"b\": {"));
    assert_error!(whole_entry, Error::Package(PackageError::ManifestField { found, .. }) if found == "missing");
}

#[test]
fn a_manifest_of_another_version() {
    let error = with_manifest(|text| text.replace("1.0.0", "2.0.0"));
    assert_error!(error, Error::Package(PackageError::ManifestVersion { found, .. }) if found == "2.0.0");
}

#[test]
fn manifest_paths_out_of_the_package() {
    for bad in [
        "../../secret",
        "/etc/passwd",
        "a/../../b",
        "C:/secret",
        "..\\\\secret",
        "",
    ] {
        let error = with_manifest(|text| text.replace("com.apple.CoreML/weights", bad));
        assert_error!(error, Error::Package(PackageError::UnsafePath { .. }));
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_the_package() {
    let (folder, path) = package();
    let outside = folder.path().join("outside.bin");
    fs::rename(weight_file(&path), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, weight_file(&path)).unwrap();
    assert_error!(Package::open(&path).unwrap_err(), Error::Package(PackageError::UnsafePath { reason, .. }) if reason.contains("link"));

    // A link that stays inside is as good as a file.
    fs::remove_file(weight_file(&path)).unwrap();
    fs::rename(&outside, path.join("Data/elsewhere.bin")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere.bin", weight_file(&path)).unwrap();
    Package::open(&path).unwrap();
}

#[test]
fn an_item_that_is_not_there() {
    let (_folder, path) = package();
    fs::remove_file(model_file(&path)).unwrap();
    assert_error!(Package::open(&path).unwrap_err(), Error::Package(PackageError::MissingItem { item, .. }) if item.ends_with("model.mlmodel"));
}

#[test]
fn models_that_are_no_protobuf() {
    let parts = linear_model();
    let truncated = &parts.model[..parts.model.len() - 1];
    let huge_length = [0xb2, 0x1f, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for bytes in [truncated, &huge_length, b"PK\x03\x04 a zip file"] {
        let error = Package::from_parts(bytes, parts.weights.clone()).unwrap_err();
        assert_error!(error, Error::Package(PackageError::Protobuf { .. }));
    }
}

#[test]
fn a_program_nested_without_end() {
    // A pipeline of a pipeline of …: 100,000 levels would overflow the stack of a careless reader.
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        let mut pipeline = Vec::new();
        prost::encoding::bytes::encode(1, &bytes, &mut pipeline);
        bytes.clear();
        prost::encoding::bytes::encode(202, &pipeline, &mut bytes);
    }
    assert_error!(
        Package::from_parts(&bytes, Default::default()).unwrap_err(),
        Error::Package(PackageError::Protobuf { .. })
    );
}

#[test]
fn an_empty_model() {
    assert_error!(
        Package::from_parts(&[], Default::default()).unwrap_err(),
        Error::Package(PackageError::EmptyModel { .. })
    );
}

#[test]
fn models_of_another_type() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.mlmodel");
    // Specification version 4, and an empty neuralNetwork (field 500).
    fs::write(&path, [0x08, 4, 0xa2, 0x1f, 0]).unwrap();
    assert_error!(Package::open(&path).unwrap_err(), Error::Package(PackageError::NotAnMlProgram { kind, advice, .. }) if kind == "neuralNetwork" && advice.contains("mlprogram"));

    let network = Model::decode(fs::read(&path).unwrap().as_slice()).unwrap();
    let pipeline = Model {
        pipeline: Some(Pipeline {
            models: vec![network],
            ..Default::default()
        }),
        ..Default::default()
    };
    let error = Package::from_parts(&pipeline.encode_to_vec(), Default::default()).unwrap_err();
    assert_error!(error, Error::Package(PackageError::NotAnMlProgram { kind, .. }) if kind == "pipeline (neuralNetwork)");
}

/// A model whose weight is in a file of this name.
fn refers_to(name: &str) -> Parts {
    let (mut model, weights) = Builder::new("CoreML7")
        .weight("w", &[4], &values(4))
        .message();
    let program = model.ml_program.as_mut().unwrap();
    let function = program.functions.get_mut("main").unwrap();
    let block = function.block_specializations.get_mut("CoreML7").unwrap();
    let value = block.operations[0].attributes.get_mut("val").unwrap();
    value.blob_file.as_mut().unwrap().file_name = name.to_owned();
    Parts {
        model: model.encode_to_vec(),
        weights: [(WEIGHTS.to_owned(), weights)].into(),
    }
}

#[test]
fn weight_files_named_badly() {
    let folder = TempDir::new().unwrap();
    for (at, bad) in [
        "weight.bin",
        "@model_path/../../../x",
        "@model_path//etc/passwd",
        "@model_path/",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let parts = refers_to(bad);
        let error = Package::from_parts(&parts.model, parts.weights.clone()).unwrap_err();
        assert_error!(error, Error::Package(PackageError::WeightFileName { found, .. }) if found == bad);
        let path = parts.write(&folder.path().join(at.to_string()));
        assert_error!(
            Package::open(&path).unwrap_err(),
            Error::Package(PackageError::WeightFileName { .. })
        );
        let (package, _) = linear_model().open();
        assert_error!(
            package.weight_file(bad).unwrap_err(),
            Error::Package(PackageError::WeightFileName { .. })
        );
        let file = package.weight_file(WEIGHTS).unwrap().clone();
        let error = package
            .with_weight_files([(bad.to_owned(), file)])
            .unwrap_err();
        assert_error!(error, Error::Package(PackageError::WeightFileName { .. }));
    }
}

#[test]
fn a_weight_file_that_is_missing() {
    let (_folder, path) = package();
    fs::remove_file(weight_file(&path)).unwrap();
    assert_error!(Package::open(&path).unwrap_err(), Error::Package(PackageError::MissingWeightFile { name, .. }) if name == WEIGHTS);

    // A bare model has no weights beside it.
    assert_error!(
        Package::open(model_file(&path)).unwrap_err(),
        Error::Package(PackageError::MissingWeightFile { .. })
    );
    let other = "@model_path/weights/other.bin";
    let error = Package::from_parts(&refers_to(other).model, Default::default()).unwrap_err();
    assert_error!(
        error,
        Error::Package(PackageError::MissingWeightFile { .. })
    );
    let (package, _) = linear_model().open();
    assert_error!(
        package.weight_file(other).unwrap_err(),
        Error::Package(PackageError::MissingWeightFile { .. })
    );
}

#[test]
fn every_error_names_its_file() {
    let folder = TempDir::new().unwrap();
    let parts = Builder::new("CoreML7")
        .blob_at("w", DataType::Float16, &[4], 1 << 33)
        .build();
    let path = parts.write(&folder.path().join("M.mlpackage"));
    let (package, _) = Package::open(&path).unwrap();
    let error = package
        .weight_file(WEIGHTS)
        .unwrap()
        .blob(1 << 33)
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("weight.bin") && message.contains("8589934592"),
        "{message}"
    );
}
