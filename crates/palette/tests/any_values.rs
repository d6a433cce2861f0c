//! Whole weights of every kind of values, in every form: nothing panics, and a palette is what it says it is.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../kernels/src/tests/draws.rs"]
#[allow(dead_code, unreachable_pub)]
mod draws;
mod naive;

use draws::{Bits, Draw};
use half::{bf16, f16};
use naive::check::check;
use palettizer_palette::{
    Context, CustomLut, Deferred, Dkm, DkmConstants, DkmForward, DkmSpec, Dtype, Granularity,
    LutDtype, LutFunction, Mode, Nbits, Palette, PaletteSpec, Precision, Refusal, Tensor, layout,
    palettize, suits,
};
use proptest::prelude::*;

/// The largest finite number of a dtype.
fn most(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::MAX.to_f32(),
        Dtype::BF16 => bf16::MAX.to_f32(),
        Dtype::F32 => f32::MAX,
        Dtype::I8 | Dtype::U8 => 127.0,
    }
}

/// Values of one kind in a dtype; integers take their whole range from floats around zero.
fn bytes(draw: Draw, dtype: Dtype, n: usize, seed: u64) -> Vec<u8> {
    let values = draw.values(n, most(dtype), seed);
    let values = values.into_iter().map(|value| match dtype.is_float() {
        true => f64::from(value),
        false => f64::from((value * 500.0).clamp(-128.0, 255.0)),
    });
    let mut out = Vec::with_capacity(n * dtype.size());
    values.for_each(|value| naive::write(dtype, value, &mut out));
    out
}

fn modes() -> [Mode; 6] {
    let custom = LutFunction::new(|values, _| {
        let index = |&v: &f32| if v > 0.5 { 2 } else { u8::from(v > -0.2) };
        let indices = values.iter().map(index).collect();
        Ok(CustomLut::new(vec![-0.5, -0.0, 1.0], indices))
    });
    [
        Mode::Kmeans(Nbits::B4),
        Mode::Uniform(Nbits::B6),
        Mode::Unique,
        Mode::Custom(custom),
        Mode::Kmeans(Nbits::B1),
        Mode::Kmeans(Nbits::B8),
    ]
}

/// Every form, by its number; each digit of it is one choice.
fn spec(mut number: usize) -> PaletteSpec {
    let mut choose = |count: usize| {
        let chosen = number % count;
        number /= count;
        chosen
    };
    let mode = modes()[choose(6)].clone();
    let lut_dtype = [LutDtype::Float, LutDtype::Int8, LutDtype::Uint8][choose(3)];
    let (scale, fold) = [(false, false), (true, false), (true, true)][choose(3)];
    let grouped = |group_size, axis| Granularity::PerGroupedChannel {
        group_size,
        channel_axis: Some(axis),
    };
    let granularity = [Granularity::PerTensor, grouped(2, 0), grouped(4, 1)][choose(3)];
    PaletteSpec::new(mode)
        .with_granularity(granularity)
        .with_lut_dtype(lut_dtype)
        .with_per_channel_scale(scale)
        .with_fold_scale(fold)
        .with_cluster_dim([1, 2][choose(2)])
        .with_half_scales(choose(2) == 1)
        .with_precision([Precision::Refined, Precision::Exact][choose(2)])
}

/// How many forms there are.
const SPECS: usize = 6 * 3 * 3 * 3 * 2 * 2 * 2;

/// A mask that keeps about half, or nothing.
fn mask(n: usize, seed: u64) -> Vec<u8> {
    let mut bits = Bits(seed);
    let mut mask = vec![0; n.div_ceil(8)];
    (0..n)
        .filter(|_| !seed.is_multiple_of(5) && bits.unit() < 0.5)
        .for_each(|at| mask[at / 8] |= 1 << (at % 8));
    mask
}

/// Palettizes and compares; the palette, unless the weight is refused.
fn one(
    draw: Draw,
    dtype: Dtype,
    shape: &[usize],
    spec: &PaletteSpec,
    seed: u64,
) -> Option<Palette> {
    let n = shape.iter().product();
    let mut bytes = bytes(draw, dtype, n, seed);
    let mask = (seed % 4 == 1).then(|| mask(n, seed));
    if let Some(mask) = &mask {
        let pruned = (0..n).filter(|&at| !naive::bit(mask, at));
        pruned.for_each(|at| bytes[at * dtype.size()..][..dtype.size()].fill(0));
    }
    let matters = Draw::ALL[seed as usize % Draw::ALL.len()].values(n, f32::MAX, seed + 1);
    let matters: Vec<f32> = matters
        .iter()
        .map(|x| if x.is_finite() { x.abs() } else { 0.0 })
        .collect();
    let context = Context {
        output_axis: Some([0, 1][seed as usize % 2]),
        mask: mask.as_deref(),
        sensitivity: (seed % 3 == 1).then_some(matters.as_slice()),
        ..Context::default()
    };
    let tensor = Tensor::new(dtype, shape, &bytes).unwrap();
    let planned = layout(shape, context.output_axis, spec)
        .and_then(|plan| suits(dtype, mask.is_some(), spec).map(|()| plan));
    let finite = (0..n).all(|at| naive::read(dtype, &bytes, at).is_finite());
    let what = || format!("{draw:?} {dtype:?} {shape:?} seed {seed} {spec:?}");
    let found = palettize(&tensor, spec, &context);
    match Deferred::new(&tensor, spec, &context) {
        Ok(None) => {}
        Ok(Some(deferred)) => {
            let mut dense = bytes.clone();
            let mut later = deferred.palette(&bytes).unwrap();
            assert_eq!(found.as_ref(), Ok(&later), "{}", what());
            let replaced = deferred.replace(&mut dense).unwrap();
            assert!(dense == later.decompress(), "{}", what());
            later.indices.clear();
            assert_eq!(replaced, later, "{}", what());
        }
        Err(refusal) => assert_eq!(found, Err(refusal), "{}", what()),
    }
    match (planned, found) {
        (Err(planned), found) => assert_eq!(found, Err(planned)),
        (Ok(_), Err(Refusal::NonFinite { .. })) => assert!(!finite, "{}", what()),
        (Ok(_), Err(Refusal::TooManyDistinct { .. })) => assert_eq!(spec.mode(), &Mode::Unique),
        // Entries of the test's own function that are infinite under a scale.
        (Ok(_), Err(Refusal::Custom(text))) => assert!(text.contains("infinite"), "{text}"),
        (Ok(_), Err(refusal)) => panic!("{refusal}: {}", what()),
        (Ok(plan), Ok(palette)) => {
            if finite {
                let dense = palette.decompress();
                let found = |at| naive::read(dtype, &dense, at);
                assert!((0..n).all(|at| found(at).is_finite()), "{}", what());
                if n <= 1024 {
                    check(&tensor, spec, &plan, &palette);
                }
            }
            return Some(palette);
        }
    }
    None
}

#[test]
fn every_kind_in_every_form() {
    let mut palettes = 0;
    let mut seed = 0;
    for draw in Draw::ALL {
        for dtype in Dtype::ALL {
            // A step that has no factor with the number of forms, so that all come up.
            for _ in 0..SPECS / 16 {
                seed += 1;
                let spec = spec(seed as usize * 37 % SPECS);
                palettes += usize::from(one(draw, dtype, &[8, 12, 2], &spec, seed).is_some());
            }
        }
    }
    assert!(palettes > 1500, "{palettes}");
}

/// Where scalars are clustered through a histogram instead of being sorted, and one less and more.
#[test]
fn every_kind_at_the_size_of_a_histogram() {
    let mut seed = 0;
    for draw in Draw::ALL {
        for dtype in Dtype::ALL {
            for shape in [[128, 128], [4, 4096], [2, 8196], [16, 1020], [4, 16_384]] {
                seed += 1;
                let form = seed as usize * 37 % SPECS;
                one(draw, dtype, &shape, &spec(form), seed);
                // k-means with a scale: what every weight is first tried with.
                let plain = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
                one(
                    draw,
                    dtype,
                    &shape,
                    &plain.with_per_channel_scale(seed.is_multiple_of(2)),
                    4 * seed,
                );
            }
        }
    }
}

/// Rounding up the scale of a table or an entry next to the end of a dtype.
#[test]
fn the_largest_numbers_stay_finite() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        for number in 0..SPECS {
            let spec = spec(number);
            for draw in [Draw::Extreme, Draw::Outlier] {
                one(draw, dtype, &[4, 8], &spec, 2 * number as u64);
            }
        }
    }
}

#[test]
fn unique_keeps_everything_but_the_sign_of_zero() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        for draw in [Draw::Dead, Draw::NegativeZero, Draw::Two, Draw::Extreme] {
            for (shape, dim) in [([64, 4], 1), ([64, 4], 2), ([256, 128], 1)] {
                let n = shape.iter().product();
                let bytes = bytes(draw, dtype, n, 8);
                let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
                let spec = PaletteSpec::new(Mode::Unique).with_cluster_dim(dim);
                let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
                let dense = palette.decompress();
                for at in 0..n {
                    let (value, found) = (
                        naive::read(dtype, &bytes, at),
                        naive::read(dtype, &dense, at),
                    );
                    assert_eq!(found.to_bits(), (value + 0.0).to_bits(), "{draw:?} {value}");
                }
            }
        }
    }
}

/// A training step of a layer of each kind, and the palette of it.
#[test]
fn soft_k_means_of_every_kind() {
    for (seed, draw) in (0..).zip(Draw::ALL) {
        for (shape, cluster_dim) in [([128, 130], 1), ([64, 66], 4), ([4, 4], 1)] {
            let n = shape.iter().product();
            let values: Vec<f32> = draw.values(n, f32::MAX, seed);
            let spec = DkmSpec {
                nbits: Nbits::B2,
                cluster_dim,
                ..DkmSpec::default()
            };
            let dkm = Dkm::new(spec, &shape).unwrap();
            let Ok(seeds) = dkm.seed(&values, None, None) else {
                assert!(values.iter().any(|x| !x.is_finite()), "{draw:?}");
                continue;
            };
            let (mut out, mut next, mut gradient) = (values.clone(), seeds.clone(), values.clone());
            let mut saved = vec![0.0; dkm.saved_len()];
            let forward = DkmForward {
                out: &mut out,
                next: &mut next,
                saved: &mut saved,
            };
            let temperatures = dkm.temperatures(&values, &seeds, None).unwrap();
            assert!(
                temperatures.iter().all(|t| t.is_normal() && *t > 0.0),
                "{draw:?}"
            );
            let constants = DkmConstants {
                temperatures: &temperatures,
                ..DkmConstants::default()
            };
            let Ok(()) = dkm.forward(&values, &seeds, constants, forward) else {
                continue;
            };
            let _ = dkm.backward(&values, constants, &saved, &out, &mut gradient);
            let mut hard = values.clone();
            let assigned = dkm.assign(&values, &next, None, &mut hard);
            let palette = dkm.palette(&values, &next, None);
            if [
                Draw::Masked,
                Draw::Dead,
                Draw::NegativeZero,
                Draw::Positive,
                Draw::Normal,
            ]
            .contains(&draw)
            {
                assert!(assigned.is_ok() && palette.is_ok(), "{draw:?}");
                assert!(
                    out.iter()
                        .chain(&gradient)
                        .chain(&hard)
                        .all(|x| x.is_finite()),
                    "{draw:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_kind_in_any_form(draw in 0..Draw::ALL.len(), dtype in 0..Dtype::ALL.len(), rows in 1_usize..10, cols in 1_usize..40, number in 0..SPECS, seed: u32) {
        let shape = [4 * rows, 4 * cols];
        one(Draw::ALL[draw], Dtype::ALL[dtype], &shape, &spec(number), seed.into());
    }
}
