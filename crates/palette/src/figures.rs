//! How far a palettized weight is from the original.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::decode::{DenseError, Source};
use crate::tensor::elements;
use crate::{Dtype, Palette, Tensor};

/// Elements that are summed by one thread: sums of sums are the same for any number of them.
const CHUNK: usize = 1 << 16;

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

/// Σ s·(w − ŵ)² and Σ s·w² over the elements of a weight, `sensitivity` being s, the weight's own order and number of elements.
/// Elements that are reproduced exactly add nothing to the first sum, and those that are not finite nothing to the second.
///
/// ```
/// use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize, weighted_error};
///
/// let bytes: Vec<u8> = [1.0_f32, 1.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[2, 2], &bytes).map_err(|e| e.to_string())?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B1));
/// let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
/// let (error, energy) = weighted_error(&tensor, &palette, &[1.0, 1.0, 2.0, 2.0]).map_err(|e| e.to_string())?;
/// assert_eq!((error, energy), (2.0 * 0.25 + 2.0 * 0.25, 1.0 + 1.0 + 18.0 + 32.0));
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// [`DenseError`] for a palette whose fields contradict each other, [`DenseError::Length`] for one of another weight.
pub fn weighted_error(
    tensor: &Tensor<'_>,
    palette: &Palette,
    sensitivity: &[f32],
) -> Result<(f64, f64), DenseError> {
    fn sums<T: bytemuck::Pod + Source + Send + Sync>(
        from: &[u8],
        to: &[u8],
        sensitivity: &[f32],
    ) -> (f64, f64) {
        let (from, to) = (elements::<T>(from), elements::<T>(to));
        let chunks = from.par_chunks(CHUNK).zip(to.par_chunks(CHUNK));
        let sums = chunks.zip(sensitivity.par_chunks(CHUNK));
        let sums: Vec<(f64, f64)> = sums
            .map(|((from, to), sensitivity)| {
                let all = from.iter().zip(to).zip(sensitivity);
                all.fold((0.0, 0.0), |(error, energy), ((from, to), s)| {
                    let (from, to) = (f64::from(from.to_f32()), f64::from(to.to_f32()));
                    let s = f64::from(*s);
                    let lost = if from == to {
                        0.0
                    } else {
                        s * (from - to) * (from - to)
                    };
                    let own = if from.is_finite() {
                        s * from * from
                    } else {
                        0.0
                    };
                    (error + if lost.is_nan() { 0.0 } else { lost }, energy + own)
                })
            })
            .collect();
        let sum = sums.into_iter();
        sum.fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
    let dense = palette.try_decompress()?;
    let (from, to) = (tensor.bytes(), dense.as_slice());
    if from.len() != to.len() || sensitivity.len() != tensor.len() {
        return Err(DenseError::Length {
            what: "sensitivity",
            expected: tensor.len(),
            found: sensitivity.len(),
        });
    }
    Ok(match tensor.dtype() {
        Dtype::F16 => sums::<f16>(from, to, sensitivity),
        Dtype::BF16 => sums::<bf16>(from, to, sensitivity),
        Dtype::F32 => sums::<f32>(from, to, sensitivity),
        Dtype::I8 => sums::<i8>(from, to, sensitivity),
        Dtype::U8 => sums::<u8>(from, to, sensitivity),
    })
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
