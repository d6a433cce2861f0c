//! The entries of a table as a file holds them: rounded to the weight's dtype, or integers with a scale.
//!
//! Indices are found *after* this step, against the very values that a runtime will compute, so that each element
//! gets the entry that is nearest in the end.
//!
//! Source: coremltools' symmetric LUT quantization. Deviations: integers are computed against the scale as it is
//! stored, and `storage` says what that may be; an entry that a channel's scale would make infinite is the nearest that
//! it does not.

use super::storage::Storage;
use crate::LutDtype;

/// What uint8 entries are shifted by.
pub(crate) const ZERO_POINT: u8 = 127;

/// The entries of one table, with what they are stored as.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entries {
    /// What a runtime will compute, in the order of the indices.
    pub(crate) values: Vec<f32>,
    /// The integers and their scale, when the table is quantized.
    pub(crate) quantized: Option<Quantized>,
}

/// Integer entries: value = scale · integer, rounded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantized {
    /// Symmetric integers from −127 to 127, as many as values.
    pub(crate) integers: Vec<i8>,
    /// One scale, a number of the weight's dtype.
    pub(crate) scale: f32,
}

/// Ascending, distinct entries for ascending targets.
pub(crate) fn scalars(targets: &[f64], storage: Storage) -> Entries {
    let mut entries = vectors(targets, storage);
    match &mut entries.quantized {
        None => entries.values.dedup(),
        Some(quantized) => {
            let pairs = entries
                .values
                .iter()
                .copied()
                .zip(quantized.integers.iter().copied());
            let mut pairs: Vec<(f32, i8)> = pairs.collect();
            pairs.dedup_by_key(|&mut (value, _)| value);
            (entries.values, quantized.integers) = pairs.into_iter().unzip();
        }
    }
    entries
}

/// An entry for each target.
pub(crate) fn vectors(targets: &[f64], storage: Storage) -> Entries {
    let rounding = storage.rounding;
    if storage.lut_dtype == LutDtype::Float {
        return Entries {
            values: targets
                .iter()
                .map(|&w| rounding.nearest(w).clamp(-storage.most, storage.most))
                .collect(),
            quantized: None,
        };
    }
    let scale = scale(targets, storage);
    let integers: Vec<i8> = targets
        .iter()
        .map(|w| {
            (w / f64::from(scale))
                .round_ties_even()
                .clamp(-127.0, 127.0) as i8
        })
        .collect();
    let values = integers
        .iter()
        .map(|&q| rounding.product(scale, f32::from(q)))
        .collect();
    Entries {
        values,
        quantized: Some(Quantized { integers, scale }),
    }
}

/// Largest absolute value / 127 in the dtype: positive, and 127 times it an entry.
fn scale(targets: &[f64], storage: Storage) -> f32 {
    let most = targets.iter().fold(0_f64, |most, w| most.max(w.abs()));
    if most == 0.0 {
        return 1.0;
    }
    let rounding = storage.rounding;
    let scale = rounding.nearest(most / 127.0).max(rounding.smallest());
    storage.within(storage.scale(scale))
}

#[cfg(test)]
mod tests {
    use super::super::rounding::Rounding;
    use super::*;
    use crate::{Dtype, Mode, PaletteSpec};

    fn storage(lut_dtype: LutDtype, dtype: Dtype) -> Storage {
        let spec = PaletteSpec::new(Mode::Unique).with_lut_dtype(lut_dtype);
        Storage::new(dtype, &spec)
    }

    const FLOATS: [Dtype; 3] = [Dtype::F16, Dtype::BF16, Dtype::F32];

    #[test]
    fn integers_span_the_range() {
        for dtype in FLOATS {
            let targets = [-1.0, -0.5, 0.0, 1.0 / 127.0, 1.0];
            let entries = scalars(&targets, storage(LutDtype::Int8, dtype));
            let quantized = entries.quantized.unwrap();
            assert_eq!(quantized.integers, [-127, -64, 0, 1, 127], "{dtype:?}");
            for (value, target) in entries.values.iter().zip(targets) {
                assert!(
                    (f64::from(*value) - target).abs() < 0.006,
                    "{value} {target}"
                );
            }
        }
    }

    #[test]
    fn scales_are_neither_zero_nor_too_large() {
        for dtype in FLOATS {
            let rounding = Rounding(dtype);
            assert_eq!(scale(&[0.0, -0.0], storage(LutDtype::Int8, dtype)), 1.0);
            for most in [
                1e-40,
                1e-9,
                6e-8,
                1.0,
                65504.0,
                3.389e38,
                f64::from(f32::MAX),
            ] {
                let most = f64::from(rounding.nearest(most)).min(f64::from(f32::MAX));
                if most == 0.0 || (dtype == Dtype::F16 && most > 65504.0) {
                    continue;
                }
                let entries = scalars(&[-most, most], storage(LutDtype::Uint8, dtype));
                assert!(entries.quantized.unwrap().scale > 0.0);
                assert!(
                    entries.values.iter().all(|v| v.is_finite()),
                    "{dtype:?} {most}"
                );
            }
        }
    }

    #[test]
    fn collapsed_entries_are_stored_once() {
        let near = [-1e-9, 0.0, 1e-9, 1.0];
        let float = scalars(&near, storage(LutDtype::Float, Dtype::F16));
        assert_eq!(float.values, [0.0, 1.0]);
        assert!(float.values[0].is_sign_positive());
        let int = scalars(&near, storage(LutDtype::Int8, Dtype::F16));
        assert_eq!(int.quantized.unwrap().integers, [0, 127]);
        let ints = scalars(
            &[-300.0, 0.5, 1.5, 300.0],
            storage(LutDtype::Float, Dtype::I8),
        );
        assert_eq!(ints.values, [-128.0, 0.0, 2.0, 127.0]);
    }
}
