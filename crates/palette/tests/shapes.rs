//! Weights of any shape, groups on any axis: whatever is accepted decompresses to what its parts say.
#![allow(clippy::unwrap_used)]

mod naive;

use palettizer_palette::{Dtype, Mode, Tensor, layout, palettize, suits};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_accepted_is_right(
        shape in prop::collection::vec(prop::sample::select(vec![1_usize, 2, 3, 4, 6, 12]), 0..5),
        output_axis in prop::option::weighted(0.9, 0_usize..3),
        spec in naive::spec(),
        dtype in prop::sample::select(Dtype::ALL.to_vec()),
        seed in any::<u64>(),
    ) {
        let count = shape.iter().product();
        let bytes = naive::weight(dtype, count, 3, seed);
        let tensor = Tensor::new(dtype, &shape, &bytes).unwrap();
        let plan = layout(&shape, output_axis, &spec).and_then(|plan| suits(dtype, false, &spec).map(|()| plan));
        let found = palettize(&tensor, &spec, &naive::on(output_axis));
        let Ok(plan) = plan else {
            prop_assert_eq!(found.err(), plan.err());
            return Ok(());
        };
        // Bell-shaped weights are finite, but may have too many values for unique mode.
        let Ok(palette) = found else {
            prop_assert!(matches!(spec.mode(), Mode::Unique), "{:?}", found);
            return Ok(());
        };
        let dense = palette.decompress();
        prop_assert_eq!(palette.lut_shape.clone(), plan.lut_shape(palette.nbits));
        let mut lost = 0.0;
        for at in 0..count {
            let value = naive::read(dtype, &dense, at);
            prop_assert_eq!(value, naive::element(&palette, at));
            lost += (naive::read(dtype, &bytes, at) - value).powi(2);
        }
        prop_assert!((lost - palette.error.squared_error).abs() <= 1e-9 * lost.max(1e-9));
        if matches!(spec.mode(), Mode::Unique) && !spec.per_channel_scale() {
            prop_assert_eq!(dense, bytes);
        }
    }
}
