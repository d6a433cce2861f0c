//! How much each value counts.

/// Relative weight of each value: a sensitivity, or a squared channel scale.
///
/// A weight that is negative or not finite counts as zero; if no finite value has a positive weight, all count alike.
///
/// ```
/// use palettizer_kernels::{ValueHistogram, Precision, Weights};
/// let values = [0.0_f32, 1.0, 10.0];
/// let weights = [3.0, 1.0, 1.0];
/// let histogram = ValueHistogram::new(&values, Weights::Each(&weights), Precision::Exact);
/// assert_eq!(histogram.cluster(2).centroids, [0.25, 10.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Every value counts once.
    Equal,
    /// One weight for each value.
    Each(&'a [f32]),
    /// One weight for each run of `len` values: element `i` has `weights[i / len]`.
    Rows {
        /// Values in a run.
        len: usize,
        /// One weight for each run.
        weights: &'a [f32],
    },
}

impl Weights<'_> {
    /// Weight of element `i`; zero where the caller gave too few.
    pub(crate) fn at(&self, i: usize) -> f64 {
        let weight = match *self {
            Weights::Equal => return 1.0,
            Weights::Each(weights) => weights.get(i),
            Weights::Rows { len, weights } => weights.get(i / len.max(1)),
        };
        weight.map_or(0.0, |&w| clean(w))
    }

    /// Visits the weights of elements `start..start + len` as `(offset from start, weight)`.
    #[inline]
    pub(crate) fn each(&self, start: usize, len: usize, mut visit: impl FnMut(usize, f64)) {
        match *self {
            Weights::Equal => (0..len).for_each(|i| visit(i, 1.0)),
            Weights::Each(weights) => {
                let weights = weights.get(start..).unwrap_or_default();
                weights
                    .iter()
                    .take(len)
                    .enumerate()
                    .for_each(|(i, &w)| visit(i, clean(w)));
            }
            Weights::Rows { len: row, weights } => {
                let row = row.max(1);
                let mut i = 0;
                while i < len {
                    let at = (start + i) / row;
                    let end = ((at + 1) * row - start).min(len);
                    let weight = weights.get(at).map_or(0.0, |&w| clean(w));
                    (i..end).for_each(|i| visit(i, weight));
                    i = end;
                }
            }
        }
    }

    pub(crate) fn is_equal(&self) -> bool {
        matches!(self, Weights::Equal)
    }
}

fn clean(weight: f32) -> f64 {
    if weight.is_finite() && weight > 0.0 {
        f64::from(weight)
    } else {
        0.0
    }
}
