//! Soft k-means and its exact gradient, without a matrix of vectors by clusters.
//!
//! # Idea
//! One step of soft k-means over vectors x and centroids c is A = softmax(−|x − c|²/τ), then every centroid becomes
//! the mean of the vectors, weighted with its column of A. After T steps the soft weight is W = A·C. A row of A
//! depends on one vector and the centroids alone, so it is made where it is used, sixteen vectors at a time in a buffer
//! that stays in cache, and dropped. What is kept between forward and backward (the *saved*) are the centroids of each step and
//! the column sums of A. The backward walks the steps from the last to the first and makes every A again.
//!
//! # The gradient
//! With G = ∂L/∂W, N = AᵀX and s the column sums, so that C = N/s:
//! ∂L/∂C = AᵀG for the last step; ∂L/∂N = ∂L/∂C / s and ∂L/∂s = −(∂L/∂C · C)/s for any; ∂L/∂Aᵢⱼ = ∂L/∂Nⱼ·xᵢ + ∂L/∂sⱼ, and in the
//! last step Gᵢ·cⱼ besides; nothing where A was raised to the floor; through the softmax and the distances to xᵢ and to the
//! centroids of the step before, where it goes on.
//!
//! # Cost
//! 2T + 2 times n·k attentions for a step with its gradient, 0.3 to 0.5 ns each with AVX2. Memory: the saved,
//! T·k·(dim + 1) numbers, and some 100 kB a thread. For scalars and many clusters, values are sorted in blocks, and only the clusters
//! near a value are visited: see `window`. Wrong choice: where no gradient is wanted; see [`ValueHistogram`](crate::ValueHistogram).
//!
//! # Sources
//! Cho et al., DKM: Differentiable k-means clustering layer, arXiv 2108.12659; for the implicit gradient Jaffe et al., IDKM, arXiv 2312.07759.
//! The formula is that of coremltools 9.0. Our deviations: (1) a cluster whose column sum is zero keeps its centroid; (2) sums
//! over a group are taken in 64 bits, piece by piece and in order; (3) what is below the floor by far is not computed.

mod backward;
mod centers;
mod chunk;
mod forward;
mod implicit;
mod nearest;
mod noise;
mod options;
mod passes;
mod real;
mod scratch;
mod tile;
mod window;

#[cfg(test)]
pub(crate) use noise::gumbel;

pub use backward::soft_backward;
pub use forward::soft_forward;
pub use nearest::soft_nearest;
pub use options::{Attention, RoundCentroids, SoftGroup, SoftOptions};
pub use real::{Real, SoftElement};
