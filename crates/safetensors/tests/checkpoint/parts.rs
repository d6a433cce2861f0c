//! A checkpoint palettized in parts.

use crate::support::{Scratch, compress, config, kmeans, tensors, weight};
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec, Precision};
use palettizer_pipeline::Report;
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{MissingSensitivity, Sensitivities};
use palettizer_safetensors::{
    Checkpoint, Content, DenseTensor, ElementType, Error, SafetensorsSensitivities,
};
use std::sync::Arc;

#[test]
fn parts_come_to_the_same_bytes_as_one_run() {
    let scratch = Scratch::new();
    let mut all = tensors();
    let mut nan = weight("nan.weight", "F32", &[64, 64], 1);
    nan.3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    all.push(nan);
    let checkpoint = scratch.checkpoint(&all);
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3)).with_per_channel_scale(true);
    for (number, config) in [kmeans(Nbits::B4), config(spec)].iter().enumerate() {
        let whole = scratch.path(&format!("whole-{number}.safetensors"));
        let outcome = compress(&checkpoint, config, &whole).unwrap();
        let jobs = checkpoint.jobs(config).unwrap();
        let names: Vec<&str> = jobs.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["fc1.weight", "fc2.weight", "conv.weight", "nan.weight"]
        );
        assert_eq!(jobs[0].1, 64 * 48 * 4);
        let mut parts = Vec::new();
        for (part, names) in [&names[2..], &names[..1], &names[1..2]].iter().enumerate() {
            let path = scratch.path(&format!("part-{number}-{part}.safetensors"));
            checkpoint
                .palettize_part(names, config, &path, SaveOptions::overwriting(false), &())
                .unwrap();
            parts.push(path);
        }
        let out = scratch.path(&format!("out-{number}.safetensors"));
        let assembled = checkpoint
            .assemble(config, &parts, &out, SaveOptions::overwriting(false), &())
            .unwrap();
        let bytes = |report: &Report| (report.bytes_before, report.bytes_after);
        assert_eq!(bytes(&assembled), bytes(&outcome));
        assert_eq!(assembled.weights, outcome.weights);
        assert_eq!(assembled.unmatched, outcome.unmatched);
        assert_eq!(std::fs::read(out).unwrap(), std::fs::read(whole).unwrap());
        // A part is a checkpoint of its own.
        let part = Checkpoint::open(&parts[2]).unwrap();
        assert_eq!(part.names(), ["fc2.weight"]);
    }
}

#[test]
fn parts_of_something_else_are_refused() {
    let scratch = Scratch::new();
    let all = tensors();
    let checkpoint = scratch.checkpoint(&all);
    let four = kmeans(Nbits::B4);
    let names = ["fc1.weight", "fc2.weight", "conv.weight"];
    let whole = scratch.path("whole.safetensors");
    compress(&checkpoint, &four, &whole).unwrap();
    let part = |checkpoint: &Checkpoint, name: &str, config: &OptimizationConfig| {
        let path = scratch.path(name);
        checkpoint
            .palettize_part(&names, config, &path, SaveOptions::overwriting(false), &())
            .unwrap();
        path
    };
    let good = part(&checkpoint, "good.safetensors", &four);
    let three = part(&checkpoint, "three.safetensors", &kmeans(Nbits::B3));
    let mut changed = all.clone();
    changed[0].3[0] ^= 1;
    let other = Scratch::new();
    let changed = part(&other.checkpoint(&changed), "changed.safetensors", &four);
    let cut = scratch.path("cut.safetensors");
    let bytes = std::fs::read(&good).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let few = scratch.path("few.safetensors");
    checkpoint
        .palettize_part(
            &names[..1],
            &four,
            &few,
            SaveOptions::overwriting(false),
            &(),
        )
        .unwrap();
    let table = [
        (
            &three,
            "\"conv.weight\" was palettized with nbits 3, expected 4",
        ),
        (
            &changed,
            "\"fc1.weight\" was palettized from another weight",
        ),
        (&whole, "no part of a checkpoint"),
        (&cut, "truncated"),
        (
            &few,
            "2 of the weights to palettize are in no part, the first of them \"fc2.weight\"",
        ),
    ];
    let out = scratch.path("out.safetensors");
    for (path, message) in table {
        let error = checkpoint
            .assemble(&four, &[path], &out, SaveOptions::overwriting(false), &())
            .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let skipping = four.clone().with_op_name("fc1.*", None);
    let error = checkpoint
        .assemble(
            &skipping,
            &[&good],
            &out,
            SaveOptions::overwriting(false),
            &(),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Part { .. }), "{error}");
    for (name, reason) in [
        ("fc1.bias", "one-dimensional"),
        ("none", "the checkpoint has no such tensor"),
    ] {
        let error = checkpoint
            .palettize_part(&[name], &four, &out, SaveOptions::overwriting(false), &())
            .unwrap_err();
        assert!(error.to_string().ends_with(reason), "{error}");
    }
    assert!(!out.exists());
    checkpoint
        .assemble(
            &four,
            &[&good, &few],
            &out,
            SaveOptions::overwriting(false),
            &(),
        )
        .unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&whole).unwrap());
}

/// Whatever a palette depends on is in the part: each field of the spec, each byte of a weight, each sensitivity.
#[test]
fn a_part_made_from_anything_else_is_refused() {
    let scratch = Scratch::new();
    let all = tensors();
    let checkpoint = scratch.checkpoint(&all);
    let grouped = |group_size, channel_axis| Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    };
    let spec = || PaletteSpec::new(Mode::Kmeans(Nbits::B2)).with_granularity(grouped(4, Some(0)));
    let expected = config(spec());
    let out = scratch.path("out.safetensors");
    let refused = |checkpoint: &Checkpoint,
                   made: &OptimizationConfig,
                   expected: &OptimizationConfig,
                   how: &str| {
        let part = scratch.path("part.safetensors");
        checkpoint
            .palettize_part(
                &["fc2.weight"],
                made,
                &part,
                SaveOptions::overwriting(true),
                &(),
            )
            .unwrap();
        let assembled = Checkpoint::open(scratch.path("in.safetensors"))
            .unwrap()
            .assemble(
                expected,
                &[&part],
                &out,
                SaveOptions::overwriting(false),
                &(),
            );
        let error = assembled.unwrap_err().to_string();
        let wanted = format!("\"fc2.weight\" was palettized {how}");
        assert!(
            error.contains(&wanted) && error.ends_with("make this part again"),
            "{error}"
        );
    };
    let fields = [
        (
            spec().with_granularity(Granularity::PerTensor),
            "with channel_axis the output axis, expected 0, granularity per_tensor, expected per_grouped_channel",
        ),
        (
            spec().with_granularity(grouped(2, Some(0))),
            "with group_size 2, expected 4",
        ),
        (
            spec().with_granularity(grouped(4, Some(1))),
            "with channel_axis 1, expected 0",
        ),
        (spec().with_cluster_dim(2), "with cluster_dim 2, expected 1"),
        (
            spec().with_per_channel_scale(true),
            "with enable_per_channel_scale true",
        ),
        (
            spec().with_fold_scale(true),
            "with fold_scale true, expected false",
        ),
        (
            spec().with_half_scales(true),
            "with half_scales true, expected false",
        ),
        (
            spec().with_lut_dtype(LutDtype::Int8),
            "with lut_dtype int8, expected float",
        ),
        (
            spec().with_precision(Precision::Exact),
            "with exact true, expected false",
        ),
        (spec().with_seed(1), "with seed 1, expected 0"),
        (
            PaletteSpec::new(Mode::Uniform(Nbits::B2)).with_granularity(grouped(4, Some(0))),
            "with mode uniform, expected kmeans",
        ),
    ];
    for (spec, how) in fields {
        refused(&checkpoint, &config(spec), &expected, how);
    }
    let at = all
        .iter()
        .position(|tensor| tensor.0 == "fc2.weight")
        .unwrap();
    let len = all[at].3.len();
    for byte in [0, 1, 77, 4099, len / 2 + 3, len - 1] {
        let mut changed = all.clone();
        // The lowest bit of a mantissa, or any other that leaves it finite.
        changed[at].3[byte % len] ^= 1;
        let other = Scratch::new();
        refused(
            &other.checkpoint(&changed),
            &expected,
            &expected,
            "from another weight: ",
        );
    }

    let elements: usize = all[at].2.iter().product();
    let weighed = |change: usize, name: &str| {
        let mut values = vec![1.0_f32; elements];
        values[0] = 2.0;
        values[change] *= 0.5;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = scratch.path(name);
        let tensor = DenseTensor::new(ElementType::F32, all[at].2.to_vec(), &bytes);
        Checkpoint::write(
            &path,
            &[("fc2.weight", Content::Dense(tensor))],
            &Default::default(),
            SaveOptions::overwriting(false),
        )
        .unwrap();
        let source = Arc::new(SafetensorsSensitivities::open(&path).unwrap());
        expected
            .clone()
            .with_sensitivity(Sensitivities::new(source, MissingSensitivity::Ones))
    };
    let (one, other) = (
        weighed(elements - 1, "one.safetensors"),
        weighed(elements - 2, "other.safetensors"),
    );
    refused(&checkpoint, &other, &one, "with other sensitivities");
    refused(
        &checkpoint,
        &expected,
        &one,
        "without sensitivities, expected some",
    );
    refused(
        &checkpoint,
        &one,
        &expected,
        "with sensitivities, expected none",
    );
    assert!(!out.exists());
}
