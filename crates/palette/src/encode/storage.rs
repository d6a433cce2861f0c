//! How a file holds the tables of a weight: what entries and scales are rounded to, and how large they may be.
//!
//! A scale is never zero, nor so large that an entry overflows; one that is rounded a second time, to `fp16` or with that
//! of a channel, is rounded up, so that 127 steps still reach the largest value.

use super::rounding::{Rounding, half_above};
use crate::{Dtype, LutDtype, PaletteSpec};

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
    pub(crate) most: f32,
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
    pub(crate) fn within(self, mut scale: f32) -> f32 {
        let rounding = self.rounding;
        while scale > 0.0 && !self.holds(rounding.nearest(127.0 * f64::from(scale))) {
            scale = rounding.below(scale);
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    #[test]
    fn folded_scales_stay_finite_and_positive() {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            let spec = PaletteSpec::new(Mode::Unique).with_lut_dtype(LutDtype::Int8);
            let storage = Storage::new(dtype, &spec);
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
