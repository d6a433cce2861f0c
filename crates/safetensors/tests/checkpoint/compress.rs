//! What becomes of which tensor, and what the files are.

use crate::support::{Scratch, compress, config, dense, fates, file, kmeans, tensors, weight};
use palettizer_palette::{Granularity, Mode, Nbits, PaletteSpec};
use palettizer_pipeline::config::Target;
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{Error as ModelError, Progress};
use palettizer_safetensors::{Checkpoint, Content, Error};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn every_tensor_ends_in_the_report() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    let grouped = |group_size| {
        let granularity = Granularity::PerGroupedChannel {
            group_size,
            channel_axis: None,
        };
        OpPalettizerConfig::new(spec.clone().with_granularity(granularity))
    };
    let config = kmeans(Nbits::B4)
        .with_op_name("fc2.*", None)
        .with_op_name("conv.*", grouped(3))
        .with_op_name("nothing.*", None);
    let outcome = compress(&checkpoint, &config, &scratch.path("out.safetensors")).unwrap();
    assert_eq!(
        fates(&outcome),
        [
            ("fc1.weight", "compressed"),
            ("fc1.bias", "one-dimensional"),
            ("fc2.weight", "the configuration skips it"),
            (
                "conv.weight",
                "group_size 3 does not divide the 16 channels of axis 0"
            ),
            (
                "steps",
                "int64 is no type of a weight: expected fp16, bf16 or fp32"
            ),
            (
                "small",
                "no more elements than the weight_threshold of 2048"
            ),
        ]
    );
    let unmatched: Vec<&str> = outcome.unmatched.iter().map(String::as_str).collect();
    assert_eq!(unmatched, ["nothing.*"]);
    let row = &outcome.weights[0];
    assert_eq!(
        (
            row.figures().map(|figures| figures.nbits),
            row.figures().map(|figures| figures.luts)
        ),
        (Some(4), Some(1))
    );
    assert_eq!(row.bytes_before, 64 * 48 * 4);
    assert_eq!(row.bytes_after(), 64 * 48 / 2 + 16 * 4);
    let none = OptimizationConfig::new().with_op_name("fc1.weight", grouped(4));
    let outcome = compress(&checkpoint, &none, &scratch.path("other.safetensors")).unwrap();
    assert_eq!(fates(&outcome)[2].1, "no configuration applies to it");
    assert_eq!(
        outcome.weights[0].figures().map(|figures| figures.luts),
        Some(16)
    );
}

#[test]
fn what_values_refuse_is_a_skip() {
    let scratch = Scratch::new();
    let mut nan = weight("nan.weight", "F32", &[64, 64], 1);
    nan.3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let checkpoint = scratch.checkpoint(&[nan, weight("fc.weight", "F32", &[64, 64], 2)]);
    let out = scratch.path("out.safetensors");
    let outcome = compress(&checkpoint, &kmeans(Nbits::B2), &out).unwrap();
    let skipped = "1 of 4096 values are NaN or infinite";
    assert_eq!(
        fates(&outcome),
        [("nan.weight", skipped), ("fc.weight", "compressed")]
    );
    let small = Checkpoint::open(&out).unwrap();
    assert_eq!(
        dense(&small, "nan.weight"),
        dense(&checkpoint, "nan.weight")
    );

    let strict = kmeans(Nbits::B2).with_strict(true);
    let error = compress(&checkpoint, &strict, &scratch.path("strict.safetensors")).unwrap_err();
    assert!(
        matches!(&error, Error::Pipeline(ModelError::Strict { skipped }) if skipped.len() == 1)
    );
    let unique = config(PaletteSpec::new(Mode::Unique)).with_strict(true);
    let error = compress(&checkpoint, &unique, &scratch.path("strict.safetensors")).unwrap_err();
    assert!(
        error.to_string().contains("more than 256 distinct values"),
        "{error}"
    );
    assert_eq!(scratch.names(), ["in.safetensors", "out.safetensors"]);
}

#[test]
fn a_palettized_checkpoint_can_be_palettized_further() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let first = kmeans(Nbits::B4).with_op_name("fc2.weight", None);
    compress(&checkpoint, &first, &scratch.path("first.safetensors")).unwrap();
    let first = Checkpoint::open(scratch.path("first.safetensors")).unwrap();
    let outcome = compress(
        &first,
        &kmeans(Nbits::B2),
        &scratch.path("second.safetensors"),
    );
    let outcome = outcome.unwrap();
    let fates = fates(&outcome);
    assert!(
        fates.contains(&("fc1.weight", "already palettized (4 bits)")),
        "{fates:?}"
    );
    assert!(fates.contains(&("fc2.weight", "compressed")), "{fates:?}");
    let second = Checkpoint::open(scratch.path("second.safetensors")).unwrap();
    assert_eq!(
        second.get("fc1.weight").unwrap(),
        first.get("fc1.weight").unwrap()
    );
    assert!(
        matches!(second.get("fc2.weight").unwrap(), Content::Palette(p) if p.nbits == Nbits::B2)
    );
}

#[test]
fn strings_of_others_stay() {
    let scratch = Scratch::new();
    let strings = [("format", "pt"), ("note", "a \"quoted\" ü")];
    scratch.write("in.safetensors", file(&tensors(), &strings));
    let checkpoint = Checkpoint::open(scratch.path("in.safetensors")).unwrap();
    compress(
        &checkpoint,
        &kmeans(Nbits::B4),
        &scratch.path("out.safetensors"),
    )
    .unwrap();
    let small = Checkpoint::open(scratch.path("out.safetensors")).unwrap();
    assert_eq!(small.metadata(), checkpoint.metadata());
    assert_eq!(small.metadata().len(), 2);
}

#[test]
fn what_only_programs_have_is_an_error() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let table = [
        (
            kmeans(Nbits::B4).with_op_type("linear", None),
            "op type \"linear\"",
        ),
        (
            kmeans(Nbits::B4).with_joint_compression(true),
            "joint compression",
        ),
        (
            kmeans(Nbits::B4).with_minimum_deployment_target(Target::IOS18),
            "a minimum deployment target",
        ),
    ];
    for (config, what) in table {
        let error = compress(&checkpoint, &config, &scratch.path("out.safetensors")).unwrap_err();
        assert!(
            matches!(&error, Error::Unsuited { what: found, .. } if found == what),
            "{error}"
        );
    }
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    let scratch = Scratch::new();
    let taken = weight("fc1.weight.palette.lut", "F32", &[2], 9);
    let checkpoint = scratch.checkpoint(&[tensors()[0].clone(), taken]);
    let out = scratch.path("out.safetensors");
    let error = compress(&checkpoint, &kmeans(Nbits::B4), &out).unwrap_err();
    assert!(
        matches!(&error, Error::NameTaken { weight, .. } if weight == "fc1.weight"),
        "{error}"
    );
    let skipped = kmeans(Nbits::B4).with_op_name("fc1.weight", None);
    compress(&checkpoint, &skipped, &out).unwrap();
}

#[test]
fn the_output_goes_where_it_can() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    scratch.write("there.safetensors", "precious");
    scratch.write("folder.safetensors/note", "precious");
    let table = [
        (
            "out.mlpackage",
            false,
            "expected a name that ends in .safetensors",
        ),
        ("out", false, "expected a name that ends in .safetensors"),
        ("there.safetensors", false, "exists already"),
        ("folder.safetensors", true, "this is a folder"),
        (
            "none/out.safetensors",
            false,
            "does not exist; create it first",
        ),
        (
            "there.safetensors/out.safetensors",
            false,
            "is not a folder",
        ),
    ];
    for (name, overwrite, message) in table {
        let out = scratch.path(name);
        let compressed = checkpoint.palettize_to(
            &kmeans(Nbits::B4),
            &out,
            SaveOptions::overwriting(overwrite),
            &(),
        );
        let error = compressed.unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
        let error = checkpoint
            .decompress_to(&out, SaveOptions::overwriting(overwrite), &())
            .unwrap_err();
        assert!(error.to_string().contains(message), "{name}: {error}");
    }
    assert_eq!(scratch.read("there.safetensors"), b"precious");

    // It may take the place of another file, and of its own input.
    let config = kmeans(Nbits::B4);
    compress(&checkpoint, &config, &scratch.path("out.safetensors")).unwrap();
    for name in ["there.safetensors", "in.safetensors"] {
        checkpoint
            .palettize_to(
                &config,
                scratch.path(name),
                SaveOptions::overwriting(true),
                &(),
            )
            .unwrap();
        assert_eq!(scratch.read(name), scratch.read("out.safetensors"));
    }
    let left = [
        "folder.safetensors",
        "in.safetensors",
        "out.safetensors",
        "there.safetensors",
    ];
    assert_eq!(scratch.names(), left);
}

#[test]
fn work_that_is_not_wanted_ends_and_leaves_nothing() {
    struct Stop(AtomicBool);
    impl Progress for Stop {
        fn start(&self, _weights: usize, _bytes: u64) {
            self.0.store(true, Ordering::Relaxed);
        }
        fn stop(&self) -> Option<&AtomicBool> {
            Some(&self.0)
        }
    }
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let out = scratch.path("out.safetensors");
    let stop = Stop(AtomicBool::new(false));
    let error = checkpoint
        .palettize_to(
            &kmeans(Nbits::B4),
            &out,
            SaveOptions::overwriting(false),
            &stop,
        )
        .unwrap_err();
    assert!(matches!(error, Error::Pipeline(ModelError::Stopped)));
    let error = checkpoint
        .decompress_to(&out, SaveOptions::overwriting(false), &stop)
        .unwrap_err();
    assert!(matches!(error, Error::Pipeline(ModelError::Stopped)));
    assert_eq!(scratch.names(), ["in.safetensors"]);
}

#[test]
fn an_inspection_sees_palettes() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
        .with_granularity(Granularity::PerGroupedChannel {
            group_size: 8,
            channel_axis: None,
        })
        .with_cluster_dim(2)
        .with_lut_dtype(palettizer_palette::LutDtype::Int8);
    compress(&checkpoint, &config(spec), &scratch.path("out.safetensors")).unwrap();
    let small = Checkpoint::open(scratch.path("out.safetensors")).unwrap();
    let infos = small.weights(0).unwrap();
    let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names.len(), tensors().len());
    for info in &infos {
        let palette = info.palette.as_ref();
        match info.name.as_str() {
            "fc1.weight" => {
                let palette = palette.unwrap();
                let found = (palette.nbits, palette.luts, palette.cluster_dim);
                assert_eq!(found, (3, 8, 2));
                assert_eq!(palette.lut_dtype, "int8");
                assert_eq!(
                    (info.dtype.as_str(), info.shape.as_slice()),
                    ("fp32", &[64, 48][..])
                );
                assert_eq!(info.bytes, 64 * 24 * 3 / 8 + 8 * 16 + 8 * 4);
                assert!(info.unique_values.unwrap() <= 8 * 16);
            }
            "steps" => assert_eq!((palette, info.sparsity), (None, None)),
            "small" => assert_eq!((palette, info.unique_values), (None, Some(16))),
            _ => {}
        }
    }
    assert_eq!(small.weights(2048).unwrap().len(), 3);
}
