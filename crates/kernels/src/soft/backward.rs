//! From the gradient of the soft weight to that of the weights.

use super::centers::Centers;
use super::implicit;
use super::options::{SoftGroup, SoftOptions};
use super::passes::{StepState, centroid_gradient, weight_gradient, weight_gradient_at_once};
use super::real::{Real, SoftElement};

/// The exact gradient through all steps: ∂L/∂values, given `grad`, ∂L/∂(soft weight), both in the order of the values.
///
/// `saved` is what [`soft_forward`](crate::soft_forward) left, `options` are those of the forward. The centroids that the forward started from
/// count as constants.
///
/// ```
/// use palettizer_kernels::{SoftGroup, SoftOptions, soft_backward, soft_forward};
///
/// let values = [0.0_f64, 0.02, 1.0, 0.98];
/// let group = SoftGroup { values: &values, cols: 4, dim: 1, scale: None };
/// let (mut out, mut next, mut back) = ([0.0; 4], [0.0; 2], [0.0; 4]);
/// let options = SoftOptions::default();
/// let mut saved = vec![0.0; options.saved_len(2, 1)];
/// soft_forward(&group, &[0.2, 0.7], &options, &mut out, &mut next, &mut saved);
/// soft_backward(&group, &saved, &options, &[1.0, 0.0, 0.0, 0.0], &mut back);
/// // Of two values that share a centroid, each moves it by half.
/// assert!((back[0] - 0.5).abs() < 1e-6 && (back[1] - 0.5).abs() < 1e-6);
/// ```
///
/// # Panics
/// If the lengths contradict each other.
pub fn soft_backward<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    saved: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    grad: &[E],
    out: &mut [E],
) {
    match E::reals(out) {
        Some(reals) => {
            reals.fill(E::Real::ZERO);
            walk(group, saved, options, grad, reals);
        }
        // Steps are added up before the gradient is rounded, and not in a copy of the weight in 32 bits: they are gone through once
        // to know them, and once more together.
        None => {
            let states = walk(group, saved, options, grad, &mut []);
            weight_gradient_at_once(group, &states, grad, out);
        }
    }
}

/// Goes back through all steps, adding what they pass on to `out` unless that is empty.
fn walk<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    saved: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    grad: &[E],
    out: &mut [E::Real],
) -> Vec<StepState<E::Real>> {
    let dim = group.dim;
    if options.implicit {
        let state = implicit::fixed_point(group, &saved[1..], options, grad);
        if !out.is_empty() {
            weight_gradient(group, &state, grad, out);
        }
        return vec![state];
    }
    let steps = (saved[0].to_f64() as usize).min(options.iterations);
    // 1 + size + iterations · (size + k) numbers, with size = k · dim
    let k = (saved.len() - 1) / (dim + options.iterations * (dim + 1));
    let size = k * dim;
    let made = |step: usize| {
        let at = 1 + size + step * (size + k);
        (&saved[at..at + size], &saved[at + size..at + size + k])
    };
    let before = |step: usize| match step {
        0 => saved[1..1 + size].to_vec(),
        step => options.rounded(made(step - 1).0, dim),
    };
    let mut states = Vec::new();
    let mut upstream = Vec::new();
    for step in (0..steps).rev() {
        let centers = Centers::new(&before(step), dim, group.vectors(), options, step);
        let (means, columns) = made(step);
        let after = (step + 1 == steps).then(|| options.rounded(means, dim));
        if after.is_some() {
            upstream = centroid_gradient(group, &centers, grad);
        }
        let zero = options.enforce_zero;
        let state = StepState::new(centers, &upstream, (means, columns), after.as_deref(), zero);
        // Nothing is before the first step.
        if step > 0 || !out.is_empty() {
            upstream = weight_gradient(group, &state, grad, out);
        }
        states.push(state);
    }
    states
}
