//! The four passes over a group: column sums, the soft weight, what a gradient comes to in each centroid, and the gradient of the
//! weights.
//!
//! Each makes the attention of its vectors again: see `tiles`. A pass that sums moves its sums over to 64 bits after each chunk, and adds
//! those of the tasks in order.

mod soft_weight;
mod sums;
mod tiles;
mod weight_gradient;

use std::ops::Range;

use super::centers::Centers;
use super::options::SoftGroup;
use super::real::SoftElement;
use super::scratch::Scratch;
pub(super) use soft_weight::soft_weight;
pub(super) use sums::{Sums, centroid_gradient, column_sums};
use tiles::{Pass, for_tiles};
pub(super) use weight_gradient::{StepState, weight_gradient, weight_gradient_at_once};

/// Does a chunk's part of a pass: what it comes to is in `scratch.y`, and added to `sums`.
fn chunk<E: SoftElement, P: Pass<E::Real>>(
    pass: &P,
    group: &SoftGroup<'_, E>,
    grad: Option<&[E]>,
    centers: &Centers<E::Real>,
    scratch: &mut Scratch<E::Real>,
    vectors: &Range<usize>,
    sums: &mut [f64],
) {
    scratch.load(group, grad, centers, vectors);
    for_tiles(pass, centers, scratch, vectors.clone());
    scratch.flush(centers, sums);
    scratch.restore();
}
