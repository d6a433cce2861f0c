//! What follows from shape, spec and dtype alone.
#![allow(clippy::unwrap_used)]

use palettizer_palette::{
    Dtype, Granularity, LutDtype, Mode, Nbits, PaletteSpec, Refusal, layout, suits,
};

fn grouped(group_size: usize, channel_axis: Option<i64>) -> PaletteSpec {
    PaletteSpec::new(Mode::Kmeans(Nbits::B2)).with_granularity(Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    })
}

#[test]
fn axes_come_from_the_spec_first() {
    // (shape, output axis, spec, group axis, groups, index shape, vector axis)
    let tensor = || PaletteSpec::new(Mode::Unique);
    let table = [
        (vec![4, 6], None, tensor(), None, 1, vec![4, 6], None),
        (
            vec![4, 6],
            Some(1),
            tensor().with_cluster_dim(3),
            None,
            1,
            vec![4, 2],
            Some(1),
        ),
        (
            vec![4, 6],
            Some(0),
            grouped(2, None),
            Some(0),
            2,
            vec![4, 6],
            None,
        ),
        (
            vec![4, 6],
            Some(0),
            grouped(2, Some(-1)),
            Some(1),
            3,
            vec![4, 6],
            None,
        ),
        (
            vec![4, 6, 5],
            None,
            grouped(6, Some(1)).with_cluster_dim(2),
            Some(1),
            1,
            vec![4, 3, 5],
            Some(1),
        ),
    ];
    for (shape, output, spec, group_axis, groups, index_shape, vector_axis) in table {
        let found = layout(&shape, output, &spec).unwrap();
        assert_eq!(found.group_axis, group_axis);
        assert_eq!(found.groups, groups);
        assert_eq!(found.index_shape, index_shape);
        assert_eq!(found.vector_axis, vector_axis);
    }
}

#[test]
fn every_refusal_of_a_shape() {
    let vectors = PaletteSpec::new(Mode::Unique).with_cluster_dim(4);
    let scaled = PaletteSpec::new(Mode::Unique).with_per_channel_scale(true);
    let invalid = PaletteSpec::new(Mode::Unique).with_cluster_dim(0);
    type Kind = fn(&Refusal) -> bool;
    let table: Vec<(Vec<usize>, Option<usize>, PaletteSpec, Kind)> = vec![
        (vec![], None, grouped(1, None), |r| *r == Refusal::Scalar),
        (vec![3, 0], None, grouped(1, None), |r| {
            matches!(r, Refusal::Empty { .. })
        }),
        (vec![4], Some(0), invalid, |r| matches!(r, Refusal::Spec(_))),
        (vec![4], Some(1), grouped(1, None), |r| {
            *r == Refusal::ChannelAxisOutOfRange { axis: 1, rank: 1 }
        }),
        (vec![4], Some(0), grouped(1, Some(-2)), |r| {
            *r == Refusal::ChannelAxisOutOfRange { axis: -2, rank: 1 }
        }),
        (vec![4], Some(0), grouped(1, Some(i64::MIN)), |r| {
            matches!(r, Refusal::ChannelAxisOutOfRange { .. })
        }),
        (vec![4], None, grouped(1, None), |r| {
            matches!(r, Refusal::ChannelAxisUnknown { .. })
        }),
        (vec![4], None, vectors.clone(), |r| {
            matches!(r, Refusal::ChannelAxisUnknown { .. })
        }),
        (vec![4], None, scaled, |r| {
            matches!(r, Refusal::ChannelAxisUnknown { .. })
        }),
        (vec![4, 6], Some(0), grouped(4, Some(1)), |r| {
            matches!(
                r,
                Refusal::GroupSize {
                    channels: 6,
                    axis: 1,
                    group_size: 4
                }
            )
        }),
        (vec![4, 6], Some(1), vectors, |r| {
            matches!(
                r,
                Refusal::ClusterDim {
                    channels: 6,
                    axis: 1,
                    cluster_dim: 4
                }
            )
        }),
        (
            vec![8],
            Some(0),
            grouped(2, None).with_cluster_dim(4),
            |r| matches!(r, Refusal::ClusterDim { channels: 2, .. }),
        ),
    ];
    for (shape, output, spec, kind) in table {
        let refusal = layout(&shape, output, &spec).unwrap_err();
        assert!(kind(&refusal), "{refusal}");
    }
}

#[test]
fn the_kind_of_weight_can_refuse() {
    let plain = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
    let int_table = plain.clone().with_lut_dtype(LutDtype::Int8);
    let scaled = plain.clone().with_per_channel_scale(true);
    let vectors = plain.clone().with_cluster_dim(2);
    for (dtype, masked, spec, refused) in [
        (Dtype::U8, true, &plain, false),
        (Dtype::U8, false, &int_table, true),
        (Dtype::BF16, false, &int_table, false),
        (Dtype::I8, false, &scaled, true),
        (Dtype::F32, true, &scaled, false),
        (Dtype::F32, true, &vectors, true),
        (Dtype::I8, false, &vectors, false),
    ] {
        assert_eq!(
            suits(dtype, masked, spec).is_err(),
            refused,
            "{dtype:?} {spec:?}"
        );
    }
}
