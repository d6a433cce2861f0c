//! How the outputs of a model respond to the error of one weight, as it was measured.

/// The relative errors that are measured, or those of the forms that are nearest: about those of one to six bits.
const MEASURED_AT: [f64; 5] = [0.4, 0.15, 0.05, 0.015, 0.001];

/// The places of the few errors, each once, that tell most about a weight's response: those of forms that lose from much to little.
/// What loses nothing tells nothing.
///
/// ```
/// use palettizer_pipeline::budget::telling;
///
/// assert_eq!(telling(&[0.0, 0.3, 0.28, 0.1, 0.002]), [1, 3, 4]);
/// ```
pub fn telling(errors: &[f64]) -> Vec<usize> {
    let mut found = Vec::new();
    for wanted in MEASURED_AT {
        let far = |&at: &usize| (errors[at] / wanted).ln().abs();
        let some = (0..errors.len()).filter(|&at| errors[at] > 0.0 && errors[at].is_finite());
        let nearest = some.min_by(|a, b| far(a).total_cmp(&far(b)));
        if let Some(nearest) = nearest
            && !found.contains(&nearest)
        {
            found.push(nearest);
        }
    }
    found
}

/// What the error of a weight does to the outputs of its model: the harm at a few errors, and in between on lines through the
/// logarithms of both. Below the smallest error and above the largest, harm is in proportion to error.
///
/// It does not fall as the error rises: where it was measured to, chance is taken to be the reason.
///
/// ```
/// use palettizer_pipeline::budget::Response;
///
/// let response = Response::new([(0.1, 0.04), (0.001, 0.0001)]);
/// assert_eq!(response.harm(0.0), 0.0);
/// assert!((response.harm(0.01) - 0.002).abs() < 1e-12);
/// assert!((response.harm(0.2) - 0.08).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// Errors and harms above zero, both rising.
    points: Vec<(f64, f64)>,
}

impl Response {
    /// That of these errors and harms, in any order; what is not a finite number above zero says nothing.
    pub fn new(points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let sound = |number: f64| number > 0.0 && number.is_finite();
        let points = points.into_iter();
        let mut points: Vec<(f64, f64)> = points
            .filter(|&(error, harm)| sound(error) && sound(harm))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.dedup_by_key(|point| point.0);
        for at in 1..points.len() {
            points[at].1 = points[at].1.max(points[at - 1].1);
        }
        Response { points }
    }

    /// The harm of an error, both as parts of an energy. Where nothing was measured, an error comes out as it is.
    pub fn harm(&self, error: f64) -> f64 {
        let (Some(&first), Some(&last)) = (self.points.first(), self.points.last()) else {
            return error;
        };
        if error <= first.0 {
            return error * (first.1 / first.0);
        }
        if error >= last.0 {
            return error * (last.1 / last.0);
        }
        let above = self.points.partition_point(|point| point.0 <= error);
        let (low, high) = (self.points[above - 1], self.points[above]);
        let part = (error / low.0).ln() / (high.0 / low.0).ln();
        low.1 * (high.1 / low.1).powf(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn harm_rises_with_the_error(
            points in prop::collection::vec((1e-6..1.0_f64, 1e-9..10.0_f64), 0..6),
            errors in prop::collection::vec(0.0..2.0_f64, 2),
        ) {
            let response = Response::new(points.iter().copied());
            let (a, b) = (errors[0].min(errors[1]), errors[0].max(errors[1]));
            prop_assert!(response.harm(a) <= response.harm(b) * (1.0 + 1e-9));
            for (error, harm) in points {
                prop_assert!(response.harm(error) >= harm * (1.0 - 1e-9));
            }
        }
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        let response = Response::new([
            (0.0, 1.0),
            (f64::NAN, 1.0),
            (0.1, f64::INFINITY),
            (0.1, -1.0),
        ]);
        assert_eq!(response, Response::default());
        assert_eq!(response.harm(0.25), 0.25);
    }
}
