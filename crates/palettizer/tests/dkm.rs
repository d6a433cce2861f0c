//! Palettes trained in a loop of one's own: milestones, states, the end of training and its file.
#![allow(clippy::unwrap_used)]

use palettizer::SaveOptions;
use palettizer::dkm::{
    DkmConfig, DkmConfigs, DkmError, DkmLut, DkmMode, DkmPalettizer, DkmSpec, Nbits, Refusal,
    ScaleScheme,
};
use palettizer::safetensors::{Checkpoint, Content, DenseTensor, ElementType};
use palettizer_palette::Dkm;

const N: usize = 256;

fn config(spec: DkmSpec) -> DkmConfig {
    DkmConfig {
        spec,
        weight_threshold: 0,
        ..DkmConfig::default()
    }
}

fn two_bits() -> DkmSpec {
    DkmSpec {
        nbits: Nbits::B2,
        temperature: Some(0.02),
        ..DkmSpec::default()
    }
}

fn one(config: DkmConfig) -> DkmPalettizer {
    DkmPalettizer::new([("w", [16, 16], config)]).unwrap()
}

fn numbers(by: f32) -> Vec<f32> {
    (0..N).map(|i| (i as f32 * by).sin() * 0.5).collect()
}

/// One step towards a target by gradient descent; the loss.
fn step(palettizer: &mut DkmPalettizer, weights: &mut [f32], target: &[f32]) -> f32 {
    let (mut soft, mut gradient) = (vec![0.0; N], vec![0.0; N]);
    palettizer.forward("w", weights, &mut soft).unwrap();
    let lost: Vec<f32> = soft.iter().zip(target).map(|(w, t)| w - t).collect();
    palettizer
        .backward("w", weights, &lost, &mut gradient)
        .unwrap();
    for (weight, gradient) in weights.iter_mut().zip(&gradient) {
        *weight -= 0.2 * gradient;
    }
    palettizer.step();
    lost.iter().map(|l| l * l).sum()
}

#[test]
fn training_lowers_the_loss_of_the_palette() {
    let target = numbers(0.37);
    let mut weights = numbers(0.91);
    let mut palettizer = one(config(two_bits()));
    let first = step(&mut palettizer, &mut weights, &target);
    for _ in 0..60 {
        step(&mut palettizer, &mut weights, &target);
    }
    let mut hard = vec![0.0; N];
    palettizer.assign("w", &weights, &mut hard).unwrap();
    let lost: f32 = hard.iter().zip(&target).map(|(w, t)| (w - t).powi(2)).sum();
    assert!(lost < 0.3 * first, "{first} {lost}");
}

#[test]
fn a_milestone_begins_with_the_call_after_it() {
    let values = numbers(0.7);
    let mut palettizer = one(DkmConfig {
        milestone: 2,
        ..config(two_bits())
    });
    let mut out = vec![0.0; N];
    for call in 0..5 {
        palettizer.forward("w", &values, &mut out).unwrap();
        assert_eq!(out == values, call < 3, "after {call} calls");
        let mut back = vec![0.0; N];
        palettizer
            .backward("w", &values, &values, &mut back)
            .unwrap();
        assert_eq!(back == values, call < 3);
        palettizer.step();
    }
    let early = one(DkmConfig {
        milestone: 9,
        ..config(two_bits())
    });
    let done = early.finalize([("w", values.as_slice())]).unwrap();
    let row = &done.report.weights[0];
    assert!(row.figures().is_none());
    assert!(row.reason().unwrap().contains("milestone of 9"));
}

#[test]
fn the_same_values_have_the_same_soft_weight() {
    let mut values = numbers(0.7);
    let mut palettizer = one(config(DkmSpec {
        mode: DkmMode::Gsm,
        ..two_bits()
    }));
    let (mut a, mut b) = (vec![0.0; N], vec![0.0; N]);
    palettizer.forward("w", &values, &mut a).unwrap();
    palettizer.forward("w", &values, &mut b).unwrap();
    assert_eq!(a, b);
    values[3] += 0.01;
    palettizer.forward("w", &values, &mut b).unwrap();
    assert_ne!(a, b);
}

#[test]
fn a_restored_run_goes_on_bit_for_bit() {
    for spec in [
        two_bits(),
        DkmSpec {
            mode: DkmMode::Gsm,
            scale: Some(ScaleScheme::Abs),
            group_size: Some(4),
            ..two_bits()
        },
        DkmSpec {
            temperature: None,
            group_size: Some(4),
            ..two_bits()
        },
        DkmSpec {
            mode: DkmMode::Ste,
            ..two_bits()
        },
    ] {
        let target = numbers(0.37);
        let config = DkmConfig {
            milestone: 3,
            ..config(spec)
        };
        let mut weights = numbers(0.91);
        let mut palettizer = one(config.clone());
        for _ in 0..6 {
            step(&mut palettizer, &mut weights, &target);
        }
        let saved = serde_json::to_string(&palettizer.state()).unwrap();
        let mut others = weights.clone();
        let mut resumed = one(config);
        resumed
            .restore(serde_json::from_str(&saved).unwrap())
            .unwrap();
        for _ in 0..4 {
            let a = step(&mut palettizer, &mut weights, &target);
            let b = step(&mut resumed, &mut others, &target);
            assert_eq!(a.to_bits(), b.to_bits());
        }
        assert_eq!(weights, others);
        assert_eq!(palettizer.state(), resumed.state());
    }
}

#[test]
fn the_temperature_is_found_once_at_the_milestone_and_kept() {
    let (target, mut weights) = (numbers(0.37), numbers(0.91));
    let found = DkmSpec {
        temperature: None,
        group_size: Some(8),
        ..two_bits()
    };
    let with = |spec: &DkmSpec| {
        one(DkmConfig {
            milestone: 1,
            ..config(spec.clone())
        })
    };
    let kept = |palettizer: &DkmPalettizer| palettizer.state().weights["w"].temperatures.clone();
    let mut palettizer = with(&found);
    step(&mut palettizer, &mut weights, &target);
    step(&mut palettizer, &mut weights, &target);
    assert!(kept(&palettizer).is_empty());
    let seen = weights.clone();
    step(&mut palettizer, &mut weights, &target);
    let dkm = Dkm::new(found.clone(), &[16, 16]).unwrap();
    let seeds = dkm.seed(&seen, None, None).unwrap();
    let expected = dkm.temperatures(&seen, &seeds, None).unwrap();
    assert_eq!((kept(&palettizer), expected.len()), (expected.clone(), 2));
    step(&mut palettizer, &mut weights, &target);
    assert_eq!(kept(&palettizer), expected);

    // A state of before it was kept is taken up, and it is found then.
    let mut saved = serde_json::to_value(palettizer.state()).unwrap();
    let own = saved["weights"]["w"].as_object_mut().unwrap();
    own.remove("temperatures").unwrap();
    let mut old = with(&found);
    old.restore(serde_json::from_value(saved).unwrap()).unwrap();
    assert!(kept(&old).is_empty());
    step(&mut old, &mut weights.clone(), &target);
    assert_eq!(kept(&old).len(), 2);

    // What cannot be is refused.
    for temperatures in [vec![0.1], vec![0.1, 0.0], vec![f32::NAN, 0.1]] {
        let mut state = palettizer.state();
        state.weights.get_mut("w").unwrap().temperatures = temperatures;
        let error = old.restore(state).unwrap_err();
        assert!(matches!(error, DkmError::State { .. }), "{error}");
    }
    let given = DkmSpec {
        temperature: Some(0.02),
        ..found
    };
    let error = with(&given).restore(palettizer.state()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("2 numbers of temperatures, expected 0")
    );
}

fn tensor<'a>(shape: &[usize], bytes: &'a [u8]) -> Content<'a> {
    Content::Dense(DenseTensor::new(ElementType::F32, shape.to_vec(), bytes))
}

#[test]
fn the_file_holds_what_evaluation_sees() {
    let folder = tempfile::tempdir().unwrap();
    let options = SaveOptions::overwriting(true);
    let path = |name: &str| folder.path().join(format!("{name}.safetensors"));
    // The checkpoint that the weights came from, with a tensor that is not trained here.
    let old = vec![0_u8; N * 4];
    let contents = [
        ("w", tensor(&[16, 16], &old)),
        ("head", tensor(&[2, 8], &old[..64])),
        ("bias", tensor(&[4], &[7; 16])),
    ];
    Checkpoint::write(path("before"), &contents, &Default::default(), options).unwrap();
    let checkpoint = Checkpoint::open(path("before")).unwrap();
    for lut in [DkmLut::Weight, DkmLut::F16, DkmLut::Int8, DkmLut::Uint8] {
        for scale in [None, Some(ScaleScheme::MinMax)] {
            let spec = DkmSpec {
                lut,
                scale,
                ..two_bits()
            };
            let mut palettizer = DkmPalettizer::new([
                ("w", vec![16, 16], DkmConfigs::from(config(spec))),
                ("head", vec![2, 8], DkmConfigs::from(None)),
            ])
            .unwrap();
            let (target, head) = (numbers(0.37), [0.25; 16]);
            let mut weights = numbers(0.91);
            step(&mut palettizer, &mut weights, &target);
            let mut hard = vec![0.0; N];
            palettizer.assign("w", &weights, &mut hard).unwrap();
            let done = palettizer
                .finalize([("head", head.as_slice()), ("w", weights.as_slice())])
                .unwrap();
            let rows = done.report.weights.iter();
            let compressed: Vec<bool> = rows.map(|row| row.figures().is_some()).collect();
            assert_eq!(compressed, [true, false]);
            assert!(done.report.bytes_after < done.report.bytes_before / 2);

            done.write_over(&checkpoint, path("small"), options)
                .unwrap();
            let small = Checkpoint::open(path("small")).unwrap();
            small.decompress_to(path("full"), options, &()).unwrap();
            let full = Checkpoint::open(path("full")).unwrap();
            let bytes = |name: &str| match full.get(name).unwrap() {
                Content::Dense(tensor) => tensor.bytes.to_vec(),
                Content::Palette(_) => Vec::new(),
            };
            let expected: Vec<u8> = hard.iter().flat_map(|w| w.to_le_bytes()).collect();
            assert_eq!(bytes("w"), expected, "{lut:?} {scale:?}");
            assert_eq!(bytes("head"), [0.25_f32; 16].map(f32::to_le_bytes).concat());
            assert_eq!(bytes("bias"), [7; 16]);
        }
    }
}

#[test]
fn of_several_configurations_the_largest_that_suits_is_taken() {
    let with = |nbits, weight_threshold, group_size| DkmConfig {
        spec: DkmSpec {
            nbits,
            group_size,
            ..DkmSpec::default()
        },
        weight_threshold,
        ..DkmConfig::default()
    };
    let configs = || {
        [
            with(Nbits::B4, 1000, None),
            with(Nbits::B2, 100, None),
            with(Nbits::B1, 200, Some(3)),
        ]
    };
    let table = [([16, 16], Some(2)), ([64, 32], Some(4)), ([10, 10], None)];
    for (shape, nbits) in table {
        let palettizer = DkmPalettizer::new([("w", shape, configs())]).unwrap();
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i as f32).sin()).collect();
        let done = palettizer.finalize([("w", values.as_slice())]).unwrap();
        let figures = done.report.weights[0].figures();
        assert_eq!(figures.map(|figures| figures.nbits), nbits, "{shape:?}");
    }
}

#[test]
fn errors_say_what_was_found() {
    let values = numbers(0.7);
    let mut out = vec![0.0; N];
    let mut palettizer = one(config(two_bits()));
    let same = ("a", [16, 16], config(two_bits()));
    let twice = DkmPalettizer::new([same.clone(), same]).unwrap_err();
    assert_eq!(twice, DkmError::Twice { name: "a".into() });
    let bad = config(DkmSpec {
        temperature: Some(-1.0),
        ..two_bits()
    });
    let error = DkmPalettizer::new([("a", [16, 16], bad)]).unwrap_err();
    assert!(matches!(error, DkmError::Spec { .. }));
    let error = palettizer.forward("x", &values, &mut out).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no weight is called \"x\"; the palettizer was made with w"
    );
    let error = palettizer.forward("w", &values[1..], &mut out).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weight \"w\" of shape [16, 16]: values must hold 256 numbers, found 255"
    );
    let error = palettizer.backward("w", &values, &values, &mut out);
    assert!(matches!(error, Err(DkmError::NoForward { .. })));
    let mut nan = values.clone();
    nan[7] = f32::NAN;
    let error = palettizer.forward("w", &nan, &mut out).unwrap_err();
    assert!(matches!(
        error,
        DkmError::NonFinite {
            count: 1,
            elements: 256,
            ..
        }
    ));
    palettizer.forward("w", &values, &mut out).unwrap();
    let others = numbers(0.8);
    let error = palettizer.backward("w", &others, &values, &mut out);
    assert!(matches!(error, Err(DkmError::OtherValues { .. })));
    let none: [(&str, &[f32]); 0] = [];
    let error = palettizer.finalize(none).unwrap_err();
    assert!(matches!(error, DkmError::Missing { .. }));
    let twice = [("w", values.as_slice()), ("w", others.as_slice())];
    let error = palettizer.finalize(twice).unwrap_err();
    assert_eq!(error, DkmError::Twice { name: "w".into() });
}

#[test]
fn weights_that_have_diverged_are_refused_at_any_time_and_harm_nothing() {
    let values = numbers(0.7);
    let mut out = vec![0.0; N];
    let weights = [
        ("w", DkmConfigs::from(config(two_bits()))),
        ("alone", DkmConfigs::from(None)),
    ];
    let mut palettizer =
        DkmPalettizer::new(weights.map(|(name, configs)| (name, [16, 16], configs))).unwrap();
    palettizer.forward("w", &values, &mut out).unwrap();
    let before = palettizer.state();
    let mut bad = values.clone();
    (bad[7], bad[9]) = (f32::NAN, f32::INFINITY);
    let error = DkmError::NonFinite {
        name: "w".into(),
        count: 2,
        elements: N,
    };
    assert_eq!(palettizer.forward("w", &bad, &mut out), Err(error.clone()));
    assert_eq!(palettizer.assign("w", &bad, &mut out), Err(error.clone()));
    let named = [("w", bad.as_slice()), ("alone", values.as_slice())];
    assert_eq!(palettizer.finalize(named).unwrap_err(), error);
    assert_eq!(palettizer.state(), before);
    let named = [("w", values.as_slice()), ("alone", bad.as_slice())];
    assert!(palettizer.finalize(named).is_ok());
}

#[test]
fn a_state_of_something_else_is_refused_and_changes_nothing() {
    let values = numbers(0.7);
    let mut out = vec![0.0; N];
    let mut palettizer = one(config(two_bits()));
    palettizer.forward("w", &values, &mut out).unwrap();
    let before = palettizer.state();
    let mut state = before.clone();
    state.weights.get_mut("w").unwrap().centroids.pop();
    let error = palettizer.restore(state).unwrap_err();
    assert!(matches!(error, DkmError::State { .. }));
    let mut state = before.clone();
    state.weights.clear();
    let error = palettizer.restore(state).unwrap_err();
    assert!(matches!(error, DkmError::Missing { .. }));
    let mut state = before.clone();
    state.weights.insert("x".into(), Default::default());
    let error = palettizer.restore(state).unwrap_err();
    assert!(matches!(error, DkmError::UnknownWeight { .. }));
    assert_eq!(palettizer.state(), before);

    let mut state = before;
    state.weights.get_mut("w").unwrap().centroids[1] = f32::NAN;
    palettizer.restore(state).unwrap();
    let source = Refusal::NonFinite {
        count: 1,
        elements: 4,
    };
    let name = "w".into();
    let error = palettizer.assign("w", &values, &mut out).unwrap_err();
    assert_eq!(error, DkmError::Centroids { name, source });
}
