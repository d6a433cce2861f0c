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
    // The largest, the smallest that is not zero, and how many are bad.
    let look = |values: &[f32]| {
        values
            .iter()
            .fold((0_f32, f32::INFINITY, 0), |found, &value| {
                let (most, least, bad) = found;
                let positive = if value > 0.0 { value } else { f32::INFINITY };
                let good = (0.0..f32::INFINITY).contains(&value);
                (
                    most.max(value),
                    least.min(positive),
                    bad + usize::from(!good),
                )
            })
    };
    let (most, least, count) = values.par_chunks(CHUNK).map(look).reduce(
        || (0.0, f32::INFINITY, 0),
        |a, b| (a.0.max(b.0), a.1.min(b.1), a.2 + b.2),
    );
    if count > 0 {
        let bad = |value: &f32| !(0.0..f32::INFINITY).contains(value);
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
