//! All modes × widths × granularities × vectors × scales × LUT dtypes × dtypes, on small weights, against the twin.
#![allow(clippy::unwrap_used)]

mod naive;

use naive::check::check;
use palettizer_palette::{
    Context, CustomLut, Deferred, Dtype, Granularity, LutDtype, LutFunction, Mode, Nbits,
    PaletteSpec, Refusal, Tensor, layout, palettize, suits,
};

const SHAPE: [usize; 3] = [8, 6, 4];

fn modes() -> Vec<Mode> {
    let mut modes: Vec<Mode> = Nbits::ALL.map(Mode::Kmeans).to_vec();
    modes.extend(Nbits::ALL.map(Mode::Uniform));
    modes.push(Mode::Unique);
    modes.push(Mode::Custom(LutFunction::new(|values, group| {
        assert_eq!(values.len(), group.shape.iter().product::<usize>());
        Ok(CustomLut::new(
            vec![1.0, -0.5, 0.0],
            values
                .iter()
                .map(|&v| if v > 0.5 { 0 } else { u8::from(v < -0.2) * 2 })
                .map(|i| i % 3)
                .collect(),
        ))
    })));
    modes
}

fn granularities() -> Vec<Granularity> {
    let grouped = |group_size, channel_axis| Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    };
    vec![
        Granularity::PerTensor,
        grouped(2, None),
        grouped(8, Some(0)),
        grouped(2, Some(1)),
        grouped(1, Some(-1)),
    ]
}

/// Every spec, with an output axis.
fn requests() -> Vec<(PaletteSpec, Option<usize>)> {
    let mut all = Vec::new();
    for mode in modes() {
        for granularity in granularities() {
            for cluster_dim in [1, 2] {
                for lut_dtype in [LutDtype::Float, LutDtype::Int8, LutDtype::Uint8] {
                    for (scale, axis) in [
                        (false, Some(0)),
                        (true, Some(0)),
                        (true, Some(1)),
                        (true, Some(2)),
                    ] {
                        let spec = PaletteSpec::new(mode.clone())
                            .with_granularity(granularity)
                            .with_cluster_dim(cluster_dim)
                            .with_lut_dtype(lut_dtype)
                            .with_per_channel_scale(scale)
                            .with_seed(7);
                        if spec.validate().is_err() {
                            continue;
                        }
                        all.push((spec.clone(), axis));
                        let folded = spec.with_fold_scale(true);
                        if scale && lut_dtype != LutDtype::Float && folded.validate().is_ok() {
                            all.push((folded, axis));
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn every_combination() {
    let requests = requests();
    let (mut palettes, mut deferred) = (0, 0);
    for dtype in Dtype::ALL {
        let bytes = naive::weight(dtype, SHAPE.iter().product(), 24, 5);
        let tensor = Tensor::new(dtype, &SHAPE, &bytes).unwrap();
        for (spec, axis) in &requests {
            let plan = layout(&SHAPE, *axis, spec);
            let found = palettize(&tensor, spec, &naive::on(*axis));
            match Deferred::new(&tensor, spec, &naive::on(*axis)) {
                Ok(None) => {}
                Ok(Some(later)) => {
                    let mut palette = later.palette(&bytes).unwrap();
                    assert_eq!(found.as_ref(), Ok(&palette));
                    let mut dense = bytes.clone();
                    let replaced = later.replace(&mut dense).unwrap();
                    assert_eq!(dense, palette.decompress());
                    palette.indices.clear();
                    assert_eq!(replaced, palette);
                    let short = later.replace(&mut dense[dtype.size()..]);
                    assert!(matches!(
                        short,
                        Err(Refusal::Length {
                            expected: 192,
                            found: 191,
                            ..
                        })
                    ));
                    deferred += 1;
                }
                Err(refusal) => assert_eq!(found, Err(refusal)),
            }
            match (
                plan.and_then(|plan| suits(dtype, false, spec).map(|()| plan)),
                found,
            ) {
                (Err(planned), found) => assert_eq!(found, Err(planned)),
                (Ok(plan), Ok(palette)) => {
                    check(&tensor, spec, &plan, &palette);
                    palettes += 1;
                }
                (Ok(_), Err(refusal)) => panic!("{refusal}: {spec:?}"),
            }
        }
    }
    assert!(palettes > 3000 && deferred > 300, "{palettes} {deferred}");
}

#[test]
fn every_combination_of_a_pruned_weight() {
    let mut next = naive::random(3);
    // One group of axis 1 keeps nothing at all.
    let count: usize = SHAPE.iter().product();
    let kept: Vec<bool> = (0..count)
        .map(|at| at / 4 % 6 > 1 && next() < 0.4)
        .collect();
    let mut mask = vec![0_u8; count.div_ceil(8)];
    (0..count)
        .filter(|&at| kept[at])
        .for_each(|at| mask[at / 8] |= 1 << (at % 8));
    for dtype in Dtype::ALL {
        let mut bytes = naive::weight(dtype, count, 24, 6);
        for at in (0..count).filter(|&at| !kept[at]) {
            bytes[at * dtype.size()..][..dtype.size()].fill(0);
        }
        let tensor = Tensor::new(dtype, &SHAPE, &bytes).unwrap();
        for (spec, axis) in requests() {
            let Ok(plan) = layout(&SHAPE, axis, &spec) else {
                continue;
            };
            if let Err(refusal) = suits(dtype, true, &spec) {
                assert_eq!(
                    palettize(
                        &tensor,
                        &spec,
                        &Context {
                            mask: Some(&mask),
                            ..naive::on(axis)
                        }
                    ),
                    Err(refusal)
                );
            } else {
                let palette = palettize(
                    &tensor,
                    &spec,
                    &Context {
                        mask: Some(&mask),
                        ..naive::on(axis)
                    },
                )
                .unwrap();
                check(&tensor, &spec, &plan, &palette);
                let kept = kept.iter().filter(|&&k| k).count();
                let bits = kept * palette.nbits.bits() as usize;
                assert_eq!(palette.indices.len(), bits.div_ceil(8));
            }
        }
    }
}

#[test]
fn kmeans_is_never_worse_than_uniform_nor_finer_than_coarser() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let bytes = naive::weight(dtype, 4096, 64, 9);
        let tensor = Tensor::new(dtype, &[64, 64], &bytes).unwrap();
        for granularity in granularities() {
            let mut last = f64::INFINITY;
            for nbits in Nbits::ALL {
                let lost = |mode| {
                    let spec = PaletteSpec::new(mode).with_granularity(granularity);
                    palettize(&tensor, &spec, &naive::on(Some(0)))
                        .unwrap()
                        .error
                };
                let error = lost(Mode::Kmeans(nbits));
                // Rounding the centroids costs a little; bf16 rounds the most.
                let uniform = lost(Mode::Uniform(nbits));
                assert!(
                    error.squared_error <= uniform.squared_error * 1.02,
                    "{dtype:?} {nbits}"
                );
                assert!(error.squared_error <= last);
                assert!(error.gap < 1e-3);
                last = error.squared_error;
            }
        }
    }
}

#[test]
fn long_runs_and_many_channels() {
    // Rows longer than any table, and channels side by side in every way they can lie.
    let shape = [5, 4, 300];
    for (dtype, output_axis) in [
        (Dtype::F16, 0),
        (Dtype::BF16, 1),
        (Dtype::F32, 2),
        (Dtype::F16, 2),
    ] {
        let bytes = naive::weight(dtype, 6000, 300, 11);
        let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
        for group_axis in [0, 1, 2] {
            for (scale, dim) in [(false, 1), (true, 1), (true, 5)] {
                let group_size = [5, 2, 50][group_axis as usize];
                let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
                    .with_per_channel_scale(scale)
                    .with_cluster_dim(dim)
                    .with_granularity(Granularity::PerGroupedChannel {
                        group_size,
                        channel_axis: Some(group_axis),
                    });
                let Ok(plan) = layout(&shape, Some(output_axis), &spec) else {
                    continue;
                };
                let palette = palettize(&tensor, &spec, &naive::on(Some(output_axis))).unwrap();
                check(&tensor, &spec, &plan, &palette);
            }
        }
    }
}

#[test]
fn scaling_pays_where_rows_differ() {
    let mut next = naive::random(1);
    let values: Vec<f64> = (0..64 * 64)
        .map(|at| (next() - 0.5) * 0.01 * f64::from(1 << (at / 64 % 8)))
        .collect();
    let bytes = naive::encode(Dtype::F16, &values);
    let tensor = Tensor::new(Dtype::F16, &[64, 64], &bytes).unwrap();
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3));
    let snr = |spec: &PaletteSpec| {
        palettize(&tensor, spec, &naive::on(Some(0)))
            .unwrap()
            .error
            .snr_db()
    };
    assert!(snr(&spec.clone().with_per_channel_scale(true)) > snr(&spec) + 1.0);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    };
    let (one, many) = (pool(1), pool(5));
    let bytes = naive::weight(Dtype::F16, 32 * 48 * 2, 96, 2);
    let tensor = Tensor::new(Dtype::F16, &[32, 48, 2], &bytes).unwrap();
    let kmeans = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    for axis in [0, 1] {
        let grouped = kmeans
            .clone()
            .with_granularity(Granularity::PerGroupedChannel {
                group_size: 4,
                channel_axis: Some(axis),
            });
        for spec in [
            grouped.clone(),
            grouped.clone().with_cluster_dim(2),
            grouped.with_per_channel_scale(true),
            kmeans.clone().with_cluster_dim(4),
        ] {
            let run = || palettize(&tensor, &spec, &naive::on(Some(0)));
            assert_eq!(one.install(run), many.install(run));
        }
    }
}

#[test]
fn unaligned_bytes_give_the_same() {
    let bytes = naive::weight(Dtype::F32, 256, 16, 4);
    let mut shifted = vec![0];
    shifted.extend(&bytes);
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
    let run = |bytes: &[u8]| {
        palettize(
            &Tensor::new(Dtype::F32, &[16, 16], bytes).unwrap(),
            &spec,
            &Context::default(),
        )
    };
    assert_eq!(run(&bytes), run(&shifted[1..]));
}

#[test]
fn the_seed_is_in_the_spec() {
    let bytes = naive::weight(Dtype::F32, 4096, 64, 8);
    let tensor = Tensor::new(Dtype::F32, &[64, 64], &bytes).unwrap();
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_cluster_dim(4);
    let run =
        |seed| palettize(&tensor, &spec.clone().with_seed(seed), &naive::on(Some(0))).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).indices, run(2).indices);
}

#[test]
fn unique_takes_the_width_of_the_fullest_group() {
    let values: Vec<f64> = (0..64)
        .map(|at| {
            if at < 32 {
                f64::from(at % 2)
            } else {
                f64::from(at % 20)
            }
        })
        .collect();
    let bytes = naive::encode(Dtype::F16, &values);
    let tensor = Tensor::new(Dtype::F16, &[2, 32], &bytes).unwrap();
    let spec = PaletteSpec::new(Mode::Unique).with_granularity(Granularity::PerGroupedChannel {
        group_size: 1,
        channel_axis: None,
    });
    let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
    assert_eq!(palette.nbits, Nbits::B6);
    assert_eq!(palette.decompress(), bytes);
    assert_eq!(palette.error.snr_db(), f64::INFINITY);
}

#[test]
fn few_values_are_kept_exactly_whatever_they_are() {
    let special = [0.0, f64::NEG_INFINITY, f64::INFINITY, f64::NAN];
    let values: Vec<f64> = (0..64).map(|at| special[at * 7 % 4]).collect();
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let bytes = naive::encode(dtype, &values);
        let tensor = Tensor::new(dtype, &[8, 8], &bytes).unwrap();
        for mode in [
            Mode::Kmeans(Nbits::B2),
            Mode::Uniform(Nbits::B8),
            Mode::Unique,
        ] {
            for dim in [1, 2] {
                let spec = PaletteSpec::new(mode.clone()).with_cluster_dim(dim);
                if spec.validate().is_err() {
                    continue;
                }
                let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
                let dense = palette.decompress();
                for (at, &value) in values.iter().enumerate() {
                    let found = naive::read(dtype, &dense, at);
                    assert!(
                        found == value || found.is_nan() && value.is_nan(),
                        "{found} {value}"
                    );
                }
                assert_eq!(palette.error.squared_error, 0.0);
                assert_eq!(palette.error.energy, 0.0);
            }
        }
    }
}

#[test]
fn zeros_and_constants_and_single_elements() {
    for dtype in Dtype::ALL {
        for (shape, value) in [([4, 4], 0.0), ([4, 4], 3.0), ([1, 1], 2.0)] {
            let count = shape.iter().product();
            let bytes = naive::encode(dtype, &vec![value; count]);
            let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
            for (spec, axis) in requests() {
                let spec = spec.with_granularity(Granularity::PerTensor);
                let axis = axis.filter(|&a| a < 2);
                match palettize(&tensor, &spec, &naive::on(axis)) {
                    Ok(palette) if matches!(spec.mode(), Mode::Custom(_)) => {
                        check(
                            &tensor,
                            &spec,
                            &layout(&shape, axis, &spec).unwrap(),
                            &palette,
                        );
                    }
                    Ok(palette) => {
                        let error = palette.error.rmse();
                        assert!(error <= 0.005 * value, "{error} {value} {dtype:?} {spec:?}");
                    }
                    Err(refusal) => assert!(
                        matches!(
                            refusal,
                            Refusal::IntScale { .. }
                                | Refusal::ClusterDim { .. }
                                | Refusal::ChannelAxisUnknown { .. }
                        ),
                        "{refusal} {spec:?}"
                    ),
                }
            }
        }
    }
}
