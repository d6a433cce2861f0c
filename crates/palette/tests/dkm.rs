//! Differentiable k-means of whole weights: what is seeded, what is trained, and that the palette is the weight that evaluation sees.

#![allow(clippy::unwrap_used, clippy::panic)]

use half::{bf16, f16};
use palettizer_kernels::Real;
use palettizer_palette::{
    Context, Dkm, DkmConstants, DkmElement, DkmForward, DkmLut, DkmMode, DkmSpec, Dtype, Lut, Mode,
    Nbits, PaletteSpec, Refusal, ScaleScheme, Tensor, palettize,
};

/// Numbers that look normal.
fn noise(n: usize, by: f64) -> Vec<f64> {
    let mut state = 7_u64;
    let mut unit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let normal = |_| (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos() * by;
    (0..n).map(normal).collect()
}

struct Step<E: DkmElement> {
    out: Vec<E>,
    next: Vec<E::Real>,
    gradient: Vec<E>,
}

/// One training step: forward from some centroids, and the gradient for a loss whose gradient is the soft weight.
fn step<E: DkmElement>(
    dkm: &Dkm,
    values: &[E],
    centroids: &[E::Real],
    scale: Option<&[E::Real]>,
) -> Step<E> {
    let (mut out, mut next) = (values.to_vec(), centroids.to_vec());
    let mut saved = vec![E::Real::ZERO; dkm.saved_len()];
    let forward = DkmForward {
        out: &mut out,
        next: &mut next,
        saved: &mut saved,
    };
    let temperatures = dkm.temperatures(values, centroids, scale).unwrap();
    let constants = DkmConstants {
        scale,
        temperatures: &temperatures,
        noise: 3,
    };
    dkm.forward(values, centroids, constants, forward).unwrap();
    let mut gradient = values.to_vec();
    dkm.backward(values, constants, &saved, &out, &mut gradient)
        .unwrap();
    Step {
        out,
        next,
        gradient,
    }
}

fn dense<E: DkmElement>(numbers: &[f64]) -> Vec<E> {
    let reals: Vec<E::Real> = numbers.iter().map(|&x| E::Real::from_f64(x)).collect();
    let mut out: Vec<E> = bytemuck::zeroed_vec(reals.len());
    E::narrow(&reals, &mut out);
    out
}

/// Trains a little, and compares the evaluated weight with the palette's dense weight, bit for bit.
fn evaluated_is_finished<E: DkmElement>(spec: &DkmSpec, shape: &[usize]) {
    let n: usize = shape.iter().product();
    let values: Vec<E> = dense(&noise(n, 0.04));
    let dkm = Dkm::new(spec.clone(), shape).unwrap();
    let scale = dkm.channel_scale(&values).unwrap();
    let scale = scale.as_deref();
    let seeds = dkm.seed(&values, scale, None).unwrap();
    assert_eq!(seeds.len(), dkm.centroids_len());
    let next = step(&dkm, &values, &seeds, scale).next;
    let mut hard = values.clone();
    dkm.assign(&values, &next, scale, &mut hard).unwrap();
    let palette = dkm.palette(&values, &next, scale).unwrap();
    let reals: Vec<f64> = widened(&hard);
    let found = palette.try_decompress().unwrap();
    let found: Vec<f64> = match palette.dtype {
        Dtype::F32 => widened::<f32>(&bytemuck::pod_collect_to_vec(&found)),
        Dtype::F16 => widened::<f16>(&bytemuck::pod_collect_to_vec(&found)),
        _ => widened::<bf16>(&bytemuck::pod_collect_to_vec(&found)),
    };
    assert_eq!(reals, found, "{spec:?} {shape:?}");
    let tables = palette.lut_shape.iter().rev().skip(2).product::<usize>();
    assert!(tables >= dkm.groups());
    let energy: f64 = widened(&values).iter().map(|x| x * x).sum();
    assert!((palette.error.energy - energy).abs() < 1e-9 * energy);
    assert!(palette.error.squared_error < energy);
}

fn widened<E: DkmElement>(values: &[E]) -> Vec<f64> {
    let mut reals = vec![E::Real::ZERO; values.len()];
    E::widen(values, &mut reals);
    reals.iter().map(|x| x.to_f64()).collect()
}

#[test]
fn the_palette_is_the_weight_that_evaluation_sees() {
    let luts = [
        DkmLut::Weight,
        DkmLut::F16,
        DkmLut::Bf16,
        DkmLut::Int8,
        DkmLut::Uint8,
    ];
    let scales = [None, Some(ScaleScheme::MinMax), Some(ScaleScheme::Abs)];
    for lut in luts {
        for scale in scales {
            for (group_size, cluster_dim) in [(None, 1), (Some(8), 1), (None, 2), (Some(4), 4)] {
                let spec = DkmSpec {
                    nbits: Nbits::B3,
                    lut,
                    scale,
                    group_size,
                    cluster_dim,
                    ..DkmSpec::default()
                };
                evaluated_is_finished::<f32>(&spec, &[16, 3, 5]);
                evaluated_is_finished::<f16>(&spec, &[16, 15]);
                evaluated_is_finished::<bf16>(&spec, &[16, 15]);
                evaluated_is_finished::<f64>(&spec, &[16, 15]);
            }
        }
    }
    let one = DkmSpec {
        nbits: Nbits::B1,
        enforce_zero: true,
        prune_threshold: Some(1e-3),
        ..DkmSpec::default()
    };
    evaluated_is_finished::<f32>(&one, &[40]);
}

#[test]
fn scalars_start_from_the_optimum() {
    let values: Vec<f32> = dense(&noise(600, 0.05));
    let bytes: &[u8] = bytemuck::cast_slice(&values);
    let tensor = Tensor::new(Dtype::F32, &[20, 30], bytes).unwrap();
    let kmeans = PaletteSpec::new(Mode::Kmeans(Nbits::B3));
    let Lut::Float(best) = palettize(&tensor, &kmeans, &Context::default())
        .unwrap()
        .lut
    else {
        panic!("a float table was asked for");
    };
    let spec = DkmSpec {
        nbits: Nbits::B3,
        ..DkmSpec::default()
    };
    let dkm = Dkm::new(spec, &[20, 30]).unwrap();
    let seeds = dkm.seed(&values, None, None).unwrap();
    assert_eq!(bytemuck::cast_slice::<f32, u8>(&seeds), best);
}

#[test]
fn few_values_repeat_the_last_centroid_and_training_moves_it_apart() {
    let values: Vec<f64> = (0..32).map(|i| f64::from(i % 3)).collect();
    let spec = DkmSpec {
        nbits: Nbits::B3,
        ..DkmSpec::default()
    };
    let dkm = Dkm::new(spec.clone(), &[4, 8]).unwrap();
    let seeds = dkm.seed(&values, None, None).unwrap();
    assert_eq!(seeds, [0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    // The first of the equal ones goes half the way to the least; nothing is near it, so it stays there.
    let next = step(&dkm, &values, &seeds, None).next;
    assert!((next[2] - 1.0).abs() < 1e-3, "{next:?}");
    assert!((next[3] - 2.0).abs() < 1e-3, "{next:?}");
    // With a tolerance nothing is moved.
    let spec = DkmSpec {
        cluster_tolerance: 0.7,
        ..spec
    };
    let dkm = Dkm::new(spec, &[4, 8]).unwrap();
    assert!((step(&dkm, &values, &seeds, None).next[2] - 2.0).abs() < 1e-3);
}

#[test]
fn zero_stays_zero() {
    let mut values = noise(64, 0.1);
    values.iter_mut().step_by(2).for_each(|v| *v = 0.0);
    for prune_threshold in [Some(0.0), Some(1e-4), None] {
        let spec = DkmSpec {
            nbits: Nbits::B2,
            enforce_zero: true,
            prune_threshold,
            ..DkmSpec::default()
        };
        let dkm = Dkm::new(spec, &[8, 8]).unwrap();
        let seeds = dkm.seed(&values, None, None).unwrap();
        assert_eq!(seeds[0], 0.0);
        let found = step(&dkm, &values, &seeds, None);
        assert_eq!(found.next[0], 0.0);
        if prune_threshold == Some(0.0) {
            // A value that is not zero keeps off it.
            assert!(
                found
                    .out
                    .iter()
                    .zip(&values)
                    .all(|(w, v)| *v == 0.0 || w.abs() > 1e-4)
            );
        }
    }
}

#[test]
fn groups_that_are_not_trained_are_held() {
    let values = noise(256, 0.05);
    let spec = DkmSpec {
        nbits: Nbits::B2,
        group_size: Some(4),
        enabled: 0.5,
        ..DkmSpec::default()
    };
    let dkm = Dkm::new(spec, &[16, 16]).unwrap();
    let seeds = dkm.seed(&values, None, None).unwrap();
    let found = step(&dkm, &values, &seeds, None);
    assert_eq!(found.next[8..], seeds[8..]);
    assert_ne!(found.next[..8], seeds[..8]);
    assert!(found.gradient[128..].iter().all(|&g| g == 0.0));
    assert!(found.gradient[..128].iter().any(|&g| g != 0.0));
    let held = &found.out[128..];
    assert!(held.iter().all(|w| seeds[8..].contains(w)));
}

#[test]
fn scales_are_halves_and_never_zero() {
    let mut values: Vec<f32> = dense(&noise(64, 0.1));
    values[..16].fill(0.0);
    values[16..32].fill(0.25);
    for (scheme, constant) in [(ScaleScheme::MinMax, 1.0), (ScaleScheme::Abs, 0.25)] {
        let spec = DkmSpec {
            nbits: Nbits::B1,
            scale: Some(scheme),
            ..DkmSpec::default()
        };
        let dkm = Dkm::new(spec, &[4, 16]).unwrap();
        let scale = dkm.channel_scale(&values).unwrap().unwrap();
        assert_eq!(scale[..2], [1.0, constant]);
        for (row, scale) in values.chunks(16).zip(&scale).skip(2) {
            let (low, high) = row
                .iter()
                .fold((0_f32, 0_f32), |(l, h), &x| (l.min(x), h.max(x)));
            let exact = match scheme {
                ScaleScheme::MinMax => (high - low) / 2.0,
                ScaleScheme::Abs => high.max(-low),
            };
            assert!(*scale >= exact && *scale < exact * 1.001);
            assert_eq!(f16::from_f32(*scale).to_f32(), *scale);
        }
    }
}

#[test]
fn noise_is_a_function_of_its_seed_and_group() {
    let values = noise(128, 0.05);
    let twice = [values.clone(), values].concat();
    let spec = DkmSpec {
        nbits: Nbits::B2,
        mode: DkmMode::Gsm,
        group_size: Some(8),
        temperature: Some(1e-3),
        ..DkmSpec::default()
    };
    let dkm = Dkm::new(spec, &[16, 16]).unwrap();
    let seeds = dkm.seed(&twice, None, None).unwrap();
    let (a, b) = (
        step(&dkm, &twice, &seeds, None),
        step(&dkm, &twice, &seeds, None),
    );
    assert_eq!((a.out.as_slice(), a.next), (b.out.as_slice(), b.next));
    assert_ne!(a.out[..128], a.out[128..]);
}

#[test]
fn what_cannot_be_is_refused() {
    let spec = DkmSpec::default;
    let fields = [
        (
            DkmSpec {
                temperature: Some(f64::NAN),
                ..spec()
            },
            "temperature",
        ),
        (
            DkmSpec {
                epsilon: -1.0,
                ..spec()
            },
            "epsilon",
        ),
        (
            DkmSpec {
                floor: Some(1.0),
                ..spec()
            },
            "floor",
        ),
        (
            DkmSpec {
                prune_threshold: Some(f64::INFINITY),
                ..spec()
            },
            "prune_threshold",
        ),
        (
            DkmSpec {
                cluster_tolerance: -0.1,
                ..spec()
            },
            "cluster_tolerance",
        ),
        (
            DkmSpec {
                enabled: 0.0,
                ..spec()
            },
            "enabled",
        ),
        (
            DkmSpec {
                iterations: 0,
                ..spec()
            },
            "iterations",
        ),
        (
            DkmSpec {
                cluster_dim: 0,
                ..spec()
            },
            "cluster_dim",
        ),
        (
            DkmSpec {
                group_size: Some(0),
                ..spec()
            },
            "group_size",
        ),
    ];
    for (spec, field) in fields {
        match Dkm::new(spec, &[16, 16]) {
            Err(Refusal::Spec(error)) => assert_eq!(error.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let grouped = |group_size, cluster_dim| DkmSpec {
        group_size: Some(group_size),
        cluster_dim,
        ..spec()
    };
    assert!(matches!(
        Dkm::new(grouped(3, 1), &[16, 16]),
        Err(Refusal::GroupSize { .. })
    ));
    assert!(matches!(
        Dkm::new(grouped(4, 3), &[16, 16]),
        Err(Refusal::ClusterDim { .. })
    ));
    assert!(matches!(Dkm::new(spec(), &[]), Err(Refusal::Scalar)));
    assert!(matches!(
        Dkm::new(spec(), &[0, 3]),
        Err(Refusal::Empty { .. })
    ));
    let few = Dkm::new(spec(), &[3, 5]).unwrap_err();
    assert_eq!(
        few.to_string(),
        "a group of 15 elements is too small for 16 centroids of 1: take fewer bits or larger groups"
    );
    let dkm = Dkm::new(spec(), &[8, 8]).unwrap();
    let error = dkm.seed(&[0.0_f32; 63], None, None).unwrap_err();
    assert_eq!(error.to_string(), "values must hold 64 numbers, found 63");
    let error = dkm.seed(&[f32::NAN; 64], None, None).unwrap_err();
    assert_eq!(
        error,
        Refusal::NonFinite {
            count: 64,
            elements: 64
        }
    );
    let error = dkm
        .palette(&[0.0_f32; 64], &[f32::INFINITY; 16], None)
        .unwrap_err();
    assert_eq!(
        error,
        Refusal::NonFinite {
            count: 16,
            elements: 16
        }
    );
    let scale = [1.0; 8];
    let error = dkm.seed(&[0.0_f32; 64], Some(&scale), None).unwrap_err();
    assert_eq!(error.to_string(), "scale must hold 0 numbers, found 8");
}
