//! The gradient at a fixed point, differentiated once.
//!
//! If the last centroids c are a fixed point of the step F(x, c), what they do when x changes follows from c = F(x, c) alone: with
//! g = ∂L/∂c, the vector u = g + (∂F/∂c)ᵀu is what has to be pulled back through one step. It is found by putting it in again until it
//! stays: near a fixed point that k-means runs into, ∂F/∂c shrinks.
//!
//! Cost: one trail of k·dim numbers whatever the number of steps; a backward of 3 passes and one for each round, some tens.
//! Wrong choice: for the few steps that DKM makes by default, after which nothing is a fixed point yet.
//! Source: Jaffe et al., IDKM: Memory efficient neural network quantization via implicit, differentiable k-means, arXiv 2312.07759.
//! Our deviations: no damping; where the centroids are no fixed point and the terms grow, the series ends with its least term.

use super::backward::through_means;
use super::centers::Centers;
use super::forward::means;
use super::options::{SoftGroup, SoftOptions};
use super::passes::{Step, column_sums, gradient, pulled};
use super::real::{Real, SoftElement};

/// Most rounds.
const ROUNDS: usize = 500;

/// Adds the gradient of a group whose centroids are `fixed`.
pub(super) fn add<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    fixed: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    grad: &[E],
    out: &mut [E::Real],
) {
    let (dim, n) = (group.dim, group.vectors());
    let step = options.iterations.max(1) - 1;
    let centers = Centers::new(fixed, dim, n, options, step);
    let sums = column_sums(group, &centers);
    let means = means(&sums, fixed);
    let columns: Vec<E::Real> = sums.columns.iter().map(|&s| E::Real::from_f64(s)).collect();
    let nothing = vec![E::Real::ZERO; fixed.len()];
    // What W = A·C passes to the centroids: as they are, and by the attention to them.
    let mut pull = pulled(group, &centers, grad);
    let direct = Step {
        sums: &nothing,
        columns: &nothing[..columns.len()],
        last: Some((grad, fixed)),
    };
    for (pull, more) in pull
        .iter_mut()
        .zip(gradient(group, &centers, &direct, &mut []))
    {
        *pull += more;
    }
    let small = f64::exp2(f64::from(-E::Real::DIGITS / 2 - 8));
    let mut found = pull.clone();
    let (mut best, mut least) = (found.clone(), f64::INFINITY);
    for _ in 0..ROUNDS {
        let (of_sums, of_columns) = through_means(&found, &means, &columns, options.enforce_zero);
        let once = Step {
            sums: &of_sums,
            columns: &of_columns,
            last: None,
        };
        let pulled = gradient(group, &centers, &once, &mut []);
        let (mut change, mut size) = (0.0, 0.0);
        for ((found, pull), more) in found.iter_mut().zip(&pull).zip(pulled) {
            let new = pull + more;
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
    let found = best;
    let (of_sums, of_columns) = through_means(&found, &means, &columns, options.enforce_zero);
    let all = Step {
        sums: &of_sums,
        columns: &of_columns,
        last: Some((grad, fixed)),
    };
    gradient(group, &centers, &all, out);
}
