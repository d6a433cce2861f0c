//! The gradient at a fixed point, differentiated once.
//!
//! If the last centroids c are a fixed point of the step F(x, c), what they do when x changes follows from c = F(x, c) alone: with
//! g = ∂L/∂c, the vector u = g + (∂F/∂c)ᵀu is what has to be pulled back through one step. It is found by putting it in again until it
//! stays: near a fixed point that k-means runs into, ∂F/∂c shrinks.
//!
//! Cost: one saved of k·dim numbers whatever the number of steps; a backward of 3 passes and one for each round, some tens.
//! Wrong choice: for the few steps that DKM makes by default, after which nothing is a fixed point yet.
//! Source: Jaffe et al., IDKM: Memory efficient neural network quantization via implicit, differentiable k-means, arXiv 2312.07759.
//! Our deviations: no damping; where the centroids are no fixed point and the terms grow, the series ends with its least term.

use super::centers::Centers;
use super::forward::means;
use super::options::{SoftGroup, SoftOptions};
use super::passes::{StepState, centroid_gradient, column_sums, weight_gradient};
use super::real::{Real, SoftElement};

/// Most rounds.
const ROUNDS: usize = 500;

/// The one step to go back through, of a group whose centroids are `fixed`.
pub(super) fn fixed_point<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    fixed: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    grad: &[E],
) -> StepState<E::Real> {
    let (dim, n) = (group.dim, group.vectors());
    let step = options.iterations.max(1) - 1;
    let centers = || Centers::new(fixed, dim, n, options, step);
    let sums = column_sums(group, &centers());
    let means = means(&sums, fixed);
    let columns: Vec<E::Real> = sums.columns.iter().map(|&s| E::Real::from_f64(s)).collect();
    let through = |upstream: &[f64], after| {
        let zero = options.enforce_zero;
        StepState::new(centers(), upstream, (&means, &columns), after, zero)
    };
    // What W = A·C passes to the centroids: as they are, and by the attention to them.
    let mut upstream = centroid_gradient(group, &centers(), grad);
    let direct = through(&vec![0.0; upstream.len()], Some(fixed));
    let by_attention = weight_gradient(group, &direct, grad, &mut []);
    for (upstream, more) in upstream.iter_mut().zip(by_attention) {
        *upstream += more;
    }
    let small = f64::exp2(f64::from(-E::Real::DIGITS / 2 - 8));
    let mut found = upstream.clone();
    let (mut best, mut least) = (found.clone(), f64::INFINITY);
    for _ in 0..ROUNDS {
        let passed = weight_gradient(group, &through(&found, None), grad, &mut []);
        let (mut change, mut size) = (0.0, 0.0);
        for ((found, upstream), more) in found.iter_mut().zip(&upstream).zip(passed) {
            let new = upstream + more;
            change += (new - *found) * (new - *found);
            size += new * new;
            *found = new;
        }
        if change < least {
            (best, least) = (found.clone(), change);
        }
        if change <= small * small * size || change > 4.0 * least {
            break;
        }
    }
    through(&best, Some(fixed))
}
