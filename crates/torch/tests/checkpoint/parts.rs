//! A checkpoint palettized in parts.

use crate::support::{Scratch, compress, config, kmeans, tensors, weight};
use palettizer_coreml::config::OptimizationConfig;
use palettizer_palette::{Mode, Nbits, PaletteSpec};
use palettizer_torch::{Checkpoint, Error};

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
                .compress_part(names, config, &path, false, &())
                .unwrap();
            parts.push(path);
        }
        let out = scratch.path(&format!("out-{number}.safetensors"));
        let assembled = checkpoint
            .assemble(config, &parts, &out, false, &())
            .unwrap();
        assert_eq!(assembled, outcome);
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
            .compress_part(&names, config, &path, false, &())
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
        .compress_part(&names[..1], &four, &few, false, &())
        .unwrap();
    let table = [
        (&three, "\"conv.weight\" was palettized otherwise"),
        (&changed, "\"fc1.weight\" was made of another weight"),
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
            .assemble(&four, &[path], &out, false, &())
            .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let skipping = four.clone().with_op_name("fc1.*", None);
    let error = checkpoint
        .assemble(&skipping, &[&good], &out, false, &())
        .unwrap_err();
    assert!(matches!(error, Error::Part { .. }), "{error}");
    for (name, reason) in [
        ("fc1.bias", "one-dimensional"),
        ("none", "the checkpoint has no such tensor"),
    ] {
        let error = checkpoint
            .compress_part(&[name], &four, &out, false, &())
            .unwrap_err();
        assert!(error.to_string().ends_with(reason), "{error}");
    }
    assert!(!out.exists());
    checkpoint
        .assemble(&four, &[&good, &few], &out, false, &())
        .unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&whole).unwrap());
}
