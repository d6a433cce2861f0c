//! What is asked of soft k-means.

use super::real::{Real, SoftElement};

/// How a vector's attention to the clusters comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// The softmax of −distance/τ, raised to the floor ("dkm").
    Softmax,
    /// The same with Gumbel noise of a seed added, without a floor ("gsm").
    Gumbel(u64),
    /// One for the nearest, the first of several, and no gradient through distances ("hard").
    Hard,
}

/// Rounds centroids, cluster by cluster, in place.
pub type RoundCentroids<'a, R> = &'a (dyn Fn(&mut [R]) + Sync);

/// The settings of soft k-means. See the module for what they do.
#[derive(Clone, Copy)]
pub struct SoftOptions<'a, R> {
    /// Most steps, at least one.
    pub iterations: usize,
    /// τ, above zero.
    pub temperature: f64,
    /// Stop when the sum of the least distances changes by this or less from one step to the next.
    pub epsilon: f64,
    /// The least attention.
    pub floor: f64,
    /// What the distance to the first centroid is lowered by.
    pub prune_threshold: f64,
    /// Whether the first centroid stays zero. With a `prune_threshold` of zero, vectors that are not zero keep off it, too.
    pub enforce_zero: bool,
    /// How attention comes about.
    pub attention: Attention,
    /// Whether the last centroids are taken as a fixed point, and the gradient is that of the implicit function.
    pub implicit: bool,
    /// What centroids (cluster by cluster) become before they are used; the gradient passes straight through.
    pub round_centroids: Option<RoundCentroids<'a, R>>,
}

impl<R> Default for SoftOptions<'_, R> {
    /// The defaults of coremltools.
    fn default() -> Self {
        SoftOptions {
            iterations: 3,
            temperature: 1e-4,
            epsilon: 1e-4,
            floor: 1e-7,
            prune_threshold: 1e-7,
            enforce_zero: false,
            attention: Attention::Softmax,
            implicit: false,
            round_centroids: None,
        }
    }
}

impl<R> SoftOptions<'_, R> {
    /// Numbers that a forward leaves for its backward: how many steps were made, the centroids before the first, and for each
    /// step the means and the column sums. Of an implicit one only the last centroids are needed.
    ///
    /// ```
    /// use palettizer_kernels::SoftOptions;
    /// let options = SoftOptions::<f32>::default();
    /// assert_eq!(options.saved_len(16, 1), 1 + 16 + 3 * 32);
    /// ```
    pub fn saved_len(&self, clusters: usize, dim: usize) -> usize {
        let steps = if self.implicit {
            0
        } else {
            self.iterations.max(1)
        };
        1 + clusters * dim + steps * clusters * (dim + 1)
    }
}

impl<R: Real> SoftOptions<'_, R> {
    /// Whether vectors that are not zero keep off the first centroid.
    pub(super) fn keeps_zero(&self) -> bool {
        self.enforce_zero && self.prune_threshold == 0.0
    }

    /// Means to centroids.
    pub(super) fn rounded(&self, means: &[R], dim: usize) -> Vec<R> {
        let mut centroids = means.to_vec();
        if let Some(round_centroids) = self.round_centroids {
            round_centroids(&mut centroids);
        }
        if self.enforce_zero {
            centroids[..dim].fill(R::ZERO);
        }
        centroids
    }
}

/// The weights of one group: rows of `cols` elements, one after the other. A vector is `dim` elements of consecutive rows in
/// one column.
#[derive(Clone, Copy, Debug)]
pub struct SoftGroup<'a, E: SoftElement> {
    /// All elements; whole rows, and `dim` divides the number of rows.
    pub values: &'a [E],
    /// Elements of a row, at least 1.
    pub cols: usize,
    /// Length of a vector, at least 1.
    pub dim: usize,
    /// A factor for each row, not zero: values are divided by it, and the soft weight is multiplied.
    pub scale: Option<&'a [E::Real]>,
}

impl<E: SoftElement> SoftGroup<'_, E> {
    /// Number of vectors.
    pub fn vectors(&self) -> usize {
        self.values.len() / self.dim
    }
}
