//! A group from values to bytes and back, through the public API only.

use half::{bf16, f16};
use palettizer_kernels::{Element, Precision, ValueHistogram, Weights, pack, unpack};
use proptest::prelude::*;

fn check<T: Element>(values: &[T], nbits: u32, precision: Precision) -> f64 {
    let histogram = ValueHistogram::new(values, Weights::Equal, precision);
    let clusters = histogram.cluster(1 << nbits);
    assert!(clusters.centroids.len() <= 1 << nbits);
    assert!(clusters.centroids.is_sorted());
    assert!(clusters.cost >= 0.0 && clusters.gap >= 0.0);

    // The palette is rounded, so the error may be above the cost by the rounding, but never below.
    let lut: Vec<f32> = clusters
        .centroids
        .iter()
        .map(|&c| T::from_f32(c as f32).to_f32())
        .collect();
    let mut indices = vec![0; values.len()];
    let error = histogram.assign(&lut, &mut indices);
    assert!(error >= clusters.cost * (1.0 - clusters.gap - 1e-9));
    if histogram
        .distinct(1 << nbits)
        .is_some_and(|distinct| distinct.iter().all(|x| x.is_finite()))
    {
        assert_eq!((clusters.cost, error), (0.0, 0.0));
    }

    let mut bytes = Vec::new();
    pack(&indices, nbits, &mut bytes);
    assert_eq!(bytes.len(), (values.len() * nbits as usize).div_ceil(8));
    let mut back = vec![0xff; values.len()];
    assert!(unpack(&bytes, nbits, &mut back));
    assert_eq!(back, indices);
    let restored: f64 = values
        .iter()
        .zip(&back)
        .filter(|(x, _)| x.to_f32().is_finite())
        .map(|(x, &i)| (f64::from(x.to_f32()) - f64::from(lut[usize::from(i)])).powi(2))
        .sum();
    assert!((restored - error).abs() <= 1e-9 * error);
    clusters.gap
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bits(bits in prop::collection::vec(any::<u32>(), 0..400), nbits in prop::sample::select(vec![1_u32, 2, 3, 4, 6, 8])) {
        check(&bits.iter().map(|&b| f16::from_bits(b as u16)).collect::<Vec<_>>(), nbits, Precision::Exact);
        check(&bits.iter().map(|&b| bf16::from_bits(b as u16)).collect::<Vec<_>>(), nbits, Precision::Exact);
        check(&bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>(), nbits, Precision::Refined);
    }

    #[test]
    fn few_values(values in prop::collection::vec(-30_i32..30, 0..3000), nbits in prop::sample::select(vec![1_u32, 2, 3, 4, 6, 8])) {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32 * 0.25).collect();
        let gaps = [
            check(&values, nbits, Precision::Refined),
            check(&values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(), nbits, Precision::Exact),
            check(&values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>(), nbits, Precision::Exact),
        ];
        prop_assert_eq!(gaps, [0.0; 3]);
    }
}
