//! What a group comes to, whatever its type.

/// Plain figures about a group.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) nan: u64,
    pub(super) infinite: u64,
    pub(super) negative_infinite: u64,
    pub(super) zeros: u64,
    pub(super) range: Option<(f32, f32)>,
    pub(super) energy: f64,
}

impl Summary {
    /// Fills in what follows from the distinct values, ascending.
    pub(super) fn finish(&mut self, values: &[f32], counts: &[u64]) {
        self.range = values.first().copied().zip(values.last().copied());
        for (&x, &n) in values.iter().zip(counts) {
            self.zeros += if x == 0.0 { n } else { 0 };
            self.energy += n as f64 * (f64::from(x) * f64::from(x));
        }
    }

    pub(super) fn non_finite(&self) -> u64 {
        self.nan + self.infinite + self.negative_infinite
    }

    /// The distinct values that are not finite, before and after the finite ones.
    pub(super) fn specials(&self) -> (Option<f32>, Option<f32>, Option<f32>) {
        let some = |count: u64, x: f32| (count > 0).then_some(x);
        (
            some(self.negative_infinite, f32::NEG_INFINITY),
            some(self.infinite, f32::INFINITY),
            some(self.nan, f32::NAN),
        )
    }
}
