//! Second moments from a file decide how weights are palettized, and what cannot be used is said.

use crate::support::{Scratch, Tensor, compress, config, file, kmeans, tensors, weight};
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec};
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{Report, Statistics, StatisticsOptions};
use palettizer_safetensors::{Checkpoint, SafetensorsSensitivities};
use std::path::Path;
use std::sync::Arc;

/// Second moments of random inputs.
fn moments(name: &str, dtype: &'static str, shape: &[usize], seed: u64) -> Tensor {
    let n = shape[shape.len() - 1];
    let matrices = shape[..shape.len() - 2].iter().product();
    let mut bytes = Vec::new();
    for matrix in 0..matrices {
        let (_, _, _, x) = weight("x", "F32", &[2 * n, n], seed + matrix as u64);
        let x: Vec<f32> = x
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        for i in 0..n {
            for j in 0..n {
                // Inputs that go together.
                let product = |row: &[f32]| (row[i] + row[0]) * (row[j] + row[0]);
                let sum: f32 = x.chunks_exact(n).map(product).sum();
                match dtype {
                    "F16" => bytes.extend(half::f16::from_f32(sum).to_le_bytes()),
                    "F64" => bytes.extend(f64::from(sum).to_le_bytes()),
                    _ => bytes.extend(sum.to_le_bytes()),
                }
            }
        }
    }
    (
        format!("{name}.second_moments"),
        dtype,
        shape.to_vec(),
        bytes,
    )
}

fn all() -> Vec<Tensor> {
    vec![
        moments("fc1.weight", "F32", &[48, 48], 1),
        moments("fc2.weight", "F64", &[2, 64, 64], 2),
        moments("conv.weight", "F16", &[1, 1, 200, 200], 4),
    ]
}

fn open(path: &Path) -> Statistics {
    let source = SafetensorsSensitivities::open(path).unwrap();
    Statistics::new(Arc::new(source), StatisticsOptions::default()).unwrap()
}

fn per_channel() -> OptimizationConfig {
    let granularity = Granularity::PerGroupedChannel {
        group_size: 1,
        channel_axis: None,
    };
    config(PaletteSpec::new(Mode::Kmeans(Nbits::B2)).with_granularity(granularity))
}

/// How each weight was palettized, and why so.
fn fits(report: &Report) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let figures = report
        .weights
        .iter()
        .filter_map(|row| Some((row, row.figures()?)));
    figures
        .map(|(row, f)| (row.name.as_str(), f.fit, f.fallback.as_deref()))
        .collect()
}

#[test]
fn weights_of_every_type_are_fitted() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let path = scratch.write(
        "h.safetensors",
        file(&all(), &[("palettizer.statistics", "1")]),
    );
    let config = per_channel().with_statistics(open(&path));
    let report = compress(&checkpoint, &config, &scratch.path("out.safetensors")).unwrap();
    let fitted = |name| (name, Some("layerwise"), None);
    assert_eq!(
        fits(&report),
        [
            fitted("fc1.weight"),
            fitted("fc2.weight"),
            fitted("conv.weight")
        ]
    );
    for row in &report.weights {
        let Some(figures) = row.figures() else {
            continue;
        };
        assert!(figures.output_snr_db > figures.snr_db, "{row:?}");
        assert_eq!(figures.sensitivity, Some(false));
    }
    // The same from shards.
    for (at, tensor) in all().into_iter().enumerate() {
        scratch.write(&format!("h/{at}.safetensors"), file(&[tensor], &[]));
    }
    let map = all();
    let map = map
        .iter()
        .enumerate()
        .map(|(at, (name, ..))| format!("\"{name}\": \"{at}.safetensors\""));
    let map = map.collect::<Vec<_>>().join(", ");
    scratch.write(
        "h/h.safetensors.index.json",
        format!("{{\"weight_map\": {{{map}}}}}"),
    );
    let config = per_channel().with_statistics(open(&scratch.path("h")));
    compress(&checkpoint, &config, &scratch.path("again.safetensors")).unwrap();
    assert_eq!(
        scratch.read("out.safetensors"),
        scratch.read("again.safetensors")
    );
}

#[test]
fn memory_is_bounded_by_batches_and_threads_do_not_matter() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let path = scratch.write("h.safetensors", file(&all(), &[]));
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
        .with_per_channel_scale(true)
        .with_lut_dtype(LutDtype::Int8);
    let config = config(spec).with_statistics(open(&path));
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let out = scratch.path(&format!("{threads}.safetensors"));
        pool.install(|| compress(&checkpoint, &config, &out))
            .unwrap();
        assert_eq!(
            scratch.read(&format!("{threads}.safetensors")),
            scratch.read("1.safetensors")
        );
    }
}

#[test]
fn a_matrix_that_no_damping_helps_falls_back() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    // Symmetric, with a diagonal above zero, and as far from positive definite as can be.
    let wild = (0..48 * 48).map(|at| if at % 49 == 0 { 1e-3_f32 } else { 1e3 });
    let wild = (
        "fc1.weight.second_moments".to_owned(),
        "F32",
        vec![48, 48],
        wild.flat_map(f32::to_le_bytes).collect(),
    );
    let path = scratch.write("h.safetensors", file(&[wild], &[]));
    let config = per_channel().with_statistics(open(&path)).with_strict(true);
    let report = compress(&checkpoint, &config, &scratch.path("out.safetensors")).unwrap();
    let (name, fit, reason) = fits(&report)[0];
    assert_eq!((name, fit), ("fc1.weight", Some("k-means")));
    assert!(
        reason.unwrap().contains("not positive definite"),
        "{reason:?}"
    );
}

#[test]
fn hostile_files_are_one_error() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let good = moments("fc1.weight", "F32", &[48, 48], 1);
    let changed = |at: usize, value: f32| {
        let (name, dtype, shape, mut bytes) = good.clone();
        bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
        (name, dtype, shape, bytes)
    };
    let shaped = |shape: &[usize]| (good.0.clone(), good.1, shape.to_vec(), good.3.clone());
    let renamed = (
        format!("other.{}", good.0),
        good.1,
        good.2.clone(),
        good.3.clone(),
    );
    let cases = [
        (
            changed(50, f32::INFINITY),
            "inf at [1, 2], expected finite numbers",
        ),
        (
            changed(49 * 3, -1.0),
            "-1 at [3, 3]; the diagonal has means of squares",
        ),
        (changed(2, 1e6), "expected a symmetric matrix"),
        (shaped(&[2304]), "the shape [2304], expected [n, n]"),
        (shaped(&[24, 96]), "the shape [24, 96], expected [n, n]"),
        (
            shaped(&[1, 1, 1, 48, 48]),
            "the shape [1, 1, 1, 48, 48], expected [n, n]",
        ),
        (
            renamed,
            "no statistics are of a weight: the weights to palettize are \"fc1.weight\", \"fc2.weight\", \"conv.weight\"; the statistics are of \"other.fc1.weight\"",
        ),
        // Of another model that has the names of this one.
        (
            shaped(&[9, 16, 16]),
            "Why not of \"fc1.weight\": layer-wise fitting needs second moments of 48 inputs",
        ),
    ];
    for (tensor, wanted) in cases {
        let path = scratch.write("bad.safetensors", file(&[tensor], &[]));
        let config = kmeans(Nbits::B2).with_statistics(open(&path));
        let out = scratch.path("none.safetensors");
        let error = compress(&checkpoint, &config, &out)
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn parts_know_no_statistics() {
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&tensors());
    let path = scratch.write("h.safetensors", file(&all(), &[]));
    let config = per_channel().with_statistics(open(&path));
    let (out, options) = (scratch.path("p.safetensors"), SaveOptions::default());
    let part = checkpoint.palettize_part(&["fc1.weight"], &config, &out, options, &());
    let whole = checkpoint.assemble(&config, &[] as &[&Path], &out, options, &());
    for error in [part.unwrap_err(), whole.unwrap_err()] {
        assert!(
            error.to_string().ends_with("palettize it in one run"),
            "{error}"
        );
    }
    // Another axis, where the file says so.
    let turned = weight("turned.weight", "F32", &[64, 48], 9);
    let checkpoint =
        Checkpoint::open(scratch.write("turned.safetensors", file(&[turned], &[]))).unwrap();
    let h = [moments("turned.weight", "F32", &[64, 64], 3)];
    let path = scratch.write(
        "h.safetensors",
        file(&h, &[("turned.weight.output_axis", "1")]),
    );
    let config = per_channel().with_statistics(open(&path));
    let report = compress(
        &checkpoint,
        &config,
        &scratch.path("turned_out.safetensors"),
    )
    .unwrap();
    assert_eq!(fits(&report), [("turned.weight", Some("layerwise"), None)]);
    assert_eq!(report.weights[0].figures().unwrap().luts, 48);
}
