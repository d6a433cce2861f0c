//! The nearest entry, by looking at all of them.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{KINDS, Noise};
use crate::{Element, Precision, ValueHistogram, Weights, replace};

fn nearest(lut: &[f32], x: f32) -> u8 {
    if let Some(same) = lut
        .iter()
        .position(|&entry| entry == x || (entry.is_nan() && x.is_nan()))
    {
        return same as u8;
    }
    let finite = || {
        lut.iter()
            .enumerate()
            .filter(|(_, entry)| entry.is_finite())
    };
    let found = if x.is_nan() {
        Some(0)
    } else if x.is_infinite() {
        let last = lut.iter().rposition(|entry| !entry.is_nan()).unwrap_or(0);
        let last = lut
            .iter()
            .position(|entry| *entry == lut[last])
            .unwrap_or(0);
        Some(if x > 0.0 { last } else { 0 })
    } else {
        // Midpoints of 32-bit floats are exact in 64 bits, so this is the true nearest.
        let pick = |best: (usize, f64), (i, &entry): (usize, &f32)| {
            let middle = (f64::from(lut[best.0]) + f64::from(entry)) / 2.0;
            if best.1.is_infinite() || (f64::from(x) > middle && entry > lut[best.0]) {
                (i, 0.0)
            } else {
                best
            }
        };
        finite()
            .next()
            .map(|(first, _)| finite().fold((first, 0.0), pick).0)
    };
    found.unwrap_or(0) as u8
}

pub(super) fn check<T: Element>(values: &[T], lut: &[f32]) {
    let histogram = ValueHistogram::new(values, Weights::Equal, Precision::Refined);
    let mut indices = vec![77; values.len()];
    let error = histogram.assign(lut, &mut indices);
    let mut wanted = 0.0;
    for (value, &index) in values.iter().zip(&indices) {
        let x = value.to_f32();
        let finite = lut.iter().any(|entry| entry.is_finite());
        if finite || !x.is_finite() {
            assert_eq!(index, nearest(lut, x), "{x} in {lut:?}");
        }
        let d = f64::from(x) - f64::from(lut[usize::from(index)]);
        wanted += if d.is_finite() { d * d } else { 0.0 };
    }
    assert!(
        (error - wanted).abs() <= 1e-10 * wanted,
        "{error} is not {wanted}"
    );
    if T::BITS == 32 {
        let mut replaced: Vec<f32> = values.iter().map(|x| x.to_f32()).collect();
        assert_eq!(replace(&mut replaced, lut).to_bits(), error.to_bits());
        let entries = indices.iter().map(|&index| lut[usize::from(index)]);
        assert!(
            replaced
                .iter()
                .map(|x| x.to_bits())
                .eq(entries.map(f32::to_bits))
        );
    }
}

fn check_types(values: &[f32], lut: &[f32]) {
    check(values, lut);
    check(
        &values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(),
        lut,
    );
    check(
        &values
            .iter()
            .map(|&x| bf16::from_f32(x))
            .collect::<Vec<_>>(),
        lut,
    );
}

fn palette(max: usize) -> impl Strategy<Value = Vec<f32>> {
    let entry = prop_oneof![3 => -4.0_f32..4.0, 2 => (-8_i32..8).prop_map(|v| v as f32 / 2.0), 1 => Just(0.0), 1 => -1e30_f32..1e30];
    (prop::collection::vec(entry, 1..max), any::<[bool; 3]>()).prop_map(
        move |(mut lut, [first, last, nan])| {
            lut.sort_by(f32::total_cmp);
            let ends = [
                (first, f32::NEG_INFINITY),
                (last, f32::INFINITY),
                (nan, f32::NAN),
            ];
            if first {
                lut.insert(0, ends[0].1);
            }
            lut.extend(ends[1..].iter().filter(|end| end.0).map(|end| end.1));
            lut.truncate(256);
            lut
        },
    )
}

proptest! {
    #[test]
    fn nearest_of_any(bits in prop::collection::vec(any::<u32>(), 0..200), lut in palette(20)) {
        check_types(&bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>(), &lut);
    }

    #[test]
    fn nearest_on_a_lattice(values in prop::collection::vec(-40_i32..40, 0..200), lut in palette(256)) {
        check_types(&values.iter().map(|&v| v as f32 / 8.0).collect::<Vec<_>>(), &lut);
    }

    #[test]
    fn midpoints_go_down(a in -1e3_f32..1e3, width in 1e-6_f32..1.0) {
        let lut = [a, a + width];
        let middle = ((f64::from(lut[0]) + f64::from(lut[1])) / 2.0) as f32;
        check_types(&[middle, middle.next_up(), middle.next_down(), lut[0], lut[1]], &lut);
    }
}

#[test]
fn large_groups() {
    for kind in KINDS {
        let values = Noise(21).values(kind, 150_000);
        for k in [2, 16, 17, 64, 256] {
            let clusters =
                ValueHistogram::new(&values[..3000], Weights::Equal, Precision::Exact).cluster(k);
            let mut lut: Vec<f32> = clusters.centroids.iter().map(|&c| c as f32).collect();
            // As long as wanted, by repeating the last.
            lut.resize(k, lut[lut.len() - 1]);
            check_types(&values, &lut);
            // Only in one of the pieces that are worked on in parallel.
            let mut ragged = values.clone();
            ragged[140_000] = f32::NAN;
            check(&ragged, &lut);
        }
    }
}

/// Entries that no grid of equal cells can tell apart, and zeros of both signs at a border.
#[test]
fn heavy_tails_and_zeros() {
    let powers = || (-20..12).map(|e| 2.0_f32.powi(3 * e));
    let mut lut: Vec<f32> = powers().rev().map(|x| -x).chain(powers()).collect();
    let mut values = Noise(22).values(super::Kind::Cauchy, 40_000);
    for (i, x) in values.iter_mut().enumerate() {
        *x = match i % 4 {
            0 => 0.0,
            1 => -0.0,
            _ => x.powi(5),
        };
    }
    check(&values, &lut);
    lut.resize(100, 2.0_f32.powi(33));
    check(&values, &lut);
}

#[test]
fn every_bit_pattern() {
    let lut = [
        f32::NEG_INFINITY,
        -2.0,
        -0.5,
        0.0,
        0.5,
        3.0,
        f32::INFINITY,
        f32::NAN,
    ];
    for lut in [&lut[..], &lut[1..6], &lut[..1], &lut[6..], &lut[3..4]] {
        check(&(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>(), lut);
        check(
            &(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>(),
            lut,
        );
    }
}

#[test]
fn no_palette() {
    let mut indices = [5; 2];
    assert_eq!(
        ValueHistogram::new(&[1.0_f32, 2.0], Weights::Equal, Precision::Exact)
            .assign(&[], &mut indices),
        0.0
    );
    assert_eq!(indices, [0, 0]);
    let mut values = [1.0, 2.0];
    assert_eq!(replace(&mut values, &[]), 0.0);
    assert_eq!(values, [0.0, 0.0]);
}
