//! What one group of values holds: counted once, asked many times.
//!
//! 16-bit values are reduced to their distinct values and counts as they come in (`half`), and everything
//! else is asked of those. 32-bit values are only looked over (`single`); clusters are found through adaptive bins
//! whose bounds tell which values matter (`branch_and_bound`), and only for small groups or very many clusters by sorting.
//!
//! Cost: 0.6 ms per million values; clusters 0.1 to 0.6 ms per million for 16 bits and 5 to 60 for 32. Memory: the
//! distinct values; for 32 bits up to about the size of the input, or 15 times that where all values are sorted.
//! Wrong choice: when only extremes are asked for, which need no histogram.

mod half;
mod single;
mod summary;

use crate::assign::Borders;
use crate::element::Element;
use crate::element::sealed::{Bits, Sealed};
use crate::scalar::branch_and_bound::Precision;
use crate::scalar::lagrangian::{self, Clusters};
use crate::stop::Stop;
use crate::weights::Weights;
use half::HalfHistogram;
use single::SingleHistogram;
use std::sync::atomic::AtomicBool;
use summary::Summary;

/// The values of one group, counted once and asked many times.
///
/// ```
/// use half::f16;
/// use palettizer_kernels::{ValueHistogram, Precision, Weights};
///
/// let values: Vec<f16> = [1.0, 0.0, 2.0, 1.0, f32::NAN].map(f16::from_f32).to_vec();
/// let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Exact);
/// assert_eq!(histogram.len(), 5);
/// assert_eq!(histogram.non_finite(), 1);
/// assert_eq!(histogram.range(), Some((0.0, 2.0)));
/// assert_eq!(histogram.zeros(), 1);
/// assert_eq!(histogram.energy(), 6.0);
/// assert_eq!(histogram.distinct_count(), 4);
/// ```
#[derive(Debug)]
pub struct ValueHistogram<'a, T: Element> {
    values: &'a [T],
    store: Store<'a>,
    stop: Stop<'a>,
}

#[derive(Debug)]
enum Store<'a> {
    Half(HalfHistogram<'a>),
    Single(SingleHistogram<'a>),
}

impl<'a, T: Element> ValueHistogram<'a, T> {
    /// Counts `values`; `precision` matters for 32-bit values only.
    pub fn new(values: &'a [T], weights: Weights<'a>, precision: Precision) -> Self {
        let store = match T::bits(values) {
            Bits::Half(bits) => Store::Half(HalfHistogram::new(
                bits,
                <T as Sealed>::INFINITY,
                T::decode,
                weights,
            )),
            Bits::Single(values) => Store::Single(SingleHistogram::new(values, weights, precision)),
        };
        ValueHistogram {
            values,
            store,
            stop: Stop::default(),
        }
    }

    /// With a flag that another thread sets when clusters are no longer wanted. Then [`cluster`](Self::cluster) ends soon, and what it
    /// gives is of no use: look at the flag before using it.
    ///
    /// ```
    /// use palettizer_kernels::{ValueHistogram, Precision, Weights};
    /// use std::sync::atomic::AtomicBool;
    ///
    /// let stop = AtomicBool::new(false);
    /// let values = [0.0_f32, 1.0, 10.0, 11.0];
    /// let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Exact).with_stop(Some(&stop));
    /// assert_eq!(histogram.cluster(2).centroids, [0.5, 10.5]);
    /// ```
    #[must_use]
    pub fn with_stop(mut self, stop: Option<&'a AtomicBool>) -> Self {
        self.stop = Stop(stop);
        if let Store::Single(group) = &mut self.store {
            group.stop = self.stop;
        }
        self
    }

    fn summary(&self) -> &Summary {
        match &self.store {
            Store::Half(group) => &group.summary,
            Store::Single(group) => &group.summary,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number of values that are infinite or not a number.
    pub fn non_finite(&self) -> usize {
        self.summary().non_finite() as usize
    }

    /// Smallest and largest finite value.
    pub fn range(&self) -> Option<(f32, f32)> {
        self.summary().range
    }

    /// Number of zeros of either sign.
    pub fn zeros(&self) -> usize {
        self.summary().zeros as usize
    }

    /// Sum of squares of the finite values, unweighted.
    pub fn energy(&self) -> f64 {
        self.summary().energy
    }

    /// The distinct values, ascending, or `None` if there are more than `limit` (at most 65,536).
    ///
    /// Values that are not finite count too: -inf comes first, +inf and then NaN last. -0 is the same as +0, and one
    /// NaN the same as another.
    ///
    /// ```
    /// use palettizer_kernels::{ValueHistogram, Precision, Weights};
    /// let values = [0.5_f32, f32::NAN, -0.0, 0.0, f32::NEG_INFINITY];
    /// let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Exact);
    /// assert_eq!(histogram.distinct(3), None);
    /// let distinct = histogram.distinct(4).unwrap();
    /// assert_eq!(distinct[..3], [f32::NEG_INFINITY, 0.0, 0.5]);
    /// assert!(distinct[3].is_nan());
    /// ```
    pub fn distinct(&self, limit: usize) -> Option<Vec<f32>> {
        let limit = limit.min(1 << 16);
        let (first, infinite, nan) = self.summary().specials();
        let finite = match &self.store {
            Store::Half(group) => group.values.to_vec(),
            Store::Single(group) => group.distinct(limit)?,
        };
        let all: Vec<f32> = first
            .into_iter()
            .chain(finite)
            .chain(infinite)
            .chain(nan)
            .collect();
        (all.len() <= limit).then_some(all)
    }

    /// Number of distinct values, as [`distinct`](Self::distinct) counts them. Sorts a copy of 32-bit values.
    pub fn distinct_count(&self) -> usize {
        let (first, infinite, nan) = self.summary().specials();
        let finite = match &self.store {
            Store::Half(group) => group.values.len(),
            Store::Single(group) => group.distinct_count(),
        };
        finite + [first, infinite, nan].into_iter().flatten().count()
    }

    /// Optimal clusters of the finite values: `k` of them (at least one), or as many as there are distinct values.
    ///
    /// ```
    /// use palettizer_kernels::{ValueHistogram, Precision, Weights};
    /// let values = [0.0_f32, 1.0, 10.0, 11.0];
    /// let clusters = ValueHistogram::new(&values, Weights::Equal, Precision::Exact).cluster(2);
    /// assert_eq!(clusters.centroids, [0.5, 10.5]);
    /// assert_eq!((clusters.cost, clusters.gap), (1.0, 0.0));
    /// ```
    pub fn cluster(&self, k: usize) -> Clusters {
        match &self.store {
            Store::Half(group) => lagrangian::cluster(&group.points(self.stop), k),
            Store::Single(group) => group.cluster(k),
        }
    }

    /// Index of the nearest entry of `lut` for each value, ties going to the lower index; returns the squared
    /// error, unweighted, of the finite values.
    ///
    /// `lut` is ascending, of 1 to 256 entries (of none, all indices and the error are zero); -inf may come first,
    /// +inf and NaN last. -inf goes to the first entry, +inf to the last that is not NaN, and NaN to a NaN entry or
    /// else to the first. As many indices are written as both slices have.
    ///
    /// ```
    /// use palettizer_kernels::{ValueHistogram, Precision, Weights};
    /// let values = [0.0_f32, 1.0, 2.0];
    /// let mut indices = [9; 3];
    /// let error = ValueHistogram::new(&values, Weights::Equal, Precision::Exact).assign(&[0.0, 2.0], &mut indices);
    /// assert_eq!((indices, error), ([0, 0, 1], 1.0));
    /// ```
    pub fn assign(&self, lut: &[f32], indices: &mut [u8]) -> f64 {
        if lut.is_empty() {
            indices.fill(0);
            return 0.0;
        }
        let borders = Borders::new(lut);
        match &self.store {
            Store::Half(group) => group.assign(&borders, T::decode, indices),
            Store::Single(group) => group.assign(&borders, indices),
        }
    }
}
