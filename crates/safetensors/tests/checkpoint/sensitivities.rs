//! Sensitivities from a file weigh the clustering.

use crate::support::{Scratch, Tensor, compress, config, dense, file, kmeans, tensors, weight};
use palettizer_palette::{Mode, Nbits, PaletteSpec};
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::{MissingSensitivity, Sensitivities};
use palettizer_safetensors::{Checkpoint, SafetensorsSensitivities};
use std::path::Path;
use std::sync::Arc;

fn sensitivities(path: &Path, missing: MissingSensitivity) -> Sensitivities {
    let source = SafetensorsSensitivities::open(path).unwrap();
    Sensitivities::new(Arc::new(source), missing)
}

/// The square of each element of the weights: the larger it is, the more it matters.
fn squares() -> Vec<Tensor> {
    let square = |name: &str, shape: &[usize], seed| {
        let (name, _, shape, bytes) = weight(name, "F64", shape, seed);
        let values = bytes.chunks_exact(8);
        let values = values.map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()));
        let bytes = values.flat_map(|value| (value * value).to_le_bytes());
        (name, "F64", shape, bytes.collect())
    };
    vec![
        square("fc1.weight", &[64, 48], 1),
        square("fc2.weight", &[48, 64], 3),
        square("conv.weight", &[16, 8, 5, 5], 4),
    ]
}

/// Σ s (w − ŵ)² of fc1.weight.
fn cost(checkpoint: &Checkpoint, small: &Path) -> f64 {
    let numbers = |bytes: Vec<u8>| -> Vec<f64> {
        let values = bytes.chunks_exact(4);
        let values = values.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        values.map(f64::from).collect()
    };
    let before = numbers(dense(checkpoint, "fc1.weight"));
    let after = numbers(dense(&Checkpoint::open(small).unwrap(), "fc1.weight"));
    let weights = &squares()[0].3;
    let weights = weights
        .chunks_exact(8)
        .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()));
    let pairs = before.iter().zip(&after).zip(weights);
    pairs.map(|((a, b), s)| s * (a - b) * (a - b)).sum()
}

#[test]
fn what_matters_is_nearer() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let path = scratch.write("s.safetensors", file(&squares(), &[]));
    let plain = scratch.path("plain.safetensors");
    let outcome = compress(&checkpoint, &kmeans(Nbits::B3), &plain).unwrap();
    assert_eq!(
        outcome.weights[0]
            .figures()
            .and_then(|figures| figures.sensitivity),
        Some(false)
    );
    let weighted = scratch.path("weighted.safetensors");
    let from = sensitivities(&path, MissingSensitivity::Error);
    let config = kmeans(Nbits::B3).with_sensitivity(from);
    let outcome = compress(&checkpoint, &config, &weighted).unwrap();
    assert_eq!(
        outcome.weights[0]
            .figures()
            .and_then(|figures| figures.sensitivity),
        Some(true)
    );
    assert_eq!(
        outcome.weights[1]
            .figures()
            .and_then(|figures| figures.sensitivity),
        None
    );
    let (plain, weighted) = (cost(&checkpoint, &plain), cost(&checkpoint, &weighted));
    assert!(weighted < 0.9 * plain, "{weighted} {plain}");
}

#[test]
fn equal_sensitivities_change_nothing() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let halves = |(name, _, shape, bytes): Tensor| {
        let half = half::f16::from_f32(0.5).to_le_bytes();
        (name, "F16", shape, half.repeat(bytes.len() / 8))
    };
    let halves: Vec<Tensor> = squares().into_iter().map(halves).collect();
    let path = scratch.write("s.safetensors", file(&halves, &[]));
    let plain = scratch.path("plain.safetensors");
    compress(&checkpoint, &kmeans(Nbits::B2), &plain).unwrap();
    let weighted = scratch.path("weighted.safetensors");
    let from = sensitivities(&path, MissingSensitivity::Error);
    let config = kmeans(Nbits::B2).with_sensitivity(from);
    compress(&checkpoint, &config, &weighted).unwrap();
    assert!((cost(&checkpoint, &plain) / cost(&checkpoint, &weighted) - 1.0).abs() < 1e-9);
}

#[test]
fn sensitivities_of_another_model_are_one_error() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let [fc1, fc2, _] = squares().try_into().unwrap();
    let wrong = weight("conv.weight", "F32", &[16, 8, 25], 1);
    let path = scratch.write("s.safetensors", file(&[fc1.clone(), wrong], &[]));
    let out = scratch.path("out.safetensors");
    let with = |missing| kmeans(Nbits::B4).with_sensitivity(sensitivities(&path, missing));
    let fails = |config: &OptimizationConfig, messages: &[&str]| {
        let error = compress(&checkpoint, config, &out).unwrap_err().to_string();
        for message in messages {
            assert!(error.contains(message), "{error}");
        }
        assert!(!out.exists());
    };
    let shape = "conv.weight: found [16, 8, 25], expected [16, 8, 5, 5]";
    fails(
        &with(MissingSensitivity::Error),
        &["fc2.weight: missing", shape],
    );
    fails(&with(MissingSensitivity::Ones), &[shape]);

    let mut negative = fc2.clone();
    negative.3[..8].copy_from_slice(&(-1.0_f64).to_le_bytes());
    scratch.write("s.safetensors", file(&[fc1.clone(), negative], &[]));
    fails(
        &with(MissingSensitivity::Ones),
        &["the sensitivities of \"fc2.weight\""],
    );

    scratch.write("s.safetensors", file(&[fc1], &[]));
    let ones = with(MissingSensitivity::Ones);
    let outcome = compress(&checkpoint, &ones, &out).unwrap();
    let weighted: Vec<_> = outcome
        .weights
        .iter()
        .map(|row| row.figures().and_then(|figures| figures.sensitivity))
        .collect();
    assert_eq!(
        weighted,
        [Some(true), None, Some(false), Some(false), None, None]
    );
}

#[test]
fn other_modes_need_none() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let path = scratch.write("s.safetensors", file(&[], &[]));
    let uniform = config(PaletteSpec::new(Mode::Uniform(Nbits::B4)));
    let uniform = uniform.with_sensitivity(sensitivities(&path, MissingSensitivity::Error));
    compress(&checkpoint, &uniform, &scratch.path("out.safetensors")).unwrap();
}
