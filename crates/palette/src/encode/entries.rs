//! The entries of a table as a file holds them: rounded to the weight's dtype, or integers with a scale.
//!
//! Indices are found *after* this step, against the very values that a runtime will compute, so that each element
//! gets the entry that is nearest in the end.
//!
//! Source: coremltools' symmetric LUT quantization. Deviations: integers are computed against the scale as it is
//! stored; a scale is never zero, nor so large that an entry overflows; a scale that is rounded a second time, to
//! `fp16` or with that of a channel, is rounded up, so that 127 steps still reach the largest value;
//! an entry that a channel's scale would make infinite is the nearest that it does not.

use half::{bf16, f16};

use crate::{Dtype, LutDtype, PaletteSpec};

/// What uint8 entries are shifted by.
pub(crate) const ZERO_POINT: u8 = 127;

/// Rounding to a dtype, with the numbers of that dtype held in `f32`, where all of them are exact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounding(pub(crate) Dtype);

impl Rounding {
    /// The nearest number, ties to even; integers saturate. Never −0.
    pub(crate) fn nearest(self, value: f64) -> f32 {
        let rounded = match self.0 {
            Dtype::F16 => f16::from_f64(value).to_f32(),
            Dtype::BF16 => bf16::from_f64(value).to_f32(),
            Dtype::F32 => value as f32,
            Dtype::I8 => value.round_ties_even().clamp(-128.0, 127.0) as f32,
            Dtype::U8 => value.round_ties_even().clamp(0.0, 255.0) as f32,
        };
        rounded + 0.0
    }

    /// Appends a number of the dtype, little-endian.
    pub(crate) fn push(self, value: f32, out: &mut Vec<u8>) {
        match self.0 {
            Dtype::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
            Dtype::BF16 => out.extend(bf16::from_f32(value).to_le_bytes()),
            Dtype::F32 => out.extend(value.to_le_bytes()),
            Dtype::I8 => out.extend((value as i8).to_le_bytes()),
            Dtype::U8 => out.push(value as u8),
        }
    }

    /// The largest number.
    fn largest(self) -> f64 {
        match self.0 {
            Dtype::F16 => f16::MAX.to_f64(),
            Dtype::BF16 => bf16::MAX.to_f64(),
            Dtype::F32 => f64::from(f32::MAX),
            Dtype::I8 => 127.0,
            Dtype::U8 => 255.0,
        }
    }

    /// The smallest positive number with full precision; 1 for integers.
    pub(crate) fn smallest_normal(self) -> f32 {
        match self.0 {
            Dtype::F16 => f16::MIN_POSITIVE.to_f32(),
            Dtype::BF16 | Dtype::F32 => f32::MIN_POSITIVE,
            Dtype::I8 | Dtype::U8 => 1.0,
        }
    }

    /// The least float that is not below a positive number.
    fn above(self, value: f64) -> f32 {
        let near = self.nearest(value);
        if f64::from(near) >= value {
            return near;
        }
        match self.0 {
            Dtype::F16 => f16::from_bits(f16::from_f32(near).to_bits() + 1).to_f32(),
            Dtype::BF16 => bf16::from_bits(bf16::from_f32(near).to_bits() + 1).to_f32(),
            _ => near.next_up(),
        }
    }

    /// A positive float's lower neighbour.
    fn below(self, value: f32) -> f32 {
        match self.0 {
            Dtype::F16 => f16::from_bits(f16::from_f32(value).to_bits().saturating_sub(1)).to_f32(),
            Dtype::BF16 => {
                bf16::from_bits(bf16::from_f32(value).to_bits().saturating_sub(1)).to_f32()
            }
            _ => f32::from_bits(value.to_bits().saturating_sub(1)),
        }
    }

    /// The smallest positive number.
    fn smallest(self) -> f32 {
        match self.0 {
            Dtype::F16 => f16::from_bits(1).to_f32(),
            Dtype::BF16 => bf16::from_bits(1).to_f32(),
            _ => f32::from_bits(1),
        }
    }
}

/// How the tables of one weight are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage {
    /// What the entries are stored as.
    pub(crate) lut_dtype: LutDtype,
    /// What entries are rounded to.
    pub(crate) rounding: Rounding,
    /// Whether scales are folded: then only products are stored.
    pub(crate) folds: bool,
    /// Whether stored scales are numbers of `fp16`.
    halves: bool,
    /// The largest entry that is finite when it is multiplied by any channel's scale.
    most: f32,
}

impl Storage {
    /// What the spec says for weights of a dtype.
    pub(crate) fn new(dtype: Dtype, spec: &PaletteSpec) -> Self {
        let lut_dtype = spec.lut_dtype();
        let halves = spec.half_scales() && dtype == Dtype::F32;
        let half_entries = halves && spec.per_channel_scale() && lut_dtype == LutDtype::Float;
        Storage {
            lut_dtype,
            rounding: Rounding(if half_entries { Dtype::F16 } else { dtype }),
            folds: spec.folds(),
            halves,
            most: f32::MAX,
        }
    }

    /// The same for entries that will be multiplied by scales of up to `largest`. Such an entry may be rounded up and be
    /// beyond 1 then: next to the end of the weight's dtype, the product would be infinite.
    pub(crate) fn under(self, largest: f32, weight: Rounding) -> Self {
        // Folded scales are looked after where they are folded.
        if self.folds {
            return self;
        }
        let largest = f64::from(largest);
        let room = (weight.largest() / largest).min(self.rounding.largest());
        let mut most = self.rounding.nearest(room);
        while !weight.nearest(f64::from(most) * largest).is_finite() {
            most = self.rounding.below(most);
        }
        Storage { most, ..self }
    }

    /// Whether an entry is finite, and stays so under every scale.
    pub(crate) fn holds(self, entry: f32) -> bool {
        entry.abs() <= self.most
    }

    /// A scale of a table or a channel as it counts for what is divided by it.
    pub(crate) fn scale(self, scale: f32) -> f32 {
        match self.halves && !self.folds {
            true => half_above(scale),
            false => scale,
        }
    }

    /// The scales of a table and a channel in one: the next number that is not below their product, and the one before
    /// it. The second may serve better; both are the same where it makes no difference.
    pub(crate) fn folded(self, table: f32, channel: f32) -> [f32; 2] {
        let product = f64::from(table) * f64::from(channel);
        let above = self.rounding.above(product);
        let numbers = match self.halves {
            true => Rounding(Dtype::F16),
            false => self.rounding,
        };
        let scale = self.within(match self.halves {
            true => half_above(above),
            false => above,
        });
        let below = numbers.below(scale);
        // Those of fp32 are too near each other to matter, and what fp16 has not stays as it is.
        let stored = numbers.0 != Dtype::F32 && numbers.nearest(f64::from(scale)) == scale;
        if stored && below > 0.0 && f64::from(scale) > product {
            [scale, below]
        } else {
            [scale; 2]
        }
    }

    /// A scale that 127 times is an entry.
    fn within(self, mut scale: f32) -> f32 {
        let rounding = self.rounding;
        while scale > 0.0 && !self.holds(rounding.nearest(127.0 * f64::from(scale))) {
            scale = rounding.below(scale);
        }
        scale
    }
}

/// The least number of `fp16` that is not below a positive one; that itself where `fp16` ends.
fn half_above(value: f32) -> f32 {
    let half = Rounding(Dtype::F16);
    match (half.smallest()..=f16::MAX.to_f32()).contains(&value) {
        true => half.above(f64::from(value)),
        false => value,
    }
}

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

/// Ascending wishes to ascending, distinct entries.
pub(crate) fn scalars(wishes: &[f64], storage: Storage) -> Entries {
    let mut entries = vectors(wishes, storage);
    match &mut entries.quantized {
        None => entries.values.dedup(),
        Some(quantized) => {
            let mut last = None;
            let mut values = Vec::with_capacity(entries.values.len());
            let mut integers = Vec::with_capacity(entries.values.len());
            for (&value, &integer) in entries.values.iter().zip(&quantized.integers) {
                if last.replace(value) != Some(value) {
                    values.push(value);
                    integers.push(integer);
                }
            }
            entries.values = values;
            quantized.integers = integers;
        }
    }
    entries
}

/// Wishes to entries, one for one.
pub(crate) fn vectors(wishes: &[f64], storage: Storage) -> Entries {
    let rounding = storage.rounding;
    if storage.lut_dtype == LutDtype::Float {
        return Entries {
            values: wishes
                .iter()
                .map(|&w| rounding.nearest(w).clamp(-storage.most, storage.most))
                .collect(),
            quantized: None,
        };
    }
    let scale = scale(wishes, storage);
    let integers: Vec<i8> = wishes
        .iter()
        .map(|w| {
            (w / f64::from(scale))
                .round_ties_even()
                .clamp(-127.0, 127.0) as i8
        })
        .collect();
    let values = integers
        .iter()
        .map(|&q| rounding.nearest(f64::from(scale) * f64::from(q)))
        .collect();
    Entries {
        values,
        quantized: Some(Quantized { integers, scale }),
    }
}

/// Largest absolute value / 127 in the dtype: positive, and 127 times it an entry.
fn scale(wishes: &[f64], storage: Storage) -> f32 {
    let most = wishes.iter().fold(0_f64, |most, w| most.max(w.abs()));
    if most == 0.0 {
        return 1.0;
    }
    let rounding = storage.rounding;
    let scale = rounding.nearest(most / 127.0).max(rounding.smallest());
    storage.within(storage.scale(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(lut_dtype: LutDtype, dtype: Dtype) -> Storage {
        Storage {
            lut_dtype,
            rounding: Rounding(dtype),
            folds: false,
            halves: false,
            most: f32::MAX,
        }
    }

    const FLOATS: [Dtype; 3] = [Dtype::F16, Dtype::BF16, Dtype::F32];

    #[test]
    fn integers_span_the_range() {
        for dtype in FLOATS {
            let wishes = [-1.0, -0.5, 0.0, 1.0 / 127.0, 1.0];
            let entries = scalars(&wishes, storage(LutDtype::Int8, dtype));
            let quantized = entries.quantized.unwrap();
            assert_eq!(quantized.integers, [-127, -64, 0, 1, 127], "{dtype:?}");
            for (value, wish) in entries.values.iter().zip(wishes) {
                assert!((f64::from(*value) - wish).abs() < 0.006, "{value} {wish}");
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

    #[test]
    fn rounding_up_goes_to_the_next_number_or_nowhere() {
        for dtype in FLOATS {
            let rounding = Rounding(dtype);
            for value in [1e-3, 1.0 / 3.0, 1.0, 1000.1, 60000.0] {
                let up = rounding.above(value);
                assert!(f64::from(up) >= value && f64::from(rounding.below(up)) < value);
                assert_eq!(rounding.above(f64::from(up)), up);
            }
            assert_eq!(rounding.above(1e-60), rounding.smallest());
        }
        let unit = 2_f32.powi(-24);
        for (value, half) in [
            (
                0.1,
                f16::from_bits(f16::from_f32(0.1).to_bits() + 1).to_f32(),
            ),
            (65503.0, 65504.0),
            (65505.0, 65505.0),
            (1.5 * unit, 2.0 * unit),
            (0.9 * unit, 0.9 * unit),
        ] {
            assert!(f16::from_f32(0.1).to_f32() < 0.1);
            assert_eq!(half_above(value), half);
        }
    }

    #[test]
    fn folded_scales_stay_finite_and_positive() {
        for dtype in FLOATS {
            let storage = storage(LutDtype::Int8, dtype);
            let rounding = storage.rounding;
            let smallest = rounding.smallest();
            assert_eq!(storage.folded(smallest, smallest), [smallest; 2]);
            let most = rounding.nearest(if dtype == Dtype::F16 {
                65504.0
            } else {
                3.38e38
            });
            let table = rounding.above(1.0 / 127.0);
            for folded in storage.folded(table, most) {
                assert!(folded > 0.0 && rounding.nearest(127.0 * f64::from(folded)).is_finite());
            }
        }
    }
}
