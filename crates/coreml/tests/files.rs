//! Packages: opened, saved, and equal.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use palettizer_coreml::Error;
use palettizer_coreml::blob::WeightFile;
use palettizer_coreml::package::Package;
use palettizer_coreml::package::PackageError;
use palettizer_coreml::package::StagedPackage;
use palettizer_coreml::proto::{DataType, Model, Pipeline};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::staged_output::SaveOptions;
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Parts, WEIGHTS, conv_model, linear_model};
use tempfile::TempDir;

/// Every file of a folder, by its path in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// What is in a folder: nothing may be left there but what belongs there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn save(package: &Package, model: &Model, out: &Path) {
    let staging = StagedPackage::new(out, SaveOptions::overwriting(false)).unwrap();
    staging.commit(package, model).unwrap();
}

#[test]
fn saved_unchanged_it_is_unchanged() {
    let folder = TempDir::new().unwrap();
    let path = conv_model("CoreML8", 3, 16).write(&folder.path().join("in.mlpackage"));
    fs::create_dir_all(path.join("Data/com.example/empty")).unwrap();
    fs::write(path.join("Data/com.example/notes.txt"), "kept").unwrap();
    fs::write(path.join("stray"), "kept too").unwrap();
    let before = contents(&path);

    let (package, model) = Package::open(&path).unwrap();
    let out = folder.path().join("out.mlpackage");
    save(&package, &model, &out);

    assert_eq!(contents(&path), before, "the input");
    assert_eq!(contents(&out), before, "the output");
    assert!(out.join("Data/com.example/empty").is_dir());
    assert_eq!(Package::open(&out).unwrap().1, model);
    assert_eq!(names(folder.path()), ["in.mlpackage", "out.mlpackage"]);
}

#[test]
fn a_package_in_memory_gets_a_manifest() {
    let folder = TempDir::new().unwrap();
    let parts = linear_model();
    let (package, model) = parts.open();
    assert_eq!(
        package.stored_len(),
        (parts.model.len() + parts.weights[WEIGHTS].len()) as u64
    );
    let out = folder.path().join("out.mlpackage");
    save(&package, &model, &out);
    let files = contents(&out);
    assert_eq!(files.len(), 3);
    let data = Path::new("Data/com.apple.CoreML");
    assert_eq!(files[&data.join("model.mlmodel")], parts.model);
    assert_eq!(
        files[&data.join("weights/weight.bin")],
        parts.weights[WEIGHTS]
    );
    let (again, model_again) = Package::open(&out).unwrap();
    assert_eq!(model_again, model);
    assert_eq!(again.stored_len(), package.stored_len());

    // Equal content, equal bytes: no clock, no dice.
    let twin = folder.path().join("twin.mlpackage");
    save(&package, &model, &twin);
    assert_eq!(contents(&twin), files);
}

#[test]
fn a_bare_model_becomes_a_package() {
    let folder = TempDir::new().unwrap();
    let bare = folder.path().join("m.mlmodel");
    let (model, _) = support::Builder::new("CoreML6")
        .input("x", &[1])
        .output("x")
        .message();
    fs::write(&bare, model.encode_to_vec()).unwrap();
    let (package, model) = Package::open(&bare).unwrap();
    let out = folder.path().join("out.mlpackage");
    save(&package, &model, &out);
    assert_eq!(contents(&out).len(), 2);
    assert_eq!(Package::open(&out).unwrap().1, model);
}

#[test]
fn a_weight_file_is_written_anew() {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("in.mlpackage"));
    let (package, model) = Package::open(&path).unwrap();
    let out = folder.path().join("out.mlpackage");
    let mut staging = StagedPackage::new(&out, SaveOptions::overwriting(false)).unwrap();
    let mut writer = staging.create_weight_file(WEIGHTS).unwrap();
    let offset = writer.append(DataType::UInt8, &[1, 2, 3], 0).unwrap();
    writer.finish().unwrap();
    staging.commit(&package, &model).unwrap();

    let (written, _) = Package::open(&out).unwrap();
    let blob = written.weight_file(WEIGHTS).unwrap().blob(offset).unwrap();
    assert_eq!(blob.data, [1, 2, 3]);
    // The rest is as it was.
    let (mut old, mut new) = (contents(&path), contents(&out));
    let weights = Path::new("Data/com.apple.CoreML/weights/weight.bin");
    assert_ne!(old.remove(weights), new.remove(weights));
    assert_eq!(old, new);
}

#[test]
fn weights_that_the_manifest_does_not_list_are_added_to_it() {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("in.mlpackage"));
    let (package, model) = Package::open(&path).unwrap();
    let file = package.weight_file(WEIGHTS).unwrap().clone();
    let package = package
        .with_weight_files([("@model_path/more/a.bin".to_owned(), file)])
        .unwrap();
    let out = folder.path().join("out.mlpackage");
    save(&package, &model, &out);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("Manifest.json")).unwrap()).unwrap();
    let items = manifest["itemInfoEntries"].as_object().unwrap();
    let paths: Vec<_> = items
        .values()
        .map(|item| item["path"].as_str().unwrap())
        .collect();
    assert_eq!(items.len(), 3);
    assert!(paths.contains(&"com.apple.CoreML/more"), "{paths:?}");
    assert_eq!(manifest["unknownKey"][1], 2.5);
    Package::open(&out).unwrap();
}

#[test]
fn a_pipelines_members_have_weight_files_of_their_own() {
    let folder = TempDir::new().unwrap();
    let names = [
        "@model_path/weights/0-weight.bin",
        "@model_path/weights/1-weight.bin",
    ];
    let mut weights = BTreeMap::new();
    let mut models = Vec::new();
    for (name, outputs) in names.iter().zip([4, 8]) {
        let Parts {
            model,
            weights: files,
        } = conv_model("CoreML7", 3, outputs);
        // What `coremltools.utils.make_pipeline` does: rename in the program, and the file.
        let mut model = Model::decode(model.as_slice()).unwrap();
        let program = model.ml_program.as_mut().unwrap();
        let function = program.functions.get_mut("main").unwrap();
        for operation in &mut function
            .block_specializations
            .get_mut("CoreML7")
            .unwrap()
            .operations
        {
            for value in operation.attributes.values_mut() {
                if let Some(blob) = &mut value.blob_file {
                    (*name).clone_into(&mut blob.file_name);
                }
            }
        }
        models.push(model);
        weights.insert((*name).to_owned(), files[WEIGHTS].clone());
    }
    // A member that we know nothing about: a scaler (field 604).
    models.push(Model::decode([0x08, 4, 0xe2, 0x25, 2, 0x0a, 0].as_slice()).unwrap());
    let pipeline = Model {
        specification_version: 8,
        pipeline: Some(Pipeline {
            models,
            ..Default::default()
        }),
        ..Default::default()
    };
    let parts = Parts {
        model: pipeline.encode_to_vec(),
        weights,
    };
    let path = parts.write(&folder.path().join("in.mlpackage"));
    let (package, model) = Package::open(&path).unwrap();
    assert_eq!(package.weight_file_names().collect::<Vec<_>>(), names);
    let out = folder.path().join("out.mlpackage");
    save(&package, &model, &out);
    assert_eq!(contents(&path), contents(&out));
}

#[test]
fn an_output_may_be_its_own_input() {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("m.mlpackage"));
    fs::write(path.join("Data/stray"), "kept").unwrap();
    let before = contents(&path);
    let (package, model) = Package::open(&path).unwrap();
    StagedPackage::new(&path, SaveOptions::overwriting(true))
        .unwrap()
        .commit(&package, &model)
        .unwrap();
    assert_eq!(contents(&path), before);
    assert_eq!(names(folder.path()), ["m.mlpackage"]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("real.mlpackage"));
    let link = folder.path().join("link.mlpackage");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (package, model) = conv_model("CoreML8", 2, 2).open();
    StagedPackage::new(&link, SaveOptions::overwriting(true))
        .unwrap()
        .commit(&package, &model)
        .unwrap();
    assert!(link.is_symlink() && !path.is_symlink());
    assert_eq!(Package::open(&path).unwrap().1, model);
}

#[test]
fn a_weight_file_is_read_again_after_its_release() {
    let folder = TempDir::new().unwrap();
    let parts = linear_model();
    let path = folder.path().join("weight.bin");
    fs::write(&path, &parts.weights[WEIGHTS]).unwrap();
    let file = WeightFile::open(&path).unwrap();
    let (package, _) = parts.open();
    let package = package
        .with_weight_files([(WEIGHTS.to_owned(), file)])
        .unwrap();
    let file = package.weight_file(WEIGHTS).unwrap();
    assert_eq!(file.bytes(), parts.weights[WEIGHTS]);
    file.release(0..u64::MAX);
    assert_eq!(file.bytes(), parts.weights[WEIGHTS]);
}

#[test]
fn nothing_is_replaced_unasked() {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("m.mlpackage"));
    let error = StagedPackage::new(&path, SaveOptions::overwriting(false)).unwrap_err();
    assert!(
        matches!(&error, Error::Pipeline(PipelineError::Exists { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("--force"));

    // It came to be while we worked.
    let late = folder.path().join("late.mlpackage");
    let staging = StagedPackage::new(&late, SaveOptions::overwriting(false)).unwrap();
    fs::create_dir(&late).unwrap();
    let (package, model) = linear_model().open();
    let error = staging.commit(&package, &model).unwrap_err();
    assert!(
        matches!(&error, Error::Pipeline(PipelineError::Exists { .. })),
        "{error:?}"
    );
    assert_eq!(names(folder.path()), ["late.mlpackage", "m.mlpackage"]);
}

#[test]
fn an_output_has_a_packages_name() {
    let folder = TempDir::new().unwrap();
    for name in [
        "m",
        "m.mlmodel",
        "m.mlpackage.zip",
        ".mlpackage",
        "m.MLPACKAGE",
    ] {
        let error = StagedPackage::new(&folder.path().join(name), SaveOptions::overwriting(true))
            .unwrap_err();
        assert!(
            matches!(&error, Error::Package(PackageError::OutputName { .. })),
            "{name}: {error:?}"
        );
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn places_where_nothing_can_be_written() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    let package = linear_model().write(&here.join("m.mlpackage"));
    fs::write(here.join("file"), "").unwrap();
    fs::create_dir(here.join("mine.mlpackage")).unwrap();
    fs::write(here.join("mine.mlpackage/photo"), "").unwrap();
    let mut places = vec![
        (here.join("missing/m.mlpackage"), "does not exist"),
        (here.join("file/m.mlpackage"), "not a folder"),
        (package.join("Data/m.mlpackage"), "inside the package"),
        (here.join("mine.mlpackage"), "other than a package"),
    ];
    if cfg!(target_os = "linux") {
        // Root may write anywhere else.
        places.push((
            "/proc/m.mlpackage".into(),
            "nothing can be written in /proc",
        ));
    }
    let before = contents(here);
    for (place, why) in places {
        let error = StagedPackage::new(&place, SaveOptions::overwriting(true)).unwrap_err();
        assert!(
            matches!(&error, Error::Pipeline(PipelineError::OutputPlace { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(contents(here), before);
}

#[test]
fn the_folder_around_the_input_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let outer = linear_model().write(&folder.path().join("outer.mlpackage"));
    let inner = linear_model().write(&outer.join("Data/inner.mlpackage"));
    let before = contents(&outer);
    let (package, model) = Package::open(&inner).unwrap();
    let error = StagedPackage::new(&outer, SaveOptions::overwriting(true))
        .unwrap()
        .commit(&package, &model)
        .unwrap_err();
    assert!(error.to_string().contains("holds the input"), "{error}");
    assert_eq!(contents(&outer), before);
    assert_eq!(names(folder.path()), ["outer.mlpackage"]);
}

#[test]
fn a_save_that_fails_leaves_what_was_there() {
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("m.mlpackage"));
    fs::write(path.join("Data/stray"), "kept").unwrap();
    let (package, model) = Package::open(&path).unwrap();
    fs::remove_file(path.join("Data/stray")).unwrap();
    let before = contents(&path);
    let error = StagedPackage::new(&path, SaveOptions::overwriting(true))
        .unwrap()
        .commit(&package, &model)
        .unwrap_err();
    assert!(
        matches!(&error, Error::Pipeline(PipelineError::Io { .. })),
        "{error:?}"
    );
    assert_eq!(contents(&path), before);
    assert_eq!(names(folder.path()), ["m.mlpackage"]);
    drop(
        StagedPackage::new(
            &folder.path().join("dropped.mlpackage"),
            SaveOptions::overwriting(false),
        )
        .unwrap(),
    );
    assert_eq!(names(folder.path()), ["m.mlpackage"]);
}
