//! Sensitivities from a program itself, against the gradients of its outputs one by one.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use palettizer::runtime::{RunOptions, Session};
use palettizer::values::Samples;
use palettizer::{Fate, SaveOptions, SensitivityLoss, SensitivityOptions, probe_sensitivities};
use palettizer_cli::demo_model;
use std::collections::BTreeMap;

type Found = BTreeMap<String, Vec<f32>>;

const CLASSES: usize = 10;

/// Σ over outputs of the squared gradient of each, with a factor of its own, averaged over the samples.
fn exact(
    session: &Session,
    samples: &Samples,
    names: &[&str],
    factor: impl Fn(f32) -> f32,
) -> Found {
    let mut sums = Found::new();
    for at in 0..samples.len() {
        for output in 0..CLASSES {
            let mut weight = 0.0;
            let unit = |outputs: &palettizer::runtime::Named| {
                let (name, value) = outputs.iter().next().expect("an output");
                let palettizer::runtime::Value::Tensor(tensor) = value else {
                    panic!("{name} is no tensor");
                };
                let values = tensor.floats().expect("floats");
                assert_eq!(values.len(), CLASSES);
                weight = factor(values[output]);
                let mut unit = vec![0.0; CLASSES];
                unit[output] = 1.0;
                Ok(BTreeMap::from([(name.clone(), unit)]))
            };
            let inputs = samples.get(at).expect("a sample");
            let done = session.grad_of(unit, names, None, inputs, RunOptions::default());
            for (name, gradient) in done.expect("gradients").gradients {
                let values = gradient.floats().expect("floats");
                let sum = sums.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += weight * value * value / samples.len() as f32;
                }
            }
        }
    }
    sums
}

/// How far apart two are, as a part of the second.
fn apart(found: &[f32], wanted: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let error: f64 = found.iter().zip(wanted).map(|(a, b)| square(a - b)).sum();
    (error / wanted.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}

#[test]
fn probes_come_to_the_squared_gradients_of_all_outputs() {
    let model = demo_model().expect("the demo");
    let session = Session::new(&model)
        .expect("a session")
        .keep_constants(true);
    let samples = Samples::random(&session, None, 13, 3).expect("samples");
    let options = |probes, seed| SensitivityOptions {
        probes,
        seed,
        ..SensitivityOptions::default()
    };
    let found =
        probe_sensitivities(&model, &samples, &options(400, 1), &()).expect("sensitivities");
    let found: Found = found
        .iter()
        .map(|(name, shape, values)| {
            assert_eq!(shape.iter().product::<usize>(), values.len());
            (name.to_owned(), values.to_vec())
        })
        .collect();
    let weights = model
        .weights(SensitivityOptions::default().weight_threshold)
        .expect("weights");
    assert_eq!(found.len(), weights.len());
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let wanted = exact(&session, &samples, &names, |_| 1.0);
    for (name, values) in &found {
        let far = apart(values, &wanted[name]);
        assert!(far < 0.2, "{name}: {far}");
    }
    let few = probe_sensitivities(&model, &samples, &options(4, 1), &()).expect("sensitivities");
    let again = probe_sensitivities(&model, &samples, &options(4, 1), &()).expect("sensitivities");
    let other = probe_sensitivities(&model, &samples, &options(4, 2), &()).expect("sensitivities");
    for ((name, _, values), (_, _, same)) in few.iter().zip(again.iter()) {
        assert_eq!(values, same);
        assert!(
            apart(values, &wanted[name]) > apart(&found[name], &wanted[name]),
            "{name}"
        );
    }
    assert!(few.iter().zip(other.iter()).any(|(a, b)| a.2 != b.2));
}

#[test]
fn what_is_written_is_read_for_the_weights() {
    let model = demo_model().expect("the demo");
    let session = Session::new(&model).expect("a session");
    let samples = Samples::random(&session, None, 13, 2).expect("samples");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.safetensors");
    let found = probe_sensitivities(&model, &samples, &SensitivityOptions::default(), &());
    found
        .expect("sensitivities")
        .write(&path, SaveOptions::default())
        .expect("a file");
    let read =
        palettizer::sensitivities(&path, palettizer::MissingSensitivity::Error).expect("a file");
    let spec = palettizer::PaletteSpec::new(palettizer::Mode::Kmeans(palettizer::Nbits::B2));
    let config = palettizer::OptimizationConfig::new()
        .with_global(palettizer::OpPalettizerConfig::new(spec))
        .with_sensitivity(read);
    let (_, report) = model.palettize(&config, &()).expect("a model");
    let weighed = report.weights.iter().filter(|row| match &row.fate {
        Fate::Compressed(figures) => figures.sensitivity == Some(true),
        Fate::Skipped { .. } => false,
    });
    assert_eq!(weighed.count(), model.weights(2048).expect("weights").len());
}

#[test]
fn a_loss_that_no_output_has_is_refused() {
    let model = demo_model().expect("the demo");
    let session = Session::new(&model).expect("a session");
    let samples = Samples::random(&session, None, 13, 1).expect("samples");
    let loss = SensitivityLoss::Nll {
        output: Some("nothing".to_owned()),
    };
    let options = SensitivityOptions {
        loss,
        ..SensitivityOptions::default()
    };
    let error = probe_sensitivities(&model, &samples, &options, &()).expect_err("no such output");
    assert!(error.to_string().contains("nothing"), "{error}");
}
