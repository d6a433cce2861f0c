//! How far a palettized weight is from the original.

/// Sums over one tensor, from which its error figures follow.
///
/// ```
/// use palettizer_palette::ErrorFigures;
///
/// let figures = ErrorFigures { squared_error: 0.5, energy: 50.0, elements: 200, gap: 0.0 };
/// assert_eq!(figures.mse(), 0.0025);
/// assert_eq!(figures.snr_db(), 20.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorFigures {
    /// Σ (original − reconstructed)², on the final weights, in the weight's units. Values that are reproduced
    /// exactly add nothing, NaN and infinities among them.
    pub squared_error: f64,
    /// Σ original², over the finite values.
    pub energy: f64,
    /// Elements of the dense tensor, the pruned ones among them.
    pub elements: usize,
    /// How far at most the k-means cost is above the optimum, relative; the worst group. 0: proven optimal, or
    /// not k-means. Vector k-means has no bound and reports 0.
    pub gap: f64,
}

impl ErrorFigures {
    /// Adds a value, and what it became, to the sums.
    pub(crate) fn add(&mut self, value: f64, found: f64) {
        self.squared_error += (value - found) * (value - found);
        self.energy += value * value;
    }

    /// Mean squared error over all elements.
    pub fn mse(&self) -> f64 {
        if self.elements == 0 {
            0.0
        } else {
            self.squared_error / self.elements as f64
        }
    }

    /// Root of the mean squared error.
    pub fn rmse(&self) -> f64 {
        self.mse().sqrt()
    }

    /// Signal to noise in decibels: 10·log₁₀(energy / squared error); infinite when nothing was lost.
    pub fn snr_db(&self) -> f64 {
        if self.squared_error == 0.0 {
            f64::INFINITY
        } else {
            10.0 * (self.energy / self.squared_error).log10()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_is_infinitely_far_from_noise() {
        let exact = ErrorFigures::default();
        assert_eq!((exact.mse(), exact.rmse()), (0.0, 0.0));
        assert_eq!(exact.snr_db(), f64::INFINITY);
        let lost = ErrorFigures {
            squared_error: 1.0,
            elements: 1,
            ..exact
        };
        assert_eq!(lost.snr_db(), f64::NEG_INFINITY);
    }
}
