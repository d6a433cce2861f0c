//! Sensitivities as k-means wants them, from squared gradients as they come.
//!
//! Only their ratios matter, so that they are divided by the largest. Zeros and next to nothing are raised to a floor: a
//! weight that no sample moved is not one that may become anything.
//!
//! Source: coremltools' SKMPalettizer, whose steps these are, in the same order.

use rayon::prelude::*;
use thiserror::Error;

/// Nothing weighs less than this part of the largest.
pub const FLOOR: f32 = 1e-12;

/// Elements of one task.
const CHUNK: usize = 1 << 16;

/// Why numbers are no sensitivities.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "sensitivity {value} at element {at}: expected finite numbers from zero on, such as sums of squared gradients \
     ({count} of {elements} are not)"
)]
pub struct SensitivityError {
    /// The first that is negative, NaN or infinite.
    pub value: f32,
    /// Where it is.
    pub at: usize,
    /// How many there are.
    pub count: usize,
    /// Of how many.
    pub elements: usize,
}

/// Puts the sensitivities of one weight between [`FLOOR`] and 1, in place.
///
/// If all are zero, all become 1. Otherwise they are divided by the largest; then zeros become the smallest that is not
/// zero, and what is below the floor becomes the floor.
///
/// # Errors
/// [`SensitivityError`] for a negative, infinite or undefined number; then nothing has changed.
///
/// ```
/// use palettizer_palette::sensitivity::normalise;
///
/// let mut values = [0.0, 2.0, 8.0, 1e-20];
/// normalise(&mut values)?;
/// assert_eq!(values, [1e-12, 0.25, 1.0, 1e-12]);
/// let mut values = [0.0, 0.0];
/// normalise(&mut values)?;
/// assert_eq!(values, [1.0, 1.0]);
/// assert!(normalise(&mut [1.0, f32::NAN]).is_err());
/// # Ok::<(), palettizer_palette::sensitivity::SensitivityError>(())
/// ```
pub fn normalise(values: &mut [f32]) -> Result<(), SensitivityError> {
    let Look { most, least, sound } = look(values);
    if !sound {
        let bad = |value: &f32| !is_good(*value);
        let count = values.iter().filter(|value| bad(value)).count();
        let at = values.iter().position(bad).unwrap_or(0);
        return Err(SensitivityError {
            value: values[at],
            at,
            count,
            elements: values.len(),
        });
    }
    if most == 0.0 {
        values.fill(1.0);
        return Ok(());
    }
    let floor = (least / most).max(FLOOR);
    let scale = |value: &mut f32| *value = (*value / most).max(floor);
    values
        .par_chunks_mut(CHUNK)
        .for_each(|values| values.iter_mut().for_each(scale));
    Ok(())
}

/// Whether a number is a sensitivity: finite, and zero or more.
pub(crate) fn is_good(value: f32) -> bool {
    (0.0..f32::INFINITY).contains(&value)
}

/// What a pass over sensitivities tells.
pub(crate) struct Look {
    /// The largest, or zero.
    pub(crate) most: f32,
    /// The smallest that is not zero, or infinity.
    least: f32,
    /// Whether all are [good](is_good).
    pub(crate) sound: bool,
}

impl Look {
    fn with(self, other: Look) -> Look {
        Look {
            most: self.most.max(other.most),
            least: self.least.min(other.least),
            sound: self.sound && other.sound,
        }
    }
}

/// Looks over sensitivities.
pub(crate) fn look(values: &[f32]) -> Look {
    let none = || look_at(&[]);
    values
        .par_chunks(CHUNK)
        .map(look_at)
        .reduce(none, Look::with)
}

/// Many side by side: one after the other, each would wait for the one before.
fn look_at(values: &[f32]) -> Look {
    const LANES: usize = 16;
    let (mut most, mut least, mut bad) = ([0.0; LANES], [f32::INFINITY; LANES], [0; LANES]);
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for values in whole.iter().chain([&last]) {
        for lane in 0..LANES {
            let value = values[lane];
            let positive = if value > 0.0 { value } else { f32::INFINITY };
            most[lane] = if value > most[lane] {
                value
            } else {
                most[lane]
            };
            least[lane] = if positive < least[lane] {
                positive
            } else {
                least[lane]
            };
            bad[lane] |= u32::from(!is_good(value));
        }
    }
    Look {
        most: most.into_iter().fold(0.0, f32::max),
        least: least.into_iter().fold(f32::INFINITY, f32::min),
        sound: bad == [0; LANES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Step by step, as it is written down.
    fn naive(values: &[f32]) -> Vec<f32> {
        let most = values.iter().fold(0_f32, |a, &b| a.max(b));
        if most == 0.0 {
            return vec![1.0; values.len()];
        }
        let divided = values.iter().map(|v| v / most);
        let some = values
            .iter()
            .zip(divided.clone())
            .filter(|(v, _)| **v != 0.0);
        let least = some.map(|(_, d)| d).fold(f32::INFINITY, f32::min);
        let raised = |(v, d): (&f32, f32)| if *v == 0.0 { least } else { d };
        let all = values.iter().zip(divided).map(raised);
        all.map(|v| v.max(1e-12)).collect()
    }

    proptest! {
        #[test]
        fn steps_together_are_the_steps(
            values in prop::collection::vec(prop_oneof![Just(0.0), 0.0_f32..1.0, 1e-30_f32..1e-10, 1e5_f32..1e38], 0..300),
            copies in prop_oneof![4 => Just(1_usize), 1 => Just(500)],
        ) {
            let mut found = values.repeat(copies);
            let wanted = naive(&found);
            normalise(&mut found).unwrap();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn the_first_bad_number_is_named() {
        for bad in [-1.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            let mut values = vec![1.0; 100_000];
            values[70_000] = bad;
            values[90_000] = f32::NAN;
            let before = values.clone();
            let error = normalise(&mut values).unwrap_err();
            assert_eq!(
                (error.at, error.count, error.elements),
                (70_000, 2, 100_000)
            );
            assert_eq!(error.value.to_bits(), bad.to_bits());
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&values), bits(&before));
        }
        let text = normalise(&mut [0.5, -2.0]).unwrap_err().to_string();
        assert!(
            text.starts_with("sensitivity -2 at element 1: expected finite"),
            "{text}"
        );
    }
}
