//! One case for each reason that only a weight's values, or its mask, can give; shapes are tested beside `layout`.
#![allow(clippy::unwrap_used)]

mod naive;

use palettizer_palette::{
    Context, CustomLut, Dtype, Granularity, LutDtype, LutFunction, Mode, Nbits, PaletteSpec,
    Refusal, Tensor, palettize,
};

fn refuse(dtype: Dtype, values: &[f64], spec: &PaletteSpec, mask: Option<&[u8]>) -> Refusal {
    let bytes = naive::encode(dtype, values);
    let shape = [values.len() / 2, 2];
    let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
    palettize(
        &tensor,
        spec,
        &Context {
            mask,
            ..naive::on(Some(0))
        },
    )
    .unwrap_err()
}

fn ramp(count: usize) -> Vec<f64> {
    (0..count).map(|at| at as f64 / 8.0).collect()
}

#[test]
fn values_that_have_no_mean() {
    let mut values = ramp(64);
    values[5] = f64::NAN;
    values[40] = f64::INFINITY;
    let plain = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
    let grouped = plain
        .clone()
        .with_granularity(Granularity::PerGroupedChannel {
            group_size: 16,
            channel_axis: None,
        });
    let zeros = Mode::Custom(LutFunction::new(|values, _| {
        Ok(CustomLut::new(vec![0.0], vec![0; values.len()]))
    }));
    for (spec, count, elements) in [
        (plain.clone(), 2, 64),
        (PaletteSpec::new(Mode::Uniform(Nbits::B4)), 2, 64),
        (plain.clone().with_cluster_dim(2), 2, 64),
        (plain.clone().with_lut_dtype(LutDtype::Int8), 2, 64),
        (plain.with_per_channel_scale(true), 2, 64),
        (PaletteSpec::new(zeros), 2, 64),
        (grouped, 1, 32),
    ] {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            let refusal = refuse(dtype, &values, &spec, None);
            assert_eq!(refusal, Refusal::NonFinite { count, elements }, "{spec:?}");
        }
    }
    let text = Refusal::NonFinite {
        count: 2,
        elements: 64,
    }
    .to_string();
    assert_eq!(text, "2 of 64 values are NaN or infinite");
}

#[test]
fn too_many_distinct_values_or_vectors() {
    let unique = PaletteSpec::new(Mode::Unique);
    let refusal = refuse(Dtype::F16, &ramp(600), &unique, None);
    assert_eq!(refusal.to_string(), "more than 256 distinct values");
    let vectors = unique.clone().with_cluster_dim(2);
    let refusal = refuse(Dtype::F32, &ramp(1200), &vectors, None);
    assert_eq!(
        refusal.to_string(),
        "more than 256 distinct values (vectors)"
    );
    let scaled = unique.with_per_channel_scale(true);
    let refusal = refuse(Dtype::F32, &ramp(1200), &scaled, None);
    assert!(matches!(
        refusal,
        Refusal::TooManyDistinct {
            limit: 256,
            vectors: false
        }
    ));
}

#[test]
fn masks_that_do_not_fit() {
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
    let refusal = refuse(Dtype::F16, &ramp(12), &spec, Some(&[0; 3]));
    assert_eq!(
        refusal,
        Refusal::MaskLength {
            elements: 12,
            expected: 2,
            found: 3
        }
    );
    let vectors = spec.with_cluster_dim(2);
    let refusal = refuse(Dtype::F16, &ramp(12), &vectors, Some(&[0; 2]));
    assert_eq!(refusal, Refusal::MaskedVector { cluster_dim: 2 });
}

#[test]
fn functions_that_return_nonsense() {
    type Made = fn(usize) -> Result<CustomLut, String>;
    let table: [(Made, &str); 7] = [
        (|_| Err("no idea".into()), "no idea"),
        (
            |_| Ok(CustomLut::default()),
            "returned 0 entries, expected 1 to 256",
        ),
        (
            |n| Ok(CustomLut::new(vec![0.0; 257], vec![0; n])),
            "returned 257 entries, expected 1 to 256",
        ),
        (
            |n| Ok(CustomLut::new(vec![f32::NAN], vec![0; n])),
            "returned the entry NaN, expected finite ones",
        ),
        (
            |n| Ok(CustomLut::new(vec![1e9], vec![0; n])),
            "returned the entry 1000000000, which is infinite in fp16",
        ),
        (
            |n| Ok(CustomLut::new(vec![0.0], vec![0; n + 1])),
            "returned 9 indices for 8 values",
        ),
        (
            |n| Ok(CustomLut::new(vec![0.0; 3], vec![3; n])),
            "returned index 3 into 3 entries",
        ),
    ];
    for (made, text) in table {
        let function = LutFunction::new(move |values, _| made(values.len()));
        let refusal = refuse(
            Dtype::F16,
            &ramp(8),
            &PaletteSpec::new(Mode::Custom(function)),
            None,
        );
        assert_eq!(refusal, Refusal::Custom(text.to_owned()));
    }
}

#[test]
fn integers_have_no_scale() {
    let scaled = PaletteSpec::new(Mode::Unique).with_per_channel_scale(true);
    let refusal = refuse(Dtype::I8, &[1.0, 2.0], &scaled, None);
    assert_eq!(
        refusal.to_string(),
        "per-channel scale needs a float weight, found int8"
    );
    let table = PaletteSpec::new(Mode::Kmeans(Nbits::B1)).with_lut_dtype(LutDtype::Int8);
    let refusal = refuse(Dtype::U8, &[1.0, 2.0], &table, None);
    assert_eq!(
        refusal.to_string(),
        "an integer lookup table needs a float weight, found uint8"
    );
}
