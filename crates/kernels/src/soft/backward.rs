//! From the gradient of the soft weight to that of the weights.

use super::centers::Centers;
use super::implicit;
use super::options::{SoftGroup, SoftOptions};
use super::passes::{Past, gradient, gradient_at_once, pulled};
use super::real::{Real, SoftElement};

/// The exact gradient through all steps: ∂L/∂values, given `grad`, ∂L/∂(soft weight), both in the order of the values.
///
/// `trail` is what [`soft_forward`](crate::soft_forward) left, `options` are those of the forward. The centroids that the forward started from
/// count as constants.
///
/// ```
/// use palettizer_kernels::{SoftGroup, SoftOptions, soft_backward, soft_forward};
///
/// let values = [0.0_f64, 0.02, 1.0, 0.98];
/// let group = SoftGroup { values: &values, cols: 4, dim: 1, scale: None };
/// let (mut out, mut next, mut back) = ([0.0; 4], [0.0; 2], [0.0; 4]);
/// let options = SoftOptions::default();
/// let mut trail = vec![0.0; options.trail_len(2, 1)];
/// soft_forward(&group, &[0.2, 0.7], &options, &mut out, &mut next, &mut trail);
/// soft_backward(&group, &trail, &options, &[1.0, 0.0, 0.0, 0.0], &mut back);
/// // Of two values that share a centroid, each moves it by half.
/// assert!((back[0] - 0.5).abs() < 1e-6 && (back[1] - 0.5).abs() < 1e-6);
/// ```
///
/// # Panics
/// If the lengths contradict each other.
pub fn soft_backward<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    trail: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    grad: &[E],
    out: &mut [E],
) {
    match E::reals(out) {
        Some(reals) => {
            reals.fill(E::Real::ZERO);
            walk(group, trail, options, grad, reals);
        }
        // Steps are added up before the gradient is rounded, and not in a copy of the weight in 32 bits: they are gone through once
        // to know them, and once more together.
        None => {
            let pasts = walk(group, trail, options, grad, &mut []);
            gradient_at_once(group, &pasts, grad, out);
        }
    }
}

/// Goes back through all steps, adding what they pass on to `out` unless that is empty.
fn walk<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    trail: &[E::Real],
    options: &SoftOptions<'_, E::Real>,
    grad: &[E],
    out: &mut [E::Real],
) -> Vec<Past<E::Real>> {
    let dim = group.dim;
    if options.implicit {
        let past = implicit::past(group, &trail[1..], options, grad);
        if !out.is_empty() {
            gradient(group, &past, grad, out);
        }
        return vec![past];
    }
    let steps = (trail[0].to_f64() as usize).min(options.iterations);
    // 1 + size + iterations · (size + k) numbers, with size = k · dim
    let k = (trail.len() - 1) / (dim + options.iterations * (dim + 1));
    let size = k * dim;
    let made = |step: usize| {
        let at = 1 + size + step * (size + k);
        (&trail[at..at + size], &trail[at + size..at + size + k])
    };
    let before = |step: usize| match step {
        0 => trail[1..1 + size].to_vec(),
        step => options.settled(made(step - 1).0, dim),
    };
    let mut pasts = Vec::new();
    let mut pull = Vec::new();
    for step in (0..steps).rev() {
        let centers = Centers::new(&before(step), dim, group.vectors(), options, step);
        let (means, columns) = made(step);
        let after = (step + 1 == steps).then(|| options.settled(means, dim));
        if after.is_some() {
            pull = pulled(group, &centers, grad);
        }
        let zero = options.enforce_zero;
        let past = Past::new(centers, &pull, (means, columns), after.as_deref(), zero);
        // Nothing is before the first step.
        if step > 0 || !out.is_empty() {
            pull = gradient(group, &past, grad, out);
        }
        pasts.push(past);
    }
    pasts
}
