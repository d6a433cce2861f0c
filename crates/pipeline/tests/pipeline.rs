//! The pipeline on a format of the tests' own: plan, strictness, sensitivities, bounded work, report.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod format;

use format::Tensors;
use palettizer_palette::{Granularity, Mode, Nbits, Palette, PaletteSpec};
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::{
    Decision, Error, Fate, MissingSensitivity, Plan, Progress, Report, Sensitivities,
    SensitivitySource, SkipReason, WeightReport, execute, plan,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Two weights, the second of them shared, a bias and a small one.
fn tensors() -> Tensors {
    Tensors::default()
        .with("conv.weight", &[64, 36], &[("conv1", "conv")])
        .with(
            "fc.weight",
            &[64, 64],
            &[("fc1", "linear"), ("fc2", "linear")],
        )
        .again("tied.weight")
        .with("fc.bias", &[4096], &[("fc1", "linear")])
        .with("small.weight", &[8, 8], &[("conv1", "conv")])
}

fn op(nbits: Nbits) -> OpPalettizerConfig {
    OpPalettizerConfig::new(PaletteSpec::new(Mode::Kmeans(nbits)))
}

fn all(nbits: Nbits) -> OptimizationConfig {
    OptimizationConfig::new().with_global(op(nbits))
}

/// Palettes by the names of their weights, and the rows of the report.
type Outputs = (Vec<(String, Palette)>, Vec<WeightReport>);

fn run(
    tensors: &Tensors,
    config: &OptimizationConfig,
    progress: &dyn Progress,
) -> Result<Outputs, Error> {
    let mut plan = plan(tensors, config, progress)?;
    let done = execute(
        tensors,
        &mut plan,
        config,
        |planned, palette| {
            let stored = (planned.weight.name().to_owned(), palette.clone());
            Ok((stored, palette.stored_bytes() as u64))
        },
        progress,
    )?;
    let rows = plan.weights.iter().zip(&done);
    let figures = |done: &Option<palettizer_pipeline::Done<_>>| {
        done.as_ref().map(|done| done.figures.clone())
    };
    let rows = rows.map(|(planned, done)| planned.report(figures(done)));
    let rows = rows.collect();
    let palettes = done.into_iter().flatten().map(|done| done.stored);
    Ok((palettes.collect(), rows))
}

/// What becomes of each weight, in a word.
fn fates(plan: &Plan<usize>) -> Vec<(&str, String)> {
    let fate = |decision: &Decision| match decision {
        Decision::Compress(job) => job.spec.mode().nbits().unwrap().to_string(),
        Decision::Skip(reason) => reason.to_string(),
    };
    let weights = plan.weights.iter();
    weights
        .map(|planned| (planned.weight.name(), fate(&planned.decision)))
        .collect()
}

#[test]
fn a_plan_says_what_becomes_of_every_weight_and_why() {
    let tensors = tensors();
    let config = all(Nbits::B4)
        .with_op_type("conv", op(Nbits::B6))
        .with_op_name("lineer", None);
    let plan = plan(&tensors, &config, &()).unwrap();
    assert_eq!(
        fates(&plan),
        [
            ("conv.weight", "6".to_owned()),
            ("fc.weight", "4".to_owned()),
            ("fc.bias", "one-dimensional".to_owned()),
        ]
    );
    assert_eq!(plan.weights[1].twins[0].name(), "tied.weight");
    assert_eq!(plan.unmatched[0].name, "lineer");
}

#[test]
fn names_go_before_patterns_before_types_before_all() {
    let tensors = tensors();
    let config = all(Nbits::B1)
        .with_op_type("linear", op(Nbits::B2))
        .with_op_name(".*weight", op(Nbits::B3))
        .with_op_name("fc1", op(Nbits::B6))
        .with_op_name("fc2", op(Nbits::B6))
        .with_op_name("conv.weight", None);
    let found = plan(&tensors, &config, &()).unwrap();
    let skipped = SkipReason::Null.to_string();
    assert_eq!(
        fates(&found)[..2],
        [("conv.weight", skipped), ("fc.weight", "6".to_owned())]
    );

    let torn = config.with_op_name("fc2", op(Nbits::B8));
    let error = plan(&tensors, &torn, &()).unwrap_err();
    assert!(matches!(error, Error::ConfigConflict { constant, .. } if constant == "fc.weight"));
}

#[test]
fn what_is_done_is_reported_and_in_the_order_of_the_plan() {
    let tensors = tensors();
    let (palettes, rows) = run(&tensors, &all(Nbits::B4), &()).unwrap();
    let names: Vec<&str> = palettes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["conv.weight", "fc.weight"]);
    assert_eq!(rows[1].shared_with, ["tied.weight"]);
    assert_eq!(rows[1].op_names, ["fc1", "fc2"]);
    for (row, (name, palette)) in rows.iter().zip(&palettes) {
        let (figures, bytes) = (row.figures().unwrap(), palette.decompress());
        let tensor = tensors.0.iter().find(|tensor| tensor.name == name).unwrap();
        let found = bytes
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let lost = found
            .zip(&tensor.values)
            .map(|(a, b)| f64::from(a - b).powi(2));
        let mse = lost.sum::<f64>() / tensor.values.len() as f64;
        assert!((figures.mse - mse).abs() <= 1e-6 * mse, "{name}: {mse}");
        assert_eq!(figures.bytes_after, palette.stored_bytes() as u64);
    }
    let report = Report::of_weights(rows, Instant::now());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["weights"][0]["nbits"], 4);
    assert_eq!(json["weights"][2]["status"], "skipped");
    assert_eq!(json["weights"][2]["nbits"], serde_json::Value::Null);
}

#[test]
fn threads_change_nothing() {
    // more than one batch
    let mut tensors = Tensors::default();
    for name in ["a", "b", "c", "d", "e", "f"] {
        tensors = tensors.with(name, &[512, 2048], &[("fc", "linear")]);
    }
    let config = all(Nbits::B2);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let (palettes, rows) = pool
            .unwrap()
            .install(|| run(&tensors, &config, &()))
            .unwrap();
        (
            palettes
                .into_iter()
                .map(|(_, palette)| palette.indices)
                .collect::<Vec<_>>(),
            rows,
        )
    };
    let one = on(1);
    assert_eq!(one.0.len(), 6);
    assert!(on(2) == one && on(7) == one);
}

#[test]
fn what_values_refuse_is_a_skip_or_under_strict_an_error() {
    let mut tensors = tensors();
    tensors.0[0].values[5] = f32::NAN;
    let (palettes, rows) = run(&tensors, &all(Nbits::B4), &()).unwrap();
    assert_eq!(palettes.len(), 1);
    assert!(matches!(&rows[0].fate, Fate::Skipped { refused: true, .. }));
    assert_eq!(rows[0].bytes_after(), rows[0].bytes_before);
    let error = run(&tensors, &all(Nbits::B4).with_strict(true), &()).unwrap_err();
    assert!(matches!(error, Error::Strict { skipped } if skipped[0].0 == "conv.weight"));

    // what the shape refuses is found by the plan already
    let groups = Granularity::PerGroupedChannel {
        group_size: 7,
        channel_axis: None,
    };
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_granularity(groups);
    let config = OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec));
    assert!(plan(&tensors, &config, &()).is_ok());
    let error = plan(&tensors, &config.with_strict(true), &()).unwrap_err();
    assert!(matches!(error, Error::Strict { skipped } if skipped.len() == 2));
}

#[derive(Debug)]
struct Known(BTreeMap<&'static str, Vec<usize>>);

impl SensitivitySource for Known {
    fn names(&self) -> Vec<String> {
        self.0.keys().map(|&name| name.to_owned()).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).cloned()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, String> {
        let elements = self.0[name].iter().product();
        Ok((0..elements).map(|at| (at % 5) as f32).collect())
    }
}

#[test]
fn sensitivities_are_found_by_any_name_of_the_data() {
    let tensors = tensors();
    let given = |names: &[(&'static str, [usize; 2])], missing| {
        let shapes = names.iter().map(|(name, shape)| (*name, shape.to_vec()));
        let source = Arc::new(Known(shapes.collect()));
        all(Nbits::B4).with_sensitivity(Sensitivities::new(source, missing))
    };
    let tied = [("tied.weight", [64, 64]), ("conv.weight", [64, 36])];
    let (_, rows) = run(&tensors, &given(&tied, MissingSensitivity::Error), &()).unwrap();
    let weighed = |row: &WeightReport| row.figures().and_then(|figures| figures.sensitivity);
    assert_eq!(
        rows.iter().map(weighed).collect::<Vec<_>>(),
        [Some(true), Some(true), None]
    );

    let (_, rows) = run(&tensors, &given(&tied[..1], MissingSensitivity::Ones), &()).unwrap();
    assert_eq!(weighed(&rows[0]), Some(false));
    let error = plan(&tensors, &given(&tied[..1], MissingSensitivity::Error), &()).unwrap_err();
    assert!(matches!(error, Error::Sensitivities { missing, .. } if missing == ["conv.weight"]));
    let other = [("conv.weight", [36, 64]), ("fc.weight", [64, 64])];
    let error = plan(&tensors, &given(&other, MissingSensitivity::Ones), &()).unwrap_err();
    assert!(matches!(error, Error::Sensitivities { wrong, .. } if wrong.len() == 1));
    let foreign = [("x", [1, 1])];
    let error = plan(&tensors, &given(&foreign, MissingSensitivity::Ones), &()).unwrap_err();
    assert!(matches!(error, Error::ForeignSensitivities { .. }));
}

/// Counts, and stops after some weights.
#[derive(Default)]
struct Counted {
    promised: AtomicU64,
    done: AtomicU64,
    weights: AtomicUsize,
    most: usize,
    stop: AtomicBool,
}

impl Progress for Counted {
    fn start(&self, _weights: usize, bytes: u64) {
        self.promised.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, _name: &str, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.weights.fetch_add(1, Ordering::Relaxed) + 1 >= self.most {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn stop(&self) -> Option<&AtomicBool> {
        Some(&self.stop)
    }
}

#[test]
fn progress_hears_of_all_that_was_promised_and_can_end_the_work() {
    let mut tensors = Tensors::default();
    for name in ["a", "b", "c", "d", "e", "f"] {
        tensors = tensors.with(name, &[1024, 4096], &[("fc", "linear")]);
    }
    let config = all(Nbits::B1);
    let most = usize::MAX;
    let all_of_it = Counted {
        most,
        ..Counted::default()
    };
    run(&tensors, &config, &all_of_it).unwrap();
    let promised = all_of_it.promised.into_inner();
    assert_eq!((promised, all_of_it.done.into_inner()), (6 << 24, 6 << 24));
    let few = Counted {
        most: 1,
        ..Counted::default()
    };
    assert!(matches!(run(&tensors, &config, &few), Err(Error::Stopped)));
    assert!(few.weights.into_inner() < 6);
}
