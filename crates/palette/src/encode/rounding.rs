//! Rounding to a weight's dtype, and the numbers next to one.

use half::{bf16, f16};

use crate::Dtype;

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

    /// Two numbers multiplied.
    pub(crate) fn product(self, a: f32, b: f32) -> f32 {
        self.nearest(f64::from(a) * f64::from(b))
    }

    /// Numbers of the dtype, little-endian.
    pub(crate) fn bytes(self, numbers: &[f32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(numbers.len() * self.0.size());
        for &number in numbers {
            match self.0 {
                Dtype::F16 => out.extend(f16::from_f32(number).to_le_bytes()),
                Dtype::BF16 => out.extend(bf16::from_f32(number).to_le_bytes()),
                Dtype::F32 => out.extend(number.to_le_bytes()),
                Dtype::I8 => out.extend((number as i8).to_le_bytes()),
                Dtype::U8 => out.push(number as u8),
            }
        }
        out
    }

    /// The largest number.
    pub(crate) fn largest(self) -> f64 {
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
    pub(crate) fn above(self, value: f64) -> f32 {
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
    pub(crate) fn below(self, value: f32) -> f32 {
        match self.0 {
            Dtype::F16 => f16::from_bits(f16::from_f32(value).to_bits().saturating_sub(1)).to_f32(),
            Dtype::BF16 => {
                bf16::from_bits(bf16::from_f32(value).to_bits().saturating_sub(1)).to_f32()
            }
            _ => f32::from_bits(value.to_bits().saturating_sub(1)),
        }
    }

    /// The smallest positive number.
    pub(crate) fn smallest(self) -> f32 {
        match self.0 {
            Dtype::F16 => f16::from_bits(1).to_f32(),
            Dtype::BF16 => bf16::from_bits(1).to_f32(),
            _ => f32::from_bits(1),
        }
    }
}

/// The least number of `fp16` that is not below a positive one; that itself where `fp16` ends.
pub(crate) fn half_above(value: f32) -> f32 {
    let half = Rounding(Dtype::F16);
    match (half.smallest()..=f16::MAX.to_f32()).contains(&value) {
        true => half.above(f64::from(value)),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_up_goes_to_the_next_number_or_nowhere() {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
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
}
