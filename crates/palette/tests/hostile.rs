//! Inputs of `dense` that contradict each other: an error each, and never a panic.
#![allow(clippy::unwrap_used)]

use palettizer_palette::decode::{self, Affine, DenseError, MAX_ELEMENTS};
use palettizer_palette::{Dtype, Lut, Nbits, Palette};
use proptest::prelude::*;

#[test]
fn every_error_of_a_table() {
    let lut = [0_u8; 4];
    type Kind = fn(&DenseError) -> bool;
    let huge = usize::MAX / 2;
    type Case<'a> = (&'a [u8], Vec<usize>, Vec<usize>, Option<i64>, Kind);
    let table: Vec<Case<'_>> = vec![
        (&[0], vec![1], vec![4, 1], None, |e| {
            matches!(e, DenseError::Rank { .. })
        }),
        (&[0], vec![1], vec![1], None, |e| {
            matches!(e, DenseError::Rank { .. })
        }),
        (&[0], vec![1], vec![], None, |e| {
            matches!(e, DenseError::Rank { .. })
        }),
        (&[0], vec![1], vec![1, 3, 1], None, |e| {
            *e == DenseError::Entries { found: 3 }
        }),
        (&[0], vec![1], vec![1, 1, 4], Some(0), |e| {
            *e == DenseError::Entries { found: 1 }
        }),
        (&[0], vec![1], vec![1, 512, 1], None, |e| {
            *e == DenseError::Entries { found: 512 }
        }),
        (&[0], vec![1], vec![1, 0, 1], None, |e| {
            *e == DenseError::Entries { found: 0 }
        }),
        (&[0], vec![1], vec![1, 2, 2], None, |e| {
            *e == DenseError::Vector { length: 2 }
        }),
        (&[0], vec![1], vec![1, 2, 0], Some(0), |e| {
            *e == DenseError::Vector { length: 0 }
        }),
        (&[0], vec![1], vec![1, 2, 2], Some(1), |e| {
            *e == DenseError::Axis { axis: 1, rank: 1 }
        }),
        (&[0], vec![1], vec![1, 4, 1], Some(i64::MIN), |e| {
            matches!(e, DenseError::Axis { .. })
        }),
        (&[4], vec![1], vec![1, 4, 1], None, |e| {
            *e == DenseError::Index {
                index: 4,
                entries: 4,
            }
        }),
        (&[0; 3], vec![3], vec![2, 2, 1], None, |e| {
            matches!(e, DenseError::Blocks { .. })
        }),
        (&[0; 3], vec![3], vec![0, 2, 1], None, |e| {
            matches!(e, DenseError::Blocks { .. })
        }),
        (&[0], vec![2], vec![1, 4, 1], None, |e| {
            matches!(e, DenseError::Length { .. })
        }),
        (&[0], vec![1], vec![1, 8, 1], None, |e| {
            matches!(e, DenseError::Length { .. })
        }),
        (&[0], vec![huge, 3], vec![1, 1, 4, 1], None, |e| {
            matches!(e, DenseError::TooLarge { .. })
        }),
        (&[0], vec![1], vec![1, 2, huge], Some(0), |e| {
            matches!(e, DenseError::TooLarge { .. })
        }),
        (&[0], vec![huge], vec![1, 2, 4], Some(0), |e| {
            matches!(e, DenseError::TooLarge { .. })
        }),
    ];
    for (indices, index_shape, lut_shape, axis, kind) in table {
        let error =
            decode::lut_to_dense(indices, &index_shape, &lut, &lut_shape, axis).unwrap_err();
        assert!(
            kind(&error),
            "{index_shape:?} {lut_shape:?} {axis:?}: {error}"
        );
        let mask = vec![0xff; index_shape[0].min(64).div_ceil(8)];
        let sparse = decode::lut_to_sparse(&mask, &index_shape, indices, &lut, &lut_shape, axis);
        assert!(sparse.is_err(), "{index_shape:?} {lut_shape:?}");
    }
}

#[test]
fn every_error_of_scales_and_masks() {
    let none = None::<&[i8]>;
    let shift = |shape: &[usize], scale: &[f32], blocks: &[usize], offset| {
        decode::shift_scale(&[0_i8; 4], shape, scale, blocks, offset).unwrap_err()
    };
    assert!(matches!(
        shift(&[], &[], &[], none),
        DenseError::Rank { .. }
    ));
    assert!(matches!(
        shift(&[5], &[1.0], &[1], none),
        DenseError::Length { .. }
    ));
    assert!(matches!(
        shift(&[4], &[1.0], &[1, 1], none),
        DenseError::Rank { .. }
    ));
    assert!(matches!(
        shift(&[4], &[1.0], &[3], none),
        DenseError::Blocks { .. }
    ));
    assert!(matches!(
        shift(&[4], &[1.0], &[2], none),
        DenseError::Length { what: "scale", .. }
    ));
    let offset: &[i8] = &[0];
    let error = shift(&[4], &[1.0, 1.0], &[2], Some(offset));
    assert_eq!(error.to_string(), "offset: 1 elements, expected 2");

    let affine = |shape: &[usize], scale: &[f32], zero: &[u8], axis| {
        let params = Affine {
            scale,
            zero_point: zero,
            axis,
        };
        decode::affine_dequantize(&[0_u8; 6], shape, &params).unwrap_err()
    };
    assert!(matches!(
        affine(&[2, 3], &[1.0], &[0], 2),
        DenseError::Axis { .. }
    ));
    assert!(matches!(
        affine(&[2, 2], &[1.0], &[0], 0),
        DenseError::Length { what: "data", .. }
    ));
    assert!(matches!(
        affine(&[2, 3], &[1.0; 3], &[0], 0),
        DenseError::Length { what: "scale", .. }
    ));
    assert!(matches!(
        affine(&[2, 3], &[1.0; 2], &[], 0),
        DenseError::Length {
            what: "zero_point",
            ..
        }
    ));

    let sparse =
        |values: &[u8], mask: &[u8], shape: &[usize]| decode::sparse_to_dense(values, mask, shape);
    assert_eq!(
        sparse(&[1], &[0b11], &[4]),
        Err(DenseError::Kept { kept: 2, found: 1 })
    );
    assert!(matches!(
        sparse(&[1], &[1, 0], &[4]),
        Err(DenseError::Length { .. })
    ));
    assert!(matches!(
        sparse(&[], &[], &[MAX_ELEMENTS, 2]),
        Err(DenseError::TooLarge { .. })
    ));
    assert_eq!(sparse(&[], &[], &[0, 7]), Ok(vec![]));
    let scaled = decode::sparse_shift_scale(&[1], &[4], &[1_i8, 2], &[1.0_f32], &[1], none);
    assert_eq!(scaled, Err(DenseError::Kept { kept: 1, found: 2 }));
    let scaled = decode::sparse_shift_scale(&[3], &[4], &[1_i8, 2], &[1.0_f32], &[2], none);
    assert!(matches!(
        scaled,
        Err(DenseError::Length { what: "scale", .. })
    ));
}

/// A palette that is right, to be made wrong.
fn palette() -> Palette {
    let mut palette = Palette::unfilled(Dtype::F16, vec![2, 2], Nbits::B1);
    palette.indices = vec![0b0110];
    palette.lut = Lut::Float(vec![0; 4]);
    palette.lut_shape = vec![1, 1, 2, 1];
    palette
}

#[test]
fn palettes_that_contradict_themselves() {
    assert_eq!(palette().try_decompress(), Ok(vec![0; 8]));
    let wrong: [fn(&mut Palette); 8] = [
        |p| p.indices.clear(),
        |p| p.lut = Lut::Float(vec![0; 3]),
        |p| p.lut_shape = vec![2],
        |p| p.index_shape = vec![usize::MAX, 2],
        |p| p.mask = Some(vec![0; 9]),
        |p| p.shape = vec![4, 4, 4],
        |p| p.vector_axis = Some(9),
        |p| {
            p.dtype = Dtype::I8;
            p.lut = Lut::Quantized {
                dtype: Dtype::I8,
                data: vec![0; 2],
                scale: vec![0; 2],
                scale_shape: vec![1; 4],
                offset: None,
            };
        },
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let mut palette = palette();
        change(&mut palette);
        assert!(palette.try_decompress().is_err(), "{number}");
        assert_eq!(palette.decompress(), Vec::<u8>::new());
    }
}

fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(
        prop_oneof![0_usize..5, Just(usize::MAX), Just(1 << 32)],
        0..5,
    )
}

proptest! {
    #[test]
    fn nothing_panics(
        shape in dims(),
        blocks in dims(),
        data in prop::collection::vec(any::<u8>(), 0..40),
        more in prop::collection::vec(any::<u8>(), 0..20),
        axis in prop::option::of(any::<i64>().prop_map(|a| a % 6)),
    ) {
        let _ = decode::lut_to_dense(&data, &shape, &more, &blocks, axis);
        let _ = decode::lut_to_sparse(&more, &shape, &data, &more, &blocks, axis);
        let _ = decode::sparse_to_dense(&data, &more, &shape);
        let scale: Vec<f32> = more.iter().map(|&b| f32::from(b)).collect();
        let _ = decode::shift_scale(&data, &shape, &scale, &blocks, Some(&more));
        let _ = decode::sparse_shift_scale(&more, &shape, &data, &scale, &blocks, Some(&more));
        let params = Affine { scale: &scale, zero_point: &more, axis: axis.unwrap_or(0) };
        let _ = decode::affine_dequantize(&data, &shape, &params);
    }

    #[test]
    fn fitting_shapes_are_accepted(
        axes in prop::collection::vec((1_usize..4, 1_usize..3), 1..4),
        vector in 1_usize..4,
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let shape: Vec<usize> = axes.iter().map(|(blocks, size)| blocks * size).collect();
        let groups: Vec<usize> = axes.iter().map(|(blocks, _)| *blocks).collect();
        let axis = at.index(shape.len());
        let mut lut_shape = groups.clone();
        lut_shape.extend([4, vector]);
        let lut: Vec<u16> = (0..lut_shape.iter().product::<usize>()).map(|i| i as u16).collect();
        let count: usize = shape.iter().product();
        let indices: Vec<u8> = (0..count as u32).map(|i| (seed.rotate_left(i * 7) & 3) as u8).collect();
        let dense = decode::lut_to_dense(&indices, &shape, &lut, &lut_shape, Some(axis as i64)).unwrap();
        let full = decode::dense_shape(&shape, &lut_shape, Some(axis as i64 - shape.len() as i64)).unwrap();
        for (flat, &found) in dense.iter().enumerate() {
            let (mut rest, mut number, mut stride) = (flat, 0, 1);
            let (mut group, mut group_stride, mut lane) = (0, 1, 0);
            for a in (0..shape.len()).rev() {
                let mut c = rest % full[a];
                rest /= full[a];
                if a == axis {
                    lane = c % vector;
                    c /= vector;
                }
                number += c * stride;
                stride *= shape[a];
                group += c / (shape[a] / groups[a]) * group_stride;
                group_stride *= groups[a];
            }
            let index = usize::from(indices[number]);
            prop_assert_eq!(usize::from(found), (group * 4 + index) * vector + lane);
        }
    }
}
