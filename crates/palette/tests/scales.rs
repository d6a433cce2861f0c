//! Scales for programs of half precision, and scales folded into integer tables.
#![allow(clippy::unwrap_used)]

mod naive;

use half::f16;
use palettizer_palette::{
    ChannelScale, Dtype, Granularity, Lut, LutDtype, Mode, Nbits, Palette, PaletteSpec, Tensor,
    palettize,
};
use proptest::prelude::*;

/// The numbers of an `fp32` palette as a program in half precision has them.
fn halved(palette: &Palette) -> Palette {
    let half = |bytes: &[u8]| -> Vec<u8> {
        let values = (0..bytes.len() / 4).map(|at| naive::read(Dtype::F32, bytes, at));
        naive::encode(Dtype::F16, &values.collect::<Vec<_>>())
    };
    let mut halved = palette.clone();
    halved.dtype = Dtype::F16;
    halved.lut = match palette.lut.clone() {
        Lut::Float(bytes) => Lut::Float(half(&bytes)),
        Lut::Quantized {
            dtype,
            data,
            scale,
            scale_shape,
            offset,
        } => Lut::Quantized {
            dtype,
            data,
            scale: half(&scale),
            scale_shape,
            offset,
        },
    };
    halved.scale = palette.scale.as_ref().map(|scale| ChannelScale {
        shape: scale.shape.clone(),
        bytes: half(&scale.bytes),
    });
    halved
}

/// How many elements the program in half precision has that the rounded weight has not.
fn strangers(palette: &Palette) -> usize {
    let (dense, program) = (palette.decompress(), halved(palette));
    let computed = program.decompress();
    (0..dense.len() / 4)
        .filter(|&at| {
            let rounded = f16::from_f64(naive::read(Dtype::F32, &dense, at));
            let found = f16::from_le_bytes([computed[2 * at], computed[2 * at + 1]]);
            assert_eq!(found.to_f64(), naive::element(&program, at));
            rounded.to_bits() != found.to_bits()
        })
        .count()
}

/// Rows of very different size: from subnormal numbers of `fp16` to its largest.
fn rows(shape: &[usize], lowest: i32, highest: i32, seed: u64) -> Vec<u8> {
    let mut next = naive::random(seed);
    let row: usize = shape[1..].iter().product();
    let mut size = 1.0;
    let values: Vec<f64> = (0..shape[0] * row)
        .map(|at| {
            if at % row == 0 {
                size = (f64::from(lowest) + next() * f64::from(highest - lowest)).exp2();
            }
            ((0..4).map(|_| next()).sum::<f64>() - 2.0) * size
        })
        .collect();
    naive::encode(Dtype::F32, &values)
}

fn mode() -> impl Strategy<Value = Mode> {
    let widths = prop::sample::select(Nbits::ALL.to_vec());
    (widths, any::<bool>()).prop_map(|(nbits, uniform)| match uniform {
        true => Mode::Uniform(nbits),
        false => Mode::Kmeans(nbits),
    })
}

fn granularity() -> impl Strategy<Value = Granularity> {
    prop::sample::select(vec![
        Granularity::PerTensor,
        grouped(1, 0),
        grouped(4, 0),
        grouped(3, 1),
        grouped(2, -1),
    ])
}

fn grouped(group_size: usize, axis: i64) -> Granularity {
    Granularity::PerGroupedChannel {
        group_size,
        channel_axis: Some(axis),
    }
}

fn lut_dtype() -> impl Strategy<Value = LutDtype> {
    prop::sample::select(vec![LutDtype::Float, LutDtype::Int8, LutDtype::Uint8])
}

const SHAPE: [usize; 3] = [8, 6, 10];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn half_precision_comes_to_the_rounded_weight(
        mode in mode(), granularity in granularity(), lut_dtype in lut_dtype(), scale: bool, vectors: bool,
        axis in 0_usize..3, seed: u64,
    ) {
        // 1/127 of every row is a number of fp16, and no row is beyond it.
        let bytes = rows(&SHAPE, -15, 14, seed);
        let tensor = Tensor::new(Dtype::F32, &SHAPE, &bytes).unwrap();
        let spec = PaletteSpec::new(mode)
            .with_granularity(granularity)
            .with_lut_dtype(lut_dtype)
            .with_per_channel_scale(scale)
            .with_fold_scale(true)
            .with_half_scales(true);
        let paired = spec.clone().with_cluster_dim(2);
        let spec = if vectors && paired.validate().is_ok() { paired } else { spec };
        // Three rows of a group are not made of pairs.
        if let Ok(palette) = palettize(&tensor, &spec, &naive::on(Some(axis))) {
            prop_assert_eq!(strangers(&palette), 0);
        } else {
            prop_assert!(spec.cluster_dim() == 2);
        }
    }

    #[test]
    fn folding_costs_next_to_nothing(
        mode in mode(), granularity in granularity(), half: bool, unsigned: bool, axis in 0_usize..3, seed: u64,
    ) {
        let bytes = rows(&SHAPE, -6, 6, seed);
        let tensor = Tensor::new(Dtype::F32, &SHAPE, &bytes).unwrap();
        let plain = PaletteSpec::new(mode)
            .with_granularity(granularity)
            .with_lut_dtype(if unsigned { LutDtype::Uint8 } else { LutDtype::Int8 })
            .with_per_channel_scale(true);
        let lost = |spec: &PaletteSpec| palettize(&tensor, spec, &naive::on(Some(axis))).unwrap();
        let folded = lost(&plain.clone().with_fold_scale(true).with_half_scales(half));
        let plain = lost(&plain);
        prop_assert!(folded.scale.is_none());
        prop_assert_eq!(folded.error.energy, plain.error.energy);
        let (found, limit) = (folded.error.rmse(), plain.error.rmse());
        // A scale that is 2⁻¹⁰ off moves entries by as much; those of one bit are several times the values.
        let moved = (folded.error.energy / 480.0).sqrt() * 4.0 / 1024.0;
        prop_assert!(found <= limit + moved, "{} {}", found, limit);
    }
}

#[test]
fn without_the_setting_half_precision_comes_to_others() {
    let bytes = rows(&SHAPE, -1, 1, 1);
    let tensor = Tensor::new(Dtype::F32, &SHAPE, &bytes).unwrap();
    let kmeans = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    for spec in [
        kmeans.clone().with_per_channel_scale(true),
        kmeans.clone().with_lut_dtype(LutDtype::Int8),
    ] {
        let found = |half| {
            let spec = spec.clone().with_half_scales(half);
            palettize(&tensor, &spec, &naive::on(Some(0))).unwrap()
        };
        let (without, with) = (found(false), found(true));
        let found = (strangers(&without), strangers(&with));
        assert!(found.0 > 9 && found.1 == 0, "{found:?} {spec:?}");
        let cost = with.error.squared_error / without.error.squared_error;
        assert!(cost < 1.005, "{cost}");
    }
}

#[test]
fn half_scales_are_of_single_precision_only() {
    for dtype in [Dtype::F16, Dtype::BF16] {
        let bytes = naive::weight(dtype, 480, 60, 3);
        let tensor = Tensor::new(dtype, &SHAPE, &bytes).unwrap();
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4)).with_per_channel_scale(true);
        let run = |half| {
            let spec = spec.clone().with_half_scales(half);
            palettize(&tensor, &spec, &naive::on(Some(0))).unwrap()
        };
        assert_eq!(run(true), run(false));
    }
}

#[test]
fn scales_that_half_precision_has_not_stay() {
    let bytes = naive::encode(
        Dtype::F32,
        &[1e-9, -2e-9, 5e-10, 1e6, 2e6, -3e6, 0.1, 0.25, -0.3],
    );
    let tensor = Tensor::new(Dtype::F32, &[3, 3], &bytes).unwrap();
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2))
        .with_per_channel_scale(true)
        .with_half_scales(true);
    let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
    let scale = |at| naive::read(Dtype::F32, &palette.scale.as_ref().unwrap().bytes, at);
    assert_eq!(scale(0), f64::from(2e-9_f32));
    assert_eq!(scale(1), 3e6);
    assert!(scale(2) > 0.3 && scale(2) < 0.3 * 1.001);
    assert_eq!(scale(2), f16::from_f64(scale(2)).to_f64());
}

#[test]
fn a_folded_table_has_the_integers_of_its_group() {
    let bytes = naive::weight(Dtype::F16, 480, 60, 4);
    let tensor = Tensor::new(Dtype::F16, &SHAPE, &bytes).unwrap();
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3))
        .with_granularity(grouped(3, 1))
        .with_lut_dtype(LutDtype::Uint8)
        .with_per_channel_scale(true);
    let plain = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
    let folded = spec.with_fold_scale(true);
    let folded = palettize(&tensor, &folded, &naive::on(Some(0))).unwrap();
    let parts = |palette: &Palette| match &palette.lut {
        Lut::Quantized {
            data,
            scale,
            scale_shape,
            offset,
            ..
        } => (
            data.clone(),
            scale.clone(),
            scale_shape.clone(),
            offset.clone(),
        ),
        Lut::Float(_) => panic!("a float table"),
    };
    let (data, scale, ..) = parts(&plain);
    let (many, scales, shape, offset) = parts(&folded);
    assert_eq!(plain.lut_shape, [1, 2, 1, 8, 1]);
    assert_eq!(folded.lut_shape, [8, 2, 1, 8, 1]);
    assert_eq!((shape, offset), (vec![8, 2, 1, 1, 1], Some(vec![127; 16])));
    assert_eq!(many, data.repeat(8));
    for table in 0..16 {
        let own = naive::read(Dtype::F16, &scale, table % 2);
        let channels = &plain.scale.as_ref().unwrap().bytes;
        let product = own * naive::read(Dtype::F16, channels, table / 2);
        let found = naive::read(Dtype::F16, &scales, table);
        assert!((found / product - 1.0).abs() <= 2_f64.powi(-10));
    }
}
