//! Weighted clustering against twins that try everything.
#![allow(clippy::unwrap_used)]

mod naive;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use palettizer_palette::{
    Context, Dtype, Granularity, LutDtype, Mode, Nbits, PaletteSpec, Refusal, Tensor, layout,
    palettize,
};
use proptest::prelude::*;

/// Least weighted squared error of `k` clusters of (value, weight): over all cuts of the sorted values.
fn optimum(mut points: Vec<(f64, f64)>, k: usize) -> f64 {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let cost = |run: &[(f64, f64)]| {
        let total: f64 = run.iter().map(|p| p.1).sum();
        let mean = run.iter().map(|p| p.0 * p.1).sum::<f64>() / total.max(f64::MIN_POSITIVE);
        run.iter().map(|p| p.1 * (p.0 - mean).powi(2)).sum::<f64>()
    };
    let n = points.len();
    let mut best: Vec<f64> = (0..=n).map(|to| cost(&points[..to])).collect();
    for _ in 1..k {
        let with_one_more = |to| {
            let cuts = (0..=to).map(|from: usize| best[from] + cost(&points[from..to]));
            cuts.fold(f64::INFINITY, f64::min)
        };
        best = (0..=n).map(with_one_more).collect();
    }
    best[n]
}

/// The group of every element, from the definition.
fn groups(shape: &[usize], spec: &PaletteSpec) -> Vec<usize> {
    let plan = layout(shape, Some(0), spec).unwrap();
    let count = shape.iter().product();
    (0..count)
        .map(|at| match plan.group_axis {
            None => 0,
            Some(axis) => naive::coordinates(at, shape)[axis] / (shape[axis] / plan.groups),
        })
        .collect()
}

/// Sensitivities from nothing to much, many of them nothing.
fn sensitivities(count: usize, seed: u64) -> Vec<f32> {
    let mut next = naive::random(seed);
    (0..count)
        .map(|_| {
            if next() < 0.2 {
                0.0
            } else {
                (10.0 * next() - 5.0).exp() as f32
            }
        })
        .collect()
}

fn weighted(dense: &[u8], tensor: &Tensor<'_>, weights: &[f32]) -> Vec<f64> {
    (0..tensor.len())
        .map(|at| {
            let lost = naive::read(tensor.dtype(), tensor.bytes(), at)
                - naive::read(tensor.dtype(), dense, at);
            f64::from(weights[at]) * lost * lost
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn scalars_are_optimal(
        seed: u64,
        nbits in prop::sample::select(vec![Nbits::B1, Nbits::B2, Nbits::B3]),
        axis in prop::option::of(0_i64..3),
        scale: bool,
        output_axis in 0_usize..3,
        masked: bool,
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16]),
    ) {
        let shape = [4, 3, 6];
        let mut spec = PaletteSpec::new(Mode::Kmeans(nbits)).with_per_channel_scale(scale);
        if let Some(axis) = axis {
            let group_size = [2, 1, 3][axis as usize];
            spec = spec.with_granularity(Granularity::PerGroupedChannel { group_size, channel_axis: Some(axis) });
        }
        let bytes = naive::weight(dtype, 72, 18, seed);
        let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
        let weights = sensitivities(72, seed ^ 1);
        let mut next = naive::random(seed ^ 2);
        let mask: Vec<u8> = (0..9).map(|_| (next() * 256.0) as u8).collect();
        let context = Context {
            output_axis: Some(output_axis),
            mask: masked.then_some(&mask[..]),
            sensitivity: Some(&weights),
            ..Context::default()
        };
        let palette = palettize(&tensor, &spec, &context).unwrap();
        let dense = palette.decompress();
        let lost = weighted(&dense, &tensor, &weights);
        let groups = groups(&shape, &spec);
        let scale_of = |at: usize| match &palette.scale {
            None => 1.0,
            Some(scale) => naive::read(dtype, &scale.bytes, naive::coordinates(at, &shape)[output_axis]),
        };
        // What rounding an entry and a product can cost at most, beside the optimum.
        let ulp = match dtype { Dtype::F32 => 2e-7, Dtype::F16 => 1e-3, _ => 8e-3 };
        for group in 0..=*groups.iter().max().unwrap() {
            let kept = |at: &usize| groups[*at] == group && (!masked || naive::bit(&mask, *at));
            let members: Vec<usize> = (0..72).filter(kept).collect();
            let value = |at: usize| naive::read(dtype, &bytes, at);
            let points = members.iter().map(|&at| {
                (value(at) / scale_of(at), f64::from(weights[at]) * scale_of(at).powi(2))
            });
            let best = optimum(points.collect(), nbits.entries());
            let found: f64 = members.iter().map(|&at| lost[at]).sum();
            let largest = members.iter().map(|&at| value(at).abs() * 2.0 * ulp);
            let slack = largest.fold(0.0, f64::max).powi(2) * members.iter().map(|&at| f64::from(weights[at])).sum::<f64>();
            // (a + b)² where a is the optimum's error and b the rounding's.
            let most = (best.sqrt() + slack.sqrt()).powi(2) * (1.0 + 1e-5);
            prop_assert!(found <= most, "{found} {best} {slack}");
        }
    }

    #[test]
    fn an_entry_is_the_mean_of_its_vectors_and_near_the_optimum(seed: u64, columns: bool) {
        // Eight vectors of two: along the first axis they are far apart in memory, along the second together.
        let (shape, axis) = if columns { ([4, 4], 0) } else { ([8, 2], 1) };
        let bytes = naive::weight(Dtype::F32, 16, 16, seed);
        let tensor = Tensor::new(Dtype::F32, &shape, &bytes).unwrap();
        let weights = sensitivities(16, seed ^ 1);
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B1)).with_cluster_dim(2);
        let context = Context { sensitivity: Some(&weights), ..naive::on(Some(axis)) };
        let palette = palettize(&tensor, &spec, &context).unwrap();
        let dense = palette.decompress();
        let value = |bytes: &[u8], at| naive::read(Dtype::F32, bytes, at);
        let pairs: Vec<[usize; 2]> = (0..16)
            .filter(|&at| naive::coordinates(at, &shape)[axis].is_multiple_of(2))
            .map(|at| [at, at + if columns { 4 } else { 1 }])
            .collect();
        // A vector weighs what its elements weigh together.
        let weight = |pair: &[usize; 2]| pair.iter().map(|&at| f64::from(weights[at])).sum::<f64>();
        let cost = |members: Vec<&[usize; 2]>| {
            let total: f64 = members.iter().map(|pair| weight(pair)).sum();
            (0..2).map(|d| {
                let mean = members.iter().map(|p| weight(p) * value(&bytes, p[d])).sum::<f64>() / total.max(1e-300);
                members.iter().map(|p| weight(p) * (value(&bytes, p[d]) - mean).powi(2)).sum::<f64>()
            }).sum::<f64>()
        };
        let part = |bits: usize, side: usize| cost(pairs.iter().enumerate().filter(|(i, _)| bits >> i & 1 == side).map(|(_, p)| p).collect());
        let best = (0..256).map(|bits| part(bits, 0) + part(bits, 1)).fold(f64::INFINITY, f64::min);
        let found: f64 = pairs.iter().map(|p| {
            let lost = p.iter().map(|&at| (value(&bytes, at) - value(&dense, at)).powi(2));
            weight(p) * lost.sum::<f64>()
        }).sum();
        prop_assert!(found <= best * 1.6 + 1e-9, "{found} {best}");
        // An entry is the weighted mean of its vectors, if they weigh anything.
        for of in &pairs {
            let members: Vec<_> = pairs.iter().filter(|p| (0..2).all(|d| value(&dense, p[d]) == value(&dense, of[d]))).collect();
            let total: f64 = members.iter().map(|p| weight(p)).sum();
            for d in 0..2 {
                let mean = members.iter().map(|p| weight(p) * value(&bytes, p[d])).sum::<f64>() / total;
                let entry = value(&dense, of[d]);
                prop_assert!(total == 0.0 || (mean - entry).abs() < 1e-3, "{mean} {entry}");
            }
        }
    }

    #[test]
    fn all_the_same_change_nothing(seed: u64, one in 1e-20_f32..1e20, dim in 1_usize..3, scale: bool, grouped: bool) {
        let bytes = naive::weight(Dtype::F32, 1200, 40, seed);
        let tensor = Tensor::new(Dtype::F32, &[30, 40], &bytes).unwrap();
        let mut spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3)).with_cluster_dim(dim).with_per_channel_scale(scale);
        if grouped {
            spec = spec.with_granularity(Granularity::PerGroupedChannel { group_size: 10, channel_axis: Some(1) });
        }
        let plain = palettize(&tensor, &spec, &naive::on(Some(0)));
        let weights = [one; 1200];
        let context = Context { sensitivity: Some(&weights), ..naive::on(Some(0)) };
        prop_assert_eq!(palettize(&tensor, &spec, &context), plain);
    }
}

#[test]
fn what_weighs_nothing_moves_nothing() {
    // Half of the values weigh nothing: whatever they are, the others fare the same.
    for dtype in [Dtype::F32, Dtype::F16] {
        let bytes = naive::weight(dtype, 4000, 4000, 3);
        let mut other = bytes.clone();
        let half = other.len() / 2;
        other[half..].copy_from_slice(&naive::encode(dtype, &[0.123; 2000]));
        let mut weights = sensitivities(4000, 4);
        weights[2000..].fill(0.0);
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
        let kept = |bytes: &[u8]| {
            let tensor = Tensor::new(dtype, &[2000, 2], bytes).unwrap();
            let context = Context {
                sensitivity: Some(&weights),
                ..naive::on(Some(1))
            };
            let palette = palettize(&tensor, &spec, &context).unwrap();
            palette.decompress()[..half].to_vec()
        };
        assert_eq!(kept(&bytes), kept(&other));
    }
}

#[test]
fn a_group_that_weighs_nothing_is_clustered_all_the_same() {
    let bytes = naive::weight(Dtype::F32, 600, 60, 8);
    let tensor = Tensor::new(Dtype::F32, &[10, 60], &bytes).unwrap();
    let spec = |dim| {
        PaletteSpec::new(Mode::Kmeans(Nbits::B2))
            .with_cluster_dim(dim)
            .with_granularity(Granularity::PerGroupedChannel {
                group_size: 20,
                channel_axis: Some(1),
            })
    };
    let mut weights = sensitivities(600, 9);
    (0..600)
        .filter(|at| at % 60 < 20)
        .for_each(|at| weights[at] = 0.0);
    for dim in [1, 2] {
        let context = Context {
            sensitivity: Some(&weights),
            ..naive::on(Some(0))
        };
        let found = palettize(&tensor, &spec(dim), &context).unwrap();
        let plain = palettize(&tensor, &spec(dim), &naive::on(Some(0))).unwrap();
        let (found, plain) = (found.decompress(), plain.decompress());
        let first = |dense: &[u8]| -> Vec<u8> {
            dense
                .chunks(240)
                .flat_map(|row| &row[..80])
                .copied()
                .collect()
        };
        assert_eq!(first(&found), first(&plain));
        assert_ne!(found, plain);
    }
}

#[test]
fn errors_count_where_they_matter() {
    // On average over the weights the error grows, where it matters it falls.
    let bytes = naive::weight(Dtype::F16, 64 * 64, 64, 5);
    let tensor = Tensor::new(Dtype::F16, &[64, 64], &bytes).unwrap();
    let weights = sensitivities(64 * 64, 6);
    for (dim, scale, lut_dtype) in [
        (1, false, LutDtype::Float),
        (1, true, LutDtype::Float),
        (1, false, LutDtype::Int8),
        (2, false, LutDtype::Float),
        (2, true, LutDtype::Uint8),
        (4, false, LutDtype::Float),
    ] {
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
            .with_cluster_dim(dim)
            .with_per_channel_scale(scale)
            .with_lut_dtype(lut_dtype);
        let plain = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
        let context = Context {
            sensitivity: Some(&weights),
            ..naive::on(Some(0))
        };
        let found = palettize(&tensor, &spec, &context).unwrap();
        let total = |dense: Vec<u8>| weighted(&dense, &tensor, &weights).iter().sum::<f64>();
        let (with, without) = (total(found.decompress()), total(plain.decompress()));
        assert!(with < without * 0.99, "{with} {without} {spec:?}");
        assert!(found.error.squared_error > plain.error.squared_error);
    }
}

#[test]
fn tiny_sensitivities_count_like_large_ones() {
    let bytes = naive::weight(Dtype::F32, 900, 90, 5);
    let tensor = Tensor::new(Dtype::F32, &[10, 90], &bytes).unwrap();
    let weights = sensitivities(900, 6);
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3)).with_per_channel_scale(true);
    let run = |factor: f32| {
        let weights: Vec<f32> = weights.iter().map(|w| w * factor).collect();
        let context = Context {
            sensitivity: Some(&weights),
            ..naive::on(Some(0))
        };
        palettize(&tensor, &spec, &context).unwrap()
    };
    // Powers of two: exact.
    assert_eq!(run(2_f32.powi(-100)), run(1.0));
    assert_eq!(run(2_f32.powi(100)), run(1.0));
}

#[test]
fn other_modes_do_not_look() {
    let bytes = naive::encode(Dtype::F32, &[1.0, 2.0, 3.0, 7.0, 7.0, 9.0]);
    let tensor = Tensor::new(Dtype::F32, &[2, 3], &bytes).unwrap();
    let context = Context {
        sensitivity: Some(&[9.0, 0.0, 1.0, 1.0, 5.0, 0.0]),
        ..naive::on(Some(0))
    };
    for mode in [Mode::Uniform(Nbits::B1), Mode::Unique] {
        let spec = PaletteSpec::new(mode);
        assert_eq!(
            palettize(&tensor, &spec, &context),
            palettize(&tensor, &spec, &naive::on(Some(0)))
        );
    }
}

#[test]
fn sensitivities_that_say_nothing() {
    let bytes = naive::encode(Dtype::F32, &[1.0, 2.0, 3.0, 7.0]);
    let tensor = Tensor::new(Dtype::F32, &[2, 2], &bytes).unwrap();
    for mode in [Mode::Kmeans(Nbits::B1), Mode::Unique] {
        let refuse = |sensitivity: &[f32]| {
            let context = Context {
                sensitivity: Some(sensitivity),
                ..Context::default()
            };
            palettize(&tensor, &PaletteSpec::new(mode.clone()), &context).unwrap_err()
        };
        let refusal = refuse(&[1.0; 5]);
        assert_eq!(
            refusal,
            Refusal::SensitivityLength {
                elements: 4,
                found: 5
            }
        );
        assert_eq!(
            refusal.to_string(),
            "a weight of 4 elements needs as many sensitivities, found 5"
        );
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let refusal = refuse(&[1.0, bad, 2.0, bad]);
            assert_eq!(
                refusal,
                Refusal::Sensitivity {
                    count: 2,
                    elements: 4
                }
            );
        }
    }
}

#[test]
fn work_that_is_no_longer_wanted_ends() {
    let bytes = naive::weight(Dtype::F32, 1 << 20, 1 << 10, 1);
    let tensor = Tensor::new(Dtype::F32, &[1 << 10, 1 << 10], &bytes).unwrap();
    let vectors = PaletteSpec::new(Mode::Kmeans(Nbits::B8)).with_cluster_dim(4);
    let grouped = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_granularity(
        Granularity::PerGroupedChannel {
            group_size: 1,
            channel_axis: None,
        },
    );
    let stop = AtomicBool::new(true);
    let context = Context {
        stop: Some(&stop),
        ..naive::on(Some(0))
    };
    for spec in [&vectors, &grouped] {
        assert_eq!(palettize(&tensor, spec, &context), Err(Refusal::Stopped));
    }
    // Set while it works, which would take a second and more.
    stop.store(false, Relaxed);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| stop.store(true, Relaxed));
        palettize(&tensor, &vectors, &context)
    });
    assert_eq!(found, Err(Refusal::Stopped));
    assert_eq!(Refusal::Stopped.to_string(), "stopped on request");
}
