//! Palettes found again in the dense weights that they stand for.
#![allow(clippy::unwrap_used)]

mod naive;

use palettizer_palette::decode::DenseError;
use palettizer_palette::{
    ChannelScale, Dtype, Granularity, Lut, LutDtype, Mode, Nbits, Palette, PaletteSpec,
    RecoverError, Tensor, palettize,
};
use proptest::prelude::*;

/// The palette of a palette's dense weight.
fn again(palette: &Palette) -> Result<Palette, RecoverError> {
    let dense = palette.decompress();
    Palette::recover(
        &Tensor::new(palette.dtype, &palette.shape, &dense).unwrap(),
        palette.lut.clone(),
        &palette.lut_shape,
        palette.vector_axis,
        palette.scale.clone(),
    )
}

/// Everything but the indices is the same; they too, unless two entries come to the same value.
fn check(palette: &Palette) {
    let found = again(palette).unwrap();
    assert_eq!(found.decompress(), palette.decompress());
    let mut with_indices = found.clone();
    with_indices.indices.clone_from(&palette.indices);
    with_indices.error = palette.error;
    assert_eq!(&with_indices, palette);
    assert_eq!(found.indices.len(), palette.indices.len());
    assert_eq!(found.error.squared_error, 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_was_palettized_is_found_again(
        shape in prop::collection::vec(prop::sample::select(vec![1_usize, 2, 3, 4, 6, 12]), 1..5),
        output_axis in 0_usize..3,
        spec in naive::spec(),
        dtype in prop::sample::select(Dtype::ALL.to_vec()),
        seed in any::<u64>(),
    ) {
        let bytes = naive::weight(dtype, shape.iter().product(), 3, seed);
        let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
        if let Ok(palette) = palettize(&tensor, &spec, &naive::on(Some(output_axis))) {
            check(&palette);
        }
    }
}

#[test]
fn long_and_wide_weights() {
    // More positions than one task has, and books for each kind of block.
    let shape = [48, 40, 30];
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let bytes = naive::weight(dtype, 57_600, 30, 7);
        let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
        for (group_axis, output_axis, dim, nbits) in [
            (0, 0, 1, Nbits::B8),
            (1, 0, 2, Nbits::B3),
            (2, 2, 1, Nbits::B2),
            (2, 0, 5, Nbits::B3),
            (0, 0, 6, Nbits::B2),
            (1, 1, 4, Nbits::B1),
        ] {
            for (lut_dtype, scale) in [(LutDtype::Float, true), (LutDtype::Uint8, dim == 1)] {
                {
                    let spec = PaletteSpec::new(Mode::Kmeans(nbits))
                        .with_cluster_dim(dim)
                        .with_lut_dtype(lut_dtype)
                        .with_per_channel_scale(scale)
                        .with_granularity(Granularity::PerGroupedChannel {
                            group_size: [12, 20, 10][group_axis],
                            channel_axis: Some(group_axis as i64),
                        });
                    let context = naive::on(Some(output_axis));
                    check(&palettize(&tensor, &spec, &context).unwrap());
                }
            }
        }
    }
}

#[test]
fn what_has_no_number_is_found_by_its_bits() {
    let values = [
        f64::NAN,
        f64::INFINITY,
        -1.0,
        f64::NEG_INFINITY,
        f64::NAN,
        2.0,
    ];
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let bytes = naive::encode(dtype, &values);
        let tensor = Tensor::new(dtype, &[2, 3], &bytes).unwrap();
        for dim in [1, 2] {
            let spec = PaletteSpec::new(Mode::Unique).with_cluster_dim(dim);
            let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
            let found = again(&palette).unwrap();
            assert_eq!(found.indices, palette.indices);
        }
    }
}

#[test]
fn a_zero_has_a_sign() {
    let lut = Lut::Float(naive::encode(Dtype::F32, &[0.0, 1.0]));
    let dense = naive::encode(Dtype::F32, &[0.0, -0.0]);
    let tensor = Tensor::new(Dtype::F32, &[1, 2], &dense).unwrap();
    let error = Palette::recover(&tensor, lut, &[1, 1, 2, 1], None, None).unwrap_err();
    assert!(
        error.to_string().starts_with("-0 at [0, 1] is none"),
        "{error}"
    );
}

#[test]
fn the_first_changed_value_is_named() {
    let bytes = naive::weight(Dtype::F32, 90_000, 300, 3);
    let tensor = Tensor::new(Dtype::F32, &[300, 300], &bytes).unwrap();
    for (dim, expected) in [(1, "9999 at [200, 7]"), (3, "[")] {
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4))
            .with_cluster_dim(dim)
            .with_granularity(Granularity::PerGroupedChannel {
                group_size: 30,
                channel_axis: Some(0),
            });
        let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
        let mut dense = palette.decompress();
        for at in [200 * 300 + 7, 280 * 300] {
            dense[at * 4..][..4].copy_from_slice(&9999_f32.to_le_bytes());
        }
        let changed = Tensor::new(Dtype::F32, &[300, 300], &dense).unwrap();
        let error = Palette::recover(
            &changed,
            palette.lut,
            &palette.lut_shape,
            palette.vector_axis,
            None,
        )
        .unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        let RecoverError::Value {
            values,
            at,
            table,
            entries,
        } = error
        else {
            panic!("another error");
        };
        assert_eq!((values.len(), table, entries), (dim, 6, 16));
        // A vector goes by its first element.
        assert_eq!(at, [200 - 200 % dim, 7]);
        assert_eq!(values[200 % dim], 9999.0);
    }
}

#[test]
fn parts_that_do_not_fit() {
    let dense = naive::encode(Dtype::F32, &[0.0; 12]);
    let tensor = Tensor::new(Dtype::F32, &[4, 3], &dense).unwrap();
    let lut = |entries: usize| Lut::Float(vec![0; 4 * entries]);
    let recover = |lut, lut_shape: &[usize], axis, scale| {
        Palette::recover(&tensor, lut, lut_shape, axis, scale).unwrap_err()
    };
    let parts = |error| matches!(error, RecoverError::Parts(_));
    assert_eq!(
        recover(lut(4), &[1, 4, 1], None, None),
        RecoverError::Parts(DenseError::Rank {
            what: "lut",
            expected: 4,
            found: 3
        })
    );
    assert_eq!(
        recover(lut(32), &[1, 1, 32, 1], None, None),
        RecoverError::Entries { found: 32 }
    );
    assert_eq!(
        recover(lut(6), &[1, 1, 2, 3], Some(0), None),
        RecoverError::Vectors {
            channels: 4,
            axis: 0,
            dim: 3
        }
    );
    assert!(parts(recover(lut(6), &[1, 1, 2, 3], None, None)));
    assert!(parts(recover(lut(6), &[1, 1, 2, 3], Some(2), None)));
    assert!(parts(recover(lut(0), &[1, 1, 2, 0], None, None)));
    assert!(parts(recover(lut(6), &[3, 1, 2, 1], None, None)));
    assert!(parts(recover(lut(3), &[1, 1, 2, 1], None, None)));
    let huge = [1, usize::MAX / 2, 2, 2];
    assert!(parts(recover(lut(4), &huge, Some(0), None)));
    for (shape, count) in [(vec![3, 1], 3), (vec![4], 4), (vec![4, 1], 3)] {
        let scale = ChannelScale {
            shape,
            bytes: vec![0; 4 * count],
        };
        assert!(parts(recover(lut(2), &[1, 1, 2, 1], None, Some(scale))));
    }
    let quantized = Lut::Quantized {
        dtype: Dtype::I8,
        data: vec![0; 2],
        scale: vec![0; 8],
        scale_shape: vec![1, 1, 1, 1],
        offset: None,
    };
    assert!(parts(recover(quantized, &[1, 1, 2, 1], None, None)));
    let none = Tensor::new(Dtype::F32, &[0, 3], &[]).unwrap();
    let empty = Palette::recover(&none, lut(2), &[1, 1, 2, 1], None, None);
    assert_eq!(empty, Err(RecoverError::Empty { shape: vec![0, 3] }));
}
