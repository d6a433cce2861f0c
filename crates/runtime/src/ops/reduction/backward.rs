//! Gradients of reductions: each element gets its share of that of what it was reduced to.

use super::{Axes, log_sum_exp as log_sums};
use crate::broadcast::{apply, apply_in_place};
use crate::call::Fault;
use crate::grad::{Backward, Gradients};
use crate::reduce::{Sum, SumSquare, along};
use crate::view::View;

/// From a function of each element and of a number for what it is reduced to.
fn spread(
    call: &Backward<'_>,
    axes: &Axes,
    of: &[f32],
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Gradients, Fault> {
    let (x, wide) = (call.floats("x")?, axes.wide.as_slice());
    let mut gradient = vec![0.0; x.len()];
    apply((x, wide), (of, &axes.kept), wide, &mut gradient, f)?;
    let upstream = (call.upstream()?, axes.kept.as_slice());
    apply_in_place(&mut gradient, wide, upstream, |share, g| share * g)?;
    Ok(vec![("x", 0, gradient)])
}

/// The same, of the gradient alone.
fn shared(call: &Backward<'_>, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    spread(call, &axes, call.upstream()?, f)
}

/// The same share for each element.
fn equal(call: &Backward<'_>, share: f32) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    let mut gradient = vec![share; call.tensor("x")?.len()];
    let upstream = (call.upstream()?, axes.kept.as_slice());
    apply_in_place(&mut gradient, &axes.wide, upstream, |share, g| share * g)?;
    Ok(vec![("x", 0, gradient)])
}

pub(super) fn sum(call: &Backward<'_>) -> Result<Gradients, Fault> {
    equal(call, 1.0)
}

pub(super) fn mean(call: &Backward<'_>) -> Result<Gradients, Fault> {
    equal(call, 1.0 / Axes::of(call)?.count as f32)
}

pub(super) fn l1_norm(call: &Backward<'_>) -> Result<Gradients, Fault> {
    shared(call, |x, _| if x == 0.0 { 0.0 } else { x.signum() })
}

pub(super) fn sum_square(call: &Backward<'_>) -> Result<Gradients, Fault> {
    shared(call, |x, _| 2.0 * x)
}

pub(super) fn l2_norm(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    let norms = axes.folded::<SumSquare>(call.floats("x")?);
    // that of zeros is 0, as in torch
    spread(call, &axes, &norms, |x, square| {
        if square == 0.0 {
            0.0
        } else {
            x / square.sqrt()
        }
    })
}

pub(super) fn log_sum(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    let sums = axes.folded::<Sum>(call.floats("x")?);
    spread(call, &axes, &sums, |_, sum| 1.0 / sum)
}

pub(super) fn log_sum_exp(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    let sums = log_sums(call.floats("x")?, &axes);
    spread(call, &axes, &sums, |x, sum| {
        palettizer_kernels::functions::exp(x - sum)
    })
}

/// Of equal ones each has the same part.
pub(super) fn extreme(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    let (x, wide) = (call.floats("x")?, axes.wide.as_slice());
    let chosen = (call.output_floats(0)?, axes.kept.as_slice());
    let mut gradient = vec![0.0; x.len()];
    apply((x, wide), chosen, wide, &mut gradient, |x, y| {
        f32::from(u8::from(x == y))
    })?;
    let counts = along::<Sum>(&gradient, wide, &axes.folded);
    apply_in_place(&mut gradient, wide, (&counts, &axes.kept), |one, n| {
        one / n.max(1.0)
    })?;
    let upstream = (call.upstream()?, axes.kept.as_slice());
    apply_in_place(&mut gradient, wide, upstream, |share, g| share * g)?;
    Ok(vec![("x", 0, gradient)])
}

/// Each gets the product of all others: of those before it, and of those behind it.
pub(super) fn product(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let axes = Axes::of(call)?;
    let x = call.floats("x")?;
    if x.is_empty() {
        return Ok(vec![("x", 0, Vec::new())]);
    }
    let all = 0..axes.wide.len();
    let (folded, kept): (Vec<usize>, Vec<usize>) = all.partition(|&axis| axes.folded[axis]);
    let order: Vec<usize> = kept.into_iter().chain(folded).collect();
    let view = View::of(&axes.wide).permuted(&order);
    let mut rows = view.read(x);
    let mut before = vec![0.0f64; axes.count];
    for (row, &g) in rows.chunks_mut(axes.count.max(1)).zip(call.upstream()?) {
        let mut product = f64::from(g);
        for (before, &x) in before.iter_mut().zip(&*row) {
            *before = product;
            product *= f64::from(x);
        }
        let mut product = 1.0;
        for (before, x) in before.iter().zip(row).rev() {
            let own = f64::from(*x);
            *x = (before * product) as f32;
            product *= own;
        }
    }
    let mut gradient = vec![0.0; x.len()];
    view.write(&mut gradient, &rows);
    Ok(vec![("x", 0, gradient)])
}
