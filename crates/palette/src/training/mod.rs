//! Differentiable k-means of one weight: the soft weight for training, its gradient, and the palette in the end.
//!
//! # Idea
//! In training, a weight is replaced by the soft weight that soft k-means makes of it, group by group, starting from the centroids of
//! the step before; the loss's gradient goes back through all of it to the weight. At the end every weight goes to its nearest
//! centroid. [`Dkm`] knows the shape and the request; weights, centroids and scales are the caller's, as slices.
//!
//! # Cost
//! That of [`palettizer_kernels::soft_forward`]. Groups are done in parallel on the caller's rayon pool, and large ones in parallel
//! inside. What a forward leaves for its backward is [`saved_len`](Dkm::saved_len) numbers.
//!
//! # Deviations from coremltools
//! 1. The first centroids of scalars are the optimal ones.
//! 2. A channel of zeros has the scale 1, and scales of `fp32` weights are numbers of `fp16`.
//! 3. Tables of integers or of halves are rounded in training, too; the gradient passes straight through.
//! 4. A centroid that nothing attends to stays where it is.
//! 5. The temperature is found by the weight where it is not given: see `auto`.
//! 6. There is a straight-through mode: the nearest centroid, and the gradient as if it were the weight.
//!
//! Source: Cho et al., DKM: Differentiable k-means clustering layer for neural network compression, arXiv 2108.12659.

mod auto;
mod hard;
mod seed;
mod soft;
mod spec;

use half::{bf16, f16};
use palettizer_kernels::{Attention, Real, RoundCentroids, SoftElement, SoftGroup, SoftOptions};

use crate::encode::entries;
use crate::encode::rounding::Rounding;
use crate::encode::storage::Storage;
use crate::{Dtype, Layout, Refusal, layout};
pub use soft::{DkmConstants, DkmForward};
pub use spec::{DkmLut, DkmMode, DkmSpec, ScaleScheme};

/// A float type that weights are trained in: `f64`, `f32`, `half::f16` or `half::bf16`. Sealed, as [`SoftElement`] is.
pub trait DkmElement: SoftElement + bytemuck::Pod {
    /// The dtype of the finished palette's dense weight.
    const DTYPE: Dtype;
}

impl DkmElement for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl DkmElement for bf16 {
    const DTYPE: Dtype = Dtype::BF16;
}

impl DkmElement for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

/// Core ML has no tables of doubles: they end as singles.
impl DkmElement for f64 {
    const DTYPE: Dtype = Dtype::F32;
}

/// Differentiable k-means of a weight of some shape.
///
/// ```
/// use palettizer_palette::{Dkm, DkmConstants, DkmForward, DkmSpec, Nbits};
///
/// let weight: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
/// let spec = DkmSpec { nbits: Nbits::B2, temperature: Some(0.01), ..DkmSpec::default() };
/// let dkm = Dkm::new(spec, &[8, 8])?;
/// let centroids = dkm.seed(&weight, None, None)?;
///
/// let (mut soft, mut next) = (weight.clone(), centroids.clone());
/// let mut saved = vec![0.0; dkm.saved_len()];
/// let forward = DkmForward { out: &mut soft, next: &mut next, saved: &mut saved };
/// let constants = DkmConstants::default();
/// dkm.forward(&weight, &centroids, constants, forward)?;
///
/// let mut gradient = vec![0.0; 64];
/// dkm.backward(&weight, constants, &saved, &soft, &mut gradient)?;
/// let palette = dkm.palette(&weight, &next, None)?;
/// assert_eq!(palette.lut_shape, [1, 1, 4, 1]);
/// # Ok::<(), palettizer_palette::Refusal>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dkm {
    spec: DkmSpec,
    layout: Layout,
    /// Rows of one group, and elements of a row.
    rows: usize,
    cols: usize,
}

impl Dkm {
    /// Checks that the request suits a shape. Axis 0 is that of the output channels.
    ///
    /// # Errors
    /// [`Refusal::Spec`] for a field that cannot be, [`Refusal::Scalar`], [`Refusal::Empty`], [`Refusal::GroupSize`] and
    /// [`Refusal::ClusterDim`] for a shape that does not suit it, [`Refusal::TooFew`] for groups with fewer vectors than centroids.
    pub fn new(spec: DkmSpec, shape: &[usize]) -> Result<Self, Refusal> {
        spec.validate()?;
        let layout = layout(shape, Some(0), &spec.palette_spec())?;
        let rows = shape[0] / layout.groups;
        let cols: usize = shape[1..].iter().product();
        if rows * cols < spec.nbits.entries() * spec.cluster_dim {
            return Err(Refusal::TooFew {
                elements: rows * cols,
                clusters: spec.nbits.entries(),
                cluster_dim: spec.cluster_dim,
            });
        }
        Ok(Dkm {
            spec,
            layout,
            rows,
            cols,
        })
    }

    /// The request.
    pub fn spec(&self) -> &DkmSpec {
        &self.spec
    }

    /// The weight's shape.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.layout.groups
    }

    /// Centroids of a group.
    pub fn clusters(&self) -> usize {
        self.spec.nbits.entries()
    }

    /// Numbers in the centroids of all groups: (group, cluster, element of a vector).
    pub fn centroids_len(&self) -> usize {
        self.groups() * self.table_len()
    }

    /// Numbers that a forward leaves for its backward.
    pub fn saved_len(&self) -> usize {
        self.groups() * self.group_saved_len()
    }

    /// Numbers in the per-channel scale: the rows, if there is one.
    pub fn scale_len(&self) -> usize {
        match self.spec.scale {
            Some(_) => self.layout.shape[0],
            None => 0,
        }
    }

    fn elements(&self) -> usize {
        self.groups() * self.group_len()
    }

    fn group_len(&self) -> usize {
        self.rows * self.cols
    }

    fn table_len(&self) -> usize {
        self.clusters() * self.spec.cluster_dim
    }

    fn group_saved_len(&self) -> usize {
        let options: SoftOptions<'_, f32> = self.options(1.0, 0, None);
        options.saved_len(self.clusters(), self.spec.cluster_dim)
    }

    /// How many groups are trained.
    fn trained(&self) -> usize {
        let some = (self.spec.enabled * self.groups() as f64) as usize;
        some.clamp(1, self.groups())
    }

    fn storage<E: DkmElement>(&self) -> Storage {
        let mut storage = Storage::new(E::DTYPE, &self.spec.palette_spec());
        match self.spec.lut {
            // A table is stored in the weight's dtype, which must hold its entries.
            _ if E::DTYPE != Dtype::F32 => {}
            DkmLut::F16 => storage.rounding = Rounding(Dtype::F16),
            DkmLut::Bf16 => storage.rounding = Rounding(Dtype::BF16),
            DkmLut::Weight | DkmLut::Int8 | DkmLut::Uint8 => {}
        }
        storage
    }

    fn options<'a, R: Real>(
        &self,
        temperature: f64,
        noise: u64,
        round: Option<RoundCentroids<'a, R>>,
    ) -> SoftOptions<'a, R> {
        let spec = &self.spec;
        SoftOptions {
            iterations: spec.iterations,
            temperature,
            epsilon: spec.epsilon,
            floor: spec.least_attention(),
            prune_threshold: spec.lowered_by(),
            enforce_zero: spec.enforce_zero,
            attention: match spec.mode {
                DkmMode::Dkm => Attention::Softmax,
                DkmMode::Gsm => Attention::Gumbel(noise),
                DkmMode::Hard | DkmMode::Ste => Attention::Hard,
            },
            implicit: spec.implicit,
            round_centroids: round.filter(|_| spec.lut != DkmLut::Weight),
        }
    }

    /// One group of a weight.
    fn group<'a, E: DkmElement>(
        &self,
        number: usize,
        values: &'a [E],
        scale: Option<&'a [E::Real]>,
    ) -> SoftGroup<'a, E> {
        let len = self.group_len();
        SoftGroup {
            values: &values[number * len..(number + 1) * len],
            cols: self.cols,
            dim: self.spec.cluster_dim,
            scale: scale.map(|scale| &scale[number * self.rows..(number + 1) * self.rows]),
        }
    }

    fn demand(&self, what: &'static str, expected: usize, found: usize) -> Result<(), Refusal> {
        match expected == found {
            true => Ok(()),
            false => Err(Refusal::Length {
                what,
                expected,
                found,
            }),
        }
    }

    fn check<E: DkmElement>(&self, values: &[E], scale: Option<&[E::Real]>) -> Result<(), Refusal> {
        self.demand("values", self.elements(), values.len())?;
        self.demand("scale", self.scale_len(), scale.map_or(0, <[_]>::len))
    }
}

/// Rounds centroids as the entries of a table come out, for the kernels to do it too.
fn round_centroids<R: Real>(storage: Storage) -> impl Fn(&mut [R]) + Sync {
    move |centroids: &mut [R]| {
        let targets: Vec<f64> = centroids.iter().map(|c| c.to_f64()).collect();
        // What is not a number has no nearest, and is left for the caller to see.
        if targets.iter().all(|target| target.is_finite()) {
            let entries = entries::vectors(&targets, storage);
            for (centroid, entry) in centroids.iter_mut().zip(entries.values) {
                *centroid = R::from_f64(f64::from(entry));
            }
        }
    }
}
