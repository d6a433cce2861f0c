//! What one group of values holds: counted once, asked many times.
//!
//! 16-bit values are reduced to their distinct values and counts when the census is taken (`narrow`), and everything
//! else is asked of those. 32-bit values are only looked over (`wide`); clusters are found through a histogram (`bins`)
//! whose bounds tell which values matter (`refine`), and only for small groups or very many clusters by sorting.
//!
//! Cost: 0.6 ms per million values; clusters 0.1 to 0.6 ms per million for 16 bits and 5 to 60 for 32. Memory: the
//! distinct values; for 32 bits up to about the size of the input, or 15 times that where all values are sorted.
//! Wrong choice: when only extremes are asked for, which need no census.

mod bins;
mod coarse;
mod narrow;
mod refine;
mod wide;

use crate::element::Element;
use crate::element::sealed::{Bits, Sealed};
use crate::nearest::Borders;
use crate::price::{self, Clusters};
use crate::weights::Weights;
use narrow::Narrow;
use wide::Wide;

/// How far to go for 32-bit values; 16-bit values are always clustered exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Within a proven distance of the optimum, at most 1e-6 and reported as [`Clusters::gap`].
    Refined,
    /// The optimum itself.
    Exact,
}

/// The values of one group, counted once and asked many times.
///
/// ```
/// use half::f16;
/// use palettizer_kernels::{Census, Precision, Weights};
///
/// let values: Vec<f16> = [1.0, 0.0, 2.0, 1.0, f32::NAN].map(f16::from_f32).to_vec();
/// let census = Census::new(&values, Weights::Equal, Precision::Exact);
/// assert_eq!(census.len(), 5);
/// assert_eq!(census.non_finite(), 1);
/// assert_eq!(census.range(), Some((0.0, 2.0)));
/// assert_eq!(census.zeros(), 1);
/// assert_eq!(census.energy(), 6.0);
/// assert_eq!(census.distinct_count(), 4);
/// ```
#[derive(Debug)]
pub struct Census<'a, T: Element> {
    values: &'a [T],
    store: Store<'a>,
}

#[derive(Debug)]
enum Store<'a> {
    Narrow(Narrow<'a>),
    Wide(Wide<'a>),
}

/// Plain figures about a group.
#[derive(Debug, Default)]
struct Tally {
    nan: u64,
    infinite: u64,
    negative_infinite: u64,
    zeros: u64,
    range: Option<(f32, f32)>,
    energy: f64,
}

impl Tally {
    /// Fills in what follows from the distinct values, ascending.
    fn finish(&mut self, values: &[f32], counts: &[u64]) {
        self.range = values.first().copied().zip(values.last().copied());
        for (&x, &n) in values.iter().zip(counts) {
            self.zeros += if x == 0.0 { n } else { 0 };
            self.energy += n as f64 * (f64::from(x) * f64::from(x));
        }
    }

    fn non_finite(&self) -> u64 {
        self.nan + self.infinite + self.negative_infinite
    }

    /// The distinct values that are not finite, before and after the finite ones.
    fn specials(&self) -> (Option<f32>, Option<f32>, Option<f32>) {
        let some = |count: u64, x: f32| (count > 0).then_some(x);
        (
            some(self.negative_infinite, f32::NEG_INFINITY),
            some(self.infinite, f32::INFINITY),
            some(self.nan, f32::NAN),
        )
    }
}

impl<'a, T: Element> Census<'a, T> {
    /// Counts `values`; `precision` matters for 32-bit values only.
    pub fn new(values: &'a [T], weights: Weights<'a>, precision: Precision) -> Self {
        let store = match T::bits(values) {
            Bits::Narrow(bits) => Store::Narrow(Narrow::new(
                bits,
                <T as Sealed>::INFINITY,
                T::decode,
                weights,
            )),
            Bits::Wide(values) => Store::Wide(Wide::new(values, weights, precision)),
        };
        Census { values, store }
    }

    fn tally(&self) -> &Tally {
        match &self.store {
            Store::Narrow(group) => group.tally(),
            Store::Wide(group) => group.tally(),
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
        self.tally().non_finite() as usize
    }

    /// Smallest and largest finite value.
    pub fn range(&self) -> Option<(f32, f32)> {
        self.tally().range
    }

    /// Number of zeros of either sign.
    pub fn zeros(&self) -> usize {
        self.tally().zeros as usize
    }

    /// Sum of squares of the finite values, unweighted.
    pub fn energy(&self) -> f64 {
        self.tally().energy
    }

    /// The distinct values, ascending, or `None` if there are more than `limit` (at most 65,536).
    ///
    /// Values that are not finite count too: -inf comes first, +inf and then NaN last. -0 is the same as +0, and one
    /// NaN the same as another.
    ///
    /// ```
    /// use palettizer_kernels::{Census, Precision, Weights};
    /// let values = [0.5_f32, f32::NAN, -0.0, 0.0, f32::NEG_INFINITY];
    /// let census = Census::new(&values, Weights::Equal, Precision::Exact);
    /// assert_eq!(census.distinct(3), None);
    /// let distinct = census.distinct(4).unwrap();
    /// assert_eq!(distinct[..3], [f32::NEG_INFINITY, 0.0, 0.5]);
    /// assert!(distinct[3].is_nan());
    /// ```
    pub fn distinct(&self, limit: usize) -> Option<Vec<f32>> {
        let limit = limit.min(1 << 16);
        let (first, infinite, nan) = self.tally().specials();
        let finite = match &self.store {
            Store::Narrow(group) => group.values().to_vec(),
            Store::Wide(group) => group.distinct(limit)?,
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
        let (first, infinite, nan) = self.tally().specials();
        let finite = match &self.store {
            Store::Narrow(group) => group.values().len(),
            Store::Wide(group) => group.distinct_count(),
        };
        finite + [first, infinite, nan].into_iter().flatten().count()
    }

    /// Optimal clusters of the finite values: `k` of them (at least one), or as many as there are distinct values.
    ///
    /// ```
    /// use palettizer_kernels::{Census, Precision, Weights};
    /// let values = [0.0_f32, 1.0, 10.0, 11.0];
    /// let clusters = Census::new(&values, Weights::Equal, Precision::Exact).cluster(2);
    /// assert_eq!(clusters.centroids, [0.5, 10.5]);
    /// assert_eq!((clusters.cost, clusters.gap), (1.0, 0.0));
    /// ```
    pub fn cluster(&self, k: usize) -> Clusters {
        match &self.store {
            Store::Narrow(group) => price::cluster(&group.points(), k),
            Store::Wide(group) => group.cluster(k),
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
    /// use palettizer_kernels::{Census, Precision, Weights};
    /// let values = [0.0_f32, 1.0, 2.0];
    /// let mut indices = [9; 3];
    /// let error = Census::new(&values, Weights::Equal, Precision::Exact).assign(&[0.0, 2.0], &mut indices);
    /// assert_eq!((indices, error), ([0, 0, 1], 1.0));
    /// ```
    pub fn assign(&self, lut: &[f32], indices: &mut [u8]) -> f64 {
        if lut.is_empty() {
            indices.fill(0);
            return 0.0;
        }
        let borders = Borders::new(lut);
        match &self.store {
            Store::Narrow(group) => group.assign(&borders, T::decode, indices),
            Store::Wide(group) => group.assign(&borders, indices),
        }
    }
}
