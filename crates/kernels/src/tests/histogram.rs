//! Counting, value by value.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{KINDS, Noise};
use crate::{Element, Precision, ValueHistogram, Weights};

pub(super) fn check<T: Element>(values: &[T]) {
    let histogram = ValueHistogram::new(values, Weights::Equal, Precision::Refined);
    let wide: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
    let finite: Vec<f32> = wide.iter().copied().filter(|x| x.is_finite()).collect();
    assert_eq!(histogram.len(), values.len());
    assert_eq!(histogram.is_empty(), values.is_empty());
    assert_eq!(histogram.non_finite(), wide.len() - finite.len());
    assert_eq!(
        histogram.zeros(),
        wide.iter().filter(|x| **x == 0.0).count()
    );
    let range = finite
        .iter()
        .copied()
        .reduce(f32::min)
        .zip(finite.iter().copied().reduce(f32::max));
    assert_eq!(histogram.range(), range);
    let energy: f64 = finite.iter().map(|&x| f64::from(x).powi(2)).sum();
    assert!((histogram.energy() - energy).abs() <= 1e-10 * energy);

    let mut distinct: Vec<f32> = wide
        .iter()
        .map(|&x| if x.is_nan() { f32::NAN } else { x + 0.0 })
        .collect();
    distinct.sort_by(f32::total_cmp);
    distinct.dedup_by_key(|x| x.to_bits());
    assert_eq!(histogram.distinct_count(), distinct.len());
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    if distinct.len() <= 1 << 16 {
        assert_eq!(
            bits(&histogram.distinct(distinct.len()).unwrap()),
            bits(&distinct)
        );
    }
    if !distinct.is_empty() {
        assert_eq!(histogram.distinct(distinct.len().min(1 << 16) - 1), None);
    }
}

fn check_types(values: &[f32]) {
    check(values);
    check(&values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>());
    check(
        &values
            .iter()
            .map(|&x| bf16::from_f32(x))
            .collect::<Vec<_>>(),
    );
}

proptest! {
    #[test]
    fn counts_any_bits(bits in prop::collection::vec(any::<u32>(), 0..300)) {
        check_types(&bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>());
        let narrow: Vec<u16> = bits.iter().map(|&b| b as u16).collect();
        check(&narrow.iter().map(|&b| f16::from_bits(b)).collect::<Vec<_>>());
        check(&narrow.iter().map(|&b| bf16::from_bits(b)).collect::<Vec<_>>());
    }

    #[test]
    fn counts_few_values(bits in prop::collection::vec(0_u32..6, 0..300)) {
        let few = [0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        check_types(&bits.iter().map(|&b| few[b as usize]).collect::<Vec<_>>());
    }
}

#[test]
fn counts_large_groups() {
    for kind in KINDS {
        let mut values = Noise(9).values(kind, 300_001);
        check_types(&values);
        values[70_000] = f32::NAN;
        values[200_000] = f32::NEG_INFINITY;
        values[3] = -0.0;
        check_types(&values);
    }
    // Every bit pattern there is.
    check(&(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>());
    check(&(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>());
}
