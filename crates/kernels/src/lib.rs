//! Clustering kernels: numbers in slices, plain values out.
//!
//! | module | answers |
//! |---|---|
//! | [`census`](Census) | what values does this group hold, and how often |
//! | `lanes` | eight floats side by side |
//! | `line` | prefix sums that make the cost of any run of sorted values O(1) |
//! | `precise` | the same with twice the digits |
//! | `path` | the cheapest path through all runs when every cluster has a price |
//! | `price` | the price at which exactly k clusters are bought: optimal 1-D k-means |
//! | `nearest` | the nearest entry of a palette, for every element |
//! | `vectors` | k-means of short vectors (not optimal: nobody knows how) |
//! | `soft` | soft k-means and its gradient, for training with weights that become palettes |
//! | `pack` | indices of 1 to 8 bits, least significant bit first |
//!
//! Nothing here knows a model, an op or a file. Work is split over the rayon pool of the caller, in pieces whose
//! size depends on the input alone, and put together in order: the result is the same bit for bit whatever the
//! number of threads. There is no clock, no environment variable and no global but the memory that each thread
//! keeps to use again (`buffer`); randomness comes from a seed.
//!
//! ```
//! use palettizer_kernels::{Census, Precision, Weights, pack};
//!
//! let values = [0.0_f32, 0.1, 1.0, 1.1, 5.0];
//! let census = Census::new(&values, Weights::Equal, Precision::Exact);
//! let clusters = census.cluster(2);
//! let lut: Vec<f32> = clusters.centroids.iter().map(|&c| c as f32).collect();
//!
//! let mut indices = [0_u8; 5];
//! let error = census.assign(&lut, &mut indices);
//! assert_eq!(indices, [0, 0, 0, 0, 1]);
//! assert!((error - clusters.cost).abs() < 1e-6);
//!
//! let mut bytes = Vec::new();
//! pack(&indices, 1, &mut bytes);
//! assert_eq!(bytes, [0b10000]);
//! ```

mod buffer;
mod census;
mod element;
mod lanes;
mod line;
mod nearest;
mod pack;
mod path;
mod precise;
mod price;
mod simd;
mod soft;
#[cfg(test)]
mod tests;
mod vectors;
mod weights;

pub use census::{Census, Precision};
pub use element::Element;
pub use pack::{pack, unpack};
pub use price::Clusters;
pub use soft::{
    Attention, Real, Settle, SoftElement, SoftGroup, SoftOptions, soft_backward, soft_forward,
    soft_nearest,
};
pub use vectors::{VectorClusters, VectorOptions, assign_vectors, cluster_vectors};
pub use weights::Weights;
