//! Whole models palettized by sensitivities, and work that is ended halfway.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use palettizer_coreml::{Error, Model};
use palettizer_palette::{Mode, Nbits, PaletteSpec};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::{MissingSensitivity, Progress, Report, Sensitivities, SensitivitySource};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use support::{Builder, Parts, values};

/// Sensitivities in memory; a name that begins with `broken` cannot be read.
#[derive(Debug, Default)]
struct Memory(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl SensitivitySource for Memory {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|(shape, _)| shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, String> {
        if name.starts_with("broken") {
            return Err("the file is cut short".to_owned());
        }
        let found = self.0.get(name).map(|(_, values)| values.clone());
        found.ok_or_else(|| "there is none".to_owned())
    }
}

fn sensitivities(
    missing: MissingSensitivity,
    tensors: &[(&str, &[usize], Vec<f32>)],
) -> Sensitivities {
    let tensors = tensors
        .iter()
        .map(|(name, shape, values)| ((*name).to_owned(), (shape.to_vec(), values.clone())));
    Sensitivities::new(Arc::new(Memory(tensors.collect())), missing)
}

fn config(mode: Mode, sensitivity: impl Into<Option<Sensitivities>>) -> OptimizationConfig {
    OptimizationConfig::new()
        .with_global(OpPalettizerConfig::new(PaletteSpec::new(mode)))
        .with_sensitivity(sensitivity)
}

fn kmeans(sensitivity: impl Into<Option<Sensitivities>>) -> OptimizationConfig {
    config(Mode::Kmeans(Nbits::B2), sensitivity)
}

/// Two linear layers of 64 × 64 weights that differ.
fn two() -> Parts {
    let other: Vec<f32> = values(4096).iter().map(|v| v * v * v).collect();
    Builder::new("CoreML8")
        .input("x", &[1, 64])
        .weight("a", &[64, 64], &values(4096))
        .weight("b", &[64, 64], &other)
        .op("linear", "fc1", &[("x", "x"), ("weight", "a")], &[1, 64])
        .op("linear", "fc2", &[("x", "fc1"), ("weight", "b")], &[1, 64])
        .output("fc2")
        .build()
}

fn open(parts: &Parts) -> Model {
    Model::from_parts(&parts.model, parts.weights.clone()).unwrap()
}

fn palettize(parts: &Parts, config: &OptimizationConfig) -> Result<(Model, Report), Error> {
    open(parts).palettize(config, &())
}

/// The dense fp16 data of a constant.
fn dense(model: &Model, name: &str) -> Vec<f32> {
    let model = model.decompress(&()).unwrap();
    let program = model.spec().ml_program.as_ref().unwrap();
    let block = &program.functions["main"].block_specializations["CoreML8"];
    let named = |op: &&palettizer_coreml::proto::Operation| {
        op.outputs[0].name.starts_with(name) && op.attributes["val"].blob_file.is_some()
    };
    let op = block.operations.iter().find(named).unwrap();
    let place = op.attributes["val"].blob_file.as_ref().unwrap();
    let file = model.package().weight_file(&place.file_name).unwrap();
    let (halves, _) = file.blob(place.offset).unwrap().data.as_chunks::<2>();
    let wide = |&half| half::f16::from_le_bytes(half).to_f32();
    halves.iter().map(wide).collect()
}

fn lost(before: &[f32], after: &[f32], weights: &[f32]) -> f64 {
    let squares = before
        .iter()
        .zip(after)
        .map(|(a, b)| f64::from(a - b).powi(2));
    squares.zip(weights).map(|(e, &w)| e * f64::from(w)).sum()
}

/// Much for the positive values of `a`, little for the others.
fn uneven() -> Vec<f32> {
    values(4096)
        .iter()
        .map(|&v| if v > 0.0 { 5.0 } else { 0.01 })
        .collect()
}

#[test]
fn errors_fall_where_they_matter() {
    let parts = two();
    let before = dense(&open(&parts), "a");
    let tensors = |factor: f32| {
        let a = uneven().iter().map(|w| w * factor).collect();
        let shape: &[usize] = &[64, 64];
        let b = vec![factor; 4096];
        sensitivities(
            MissingSensitivity::Error,
            &[("a", shape, a), ("b", shape, b)],
        )
    };
    let (plain, outcome) = palettize(&parts, &kmeans(None)).unwrap();
    assert_eq!(
        outcome.weights[0]
            .figures()
            .and_then(|figures| figures.sensitivity),
        Some(false)
    );
    let (weighed, outcome) = palettize(&parts, &kmeans(tensors(1.0))).unwrap();
    assert_eq!(
        outcome.weights[0]
            .figures()
            .and_then(|figures| figures.sensitivity),
        Some(true)
    );
    let (with, without) = (dense(&weighed, "a"), dense(&plain, "a"));
    let matters = |after: &[f32]| lost(&before, after, &uneven());
    assert!(matters(&with) < matters(&without) * 0.5);
    // All alike: nothing changes. And only ratios count.
    assert_eq!(dense(&weighed, "b"), dense(&plain, "b"));
    let (scaled, _) = palettize(&parts, &kmeans(tensors(1e6))).unwrap();
    assert_eq!(scaled.to_parts().unwrap(), weighed.to_parts().unwrap());
}

#[test]
fn modes_without_sensitivities_need_none() {
    let source = || sensitivities(MissingSensitivity::Error, &[]);
    let uniform = |source| config(Mode::Uniform(Nbits::B2), source);
    let (model, outcome) = palettize(&two(), &uniform(Some(source()))).unwrap();
    assert_eq!(
        outcome.weights[0]
            .figures()
            .and_then(|figures| figures.sensitivity),
        Some(false)
    );
    let (plain, _) = palettize(&two(), &uniform(None)).unwrap();
    assert_eq!(model.to_parts().unwrap(), plain.to_parts().unwrap());
}

#[test]
fn constants_that_share_data_share_sensitivities() {
    let blob = Builder::new("CoreML8").weight("a", &[64, 64], &values(4096));
    let (model, _) = blob.message();
    let program = model.ml_program.unwrap();
    let op = &program.functions["main"].block_specializations["CoreML8"].operations[0];
    let offset = op.attributes["val"].blob_file.as_ref().unwrap().offset;
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .weight("a", &[64, 64], &values(4096))
        .blob_at(
            "v",
            palettizer_coreml::proto::DataType::Float16,
            &[64, 64],
            offset,
        )
        .op("linear", "fc1", &[("x", "x"), ("weight", "a")], &[1, 64])
        .op("linear", "fc2", &[("x", "fc1"), ("weight", "v")], &[1, 64])
        .output("fc2")
        .build();
    let by = |name| {
        let one = sensitivities(MissingSensitivity::Error, &[(name, &[64, 64], uneven())]);
        // The second is a weight of its own when it is configured otherwise.
        let own = OpPalettizerConfig::new(PaletteSpec::new(Mode::Kmeans(Nbits::B4)));
        let apart = kmeans(one.clone()).with_op_name("fc2", own);
        [kmeans(one), apart].map(|config| {
            let (model, outcome) = palettize(&parts, &config).unwrap();
            let all = outcome
                .weights
                .iter()
                .all(|row| row.figures().and_then(|figures| figures.sensitivity) == Some(true));
            assert!(all, "{outcome:?}");
            (outcome.weights.len(), model.to_parts().unwrap())
        })
    };
    let found = by("v");
    assert_eq!(found, by("a"));
    assert_eq!((found[0].0, found[1].0), (1, 2));
}

#[test]
fn what_does_not_fit_is_one_error_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("Small.mlpackage");
    let fail = |from: Sensitivities| {
        let error =
            open(&two()).palettize_to(&kmeans(from), &out, SaveOptions::overwriting(false), &());
        assert_eq!(entries(folder.path()), 0);
        error.unwrap_err()
    };
    let shape: &[usize] = &[32, 128];
    let wrong = || ("b", shape, vec![1.0; 4096]);
    let error = fail(sensitivities(MissingSensitivity::Error, &[wrong()]));
    assert_eq!(
        error.to_string(),
        "the 1 sensitivities do not fit: 1 weight(s) have none, 1 have some of another shape; give those of this \
         model, or let missing ones be ones:\n  a: missing\n  b: found [32, 128], expected [64, 64]"
    );
    let error = fail(sensitivities(MissingSensitivity::Ones, &[wrong()]));
    assert!(
        matches!(&error, Error::Pipeline(PipelineError::Sensitivities { missing, wrong, .. }) if missing.is_empty() && wrong.len() == 1)
    );
    // Of another model: an error even where missing ones are ones.
    let other = [("elsewhere", shape, vec![1.0; 4096])];
    let error = fail(sensitivities(MissingSensitivity::Ones, &other));
    assert!(
        matches!(&error, Error::Pipeline(PipelineError::ForeignSensitivities { weights, known }) if weights.len() == 2 && known.len() == 1)
    );
    assert_eq!(
        error.to_string(),
        "no sensitivity has the name of a weight: the weights to palettize are \"a\", \"b\"; the sensitivities are \
         of \"elsewhere\". Give those of this model, or none"
    );
}

#[test]
fn missing_ones_may_be_ones() {
    let parts = two();
    let only = sensitivities(MissingSensitivity::Ones, &[("a", &[64, 64], uneven())]);
    let (weighed, outcome) = palettize(&parts, &kmeans(only)).unwrap();
    let used: Vec<_> = outcome
        .weights
        .iter()
        .map(|row| row.figures().and_then(|figures| figures.sensitivity))
        .collect();
    assert_eq!(used, [Some(true), Some(false)]);
    let (plain, _) = palettize(&parts, &kmeans(None)).unwrap();
    assert_ne!(dense(&weighed, "a"), dense(&plain, "a"));
    assert_eq!(dense(&weighed, "b"), dense(&plain, "b"));
}

#[test]
fn values_that_are_none_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("Small.mlpackage");
    let parts = Builder::new("CoreML8")
        .input("x", &[1, 64])
        .weight("broken", &[64, 64], &values(4096))
        .op(
            "linear",
            "fc",
            &[("x", "x"), ("weight", "broken")],
            &[1, 64],
        )
        .output("fc")
        .build();
    let mut negative = vec![1.0; 4096];
    negative[7] = -3.0;
    let shape: &[usize] = &[64, 64];
    let cases = [
        (&parts, ("broken", vec![]), "the file is cut short"),
        (
            &two(),
            ("a", vec![1.0; 9]),
            "9 values, expected 4096 for the shape [64, 64]",
        ),
        (
            &two(),
            ("a", negative),
            "sensitivity -3 at element 7: expected finite numbers from zero on, such as sums of squared gradients \
             (1 of 4096 are not)",
        ),
    ];
    for (parts, (name, values), expected) in cases {
        let from = sensitivities(MissingSensitivity::Ones, &[(name, shape, values)]);
        let error = open(parts)
            .palettize_to(&kmeans(from), &out, SaveOptions::overwriting(false), &())
            .unwrap_err();
        let text = format!("the sensitivities of \"{name}\": {expected}");
        assert_eq!(error.to_string(), text);
        assert_eq!(entries(folder.path()), 0);
    }
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Stops the work once so many weights are done.
#[derive(Default)]
struct After {
    left: AtomicUsize,
    stop: AtomicBool,
}

impl After {
    fn new(left: usize) -> Self {
        After {
            left: left.into(),
            stop: (left == 0).into(),
        }
    }
}

impl Progress for After {
    fn advance(&self, _name: &str, _bytes: u64) {
        if self.left.fetch_sub(1, Relaxed) == 1 {
            self.stop.store(true, Relaxed);
        }
    }

    fn stop(&self) -> Option<&AtomicBool> {
        Some(&self.stop)
    }
}

#[test]
fn work_that_is_no_longer_wanted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("Out.mlpackage");
    let dense = open(&two());
    let (small, _) = dense.palettize(&kmeans(None), &After::new(3)).unwrap();
    let stopped = |result: Result<(), Error>| {
        assert!(
            matches!(result, Err(Error::Pipeline(PipelineError::Stopped))),
            "{result:?}"
        );
    };
    for done in [0, 1, 2] {
        stopped(dense.palettize(&kmeans(None), &After::new(done)).map(drop));
        let to = dense.palettize_to(
            &kmeans(None),
            &out,
            SaveOptions::overwriting(false),
            &After::new(done),
        );
        stopped(to.map(drop));
        stopped(small.decompress(&After::new(done)).map(drop));
        stopped(
            small
                .decompress_to(&out, SaveOptions::overwriting(false), &After::new(done))
                .map(drop),
        );
        assert_eq!(entries(folder.path()), 0);
    }
    // And what was there stays.
    dense.save(&out, SaveOptions::overwriting(false)).unwrap();
    let to = dense.palettize_to(
        &kmeans(None),
        &out,
        SaveOptions::overwriting(true),
        &After::new(1),
    );
    stopped(to.map(drop));
    assert_eq!(entries(folder.path()), 1);
    let again = Model::open(&out).unwrap();
    assert_eq!(again.to_parts().unwrap(), dense.to_parts().unwrap());
}
