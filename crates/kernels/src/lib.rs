//! Clustering kernels: numbers in slices, plain values out.
//!
//! | module | answers |
//! |---|---|
//! | [`scalar`](ValueHistogram) | what values a group holds and how often; their best clusters |
//! | `assign` | the nearest entry of a palette, for every element |
//! | `vector` | k-means of short vectors (not optimal: nobody knows how) |
//! | `softmax` | softmax and its gradient |
//! | `soft` | soft k-means and its gradient, for training with weights that become palettes |
//! | `layerwise` | palettes that keep what a layer computes |
//! | `pack` | indices of 1 to 8 bits, least significant bit first |
//! | `product` | products of matrices |
//! | `random` | random numbers from a seed |
//! | `shifted` | sums of shifted copies, as convolutions of few channels are |
//! | `fold` | sums and extremes of rows and columns |
//! | `pointwise`, [`functions`] | functions of each element; exponentials and their like in vector instructions |
//! | `stop` | whether work is still wanted |
//! | `simd` | one kernel, several instruction sets |
//!
//! Nothing here knows a model, an op or a file. Work is split over the rayon pool of the caller, in pieces whose
//! size depends on the input alone, and put together in order: the result is the same bit for bit whatever the
//! number of threads. There is no clock, no environment variable and no global but the memory that each thread
//! keeps to use again (`buffer`); randomness comes from a seed.
//!
//! ```
//! use palettizer_kernels::{ValueHistogram, Precision, Weights, pack};
//!
//! let values = [0.0_f32, 0.1, 1.0, 1.1, 5.0];
//! let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Exact);
//! let clusters = histogram.cluster(2);
//! let lut: Vec<f32> = clusters.centroids.iter().map(|&c| c as f32).collect();
//!
//! let mut indices = [0_u8; 5];
//! let error = histogram.assign(&lut, &mut indices);
//! assert_eq!(indices, [0, 0, 0, 0, 1]);
//! assert!((error - clusters.cost).abs() < 1e-6);
//!
//! let mut bytes = Vec::new();
//! pack(&indices, 1, &mut bytes);
//! assert_eq!(bytes, [0b10000]);
//! ```

mod assign;
mod buffer;
mod element;
mod fold;
pub mod functions;
mod layerwise;
mod pack;
mod pointwise;
mod product;
mod random;
mod scalar;
mod shifted;
mod simd;
mod soft;
mod softmax;
mod stop;
#[cfg(test)]
mod tests;
mod vector;
mod weights;

pub use assign::replace;
pub use element::Element;
pub use fold::{Fold, fold};
pub use layerwise::{
    LayerwiseAlgorithm, LayerwiseError, LayerwiseOptions, LayerwiseProblem, LayerwiseTables,
    layerwise, layerwise_indices,
};
pub use pack::{pack, unpack};
pub use pointwise::{Pointwise, map, map_in_place, sum_of, zip};
pub use product::{Matrix, product, product_alone};
pub use random::Random;
pub use scalar::branch_and_bound::Precision;
pub use scalar::histogram::ValueHistogram;
pub use scalar::lagrangian::Clusters;
pub use shifted::{add_from_shifted, add_to_shifted, shifted_products};
pub use soft::{
    Attention, Real, RoundCentroids, SoftElement, SoftGroup, SoftOptions, soft_backward,
    soft_forward, soft_nearest,
};
pub use softmax::{softmax, softmax_gradient};
pub use vector::{VectorClusters, VectorOptions, assign_vectors, cluster_vectors};
pub use weights::Weights;
