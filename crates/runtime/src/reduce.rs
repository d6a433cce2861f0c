//! Elements folded along axes: the arithmetic of reductions, of gradients of what was broadcast, and of normalizations.
//!
//! Neighbouring axes of a kind are one; each group of axes that are folded is one pass over the elements, the innermost first.

use palettizer_kernels::{Fold, fold};

macro_rules! folds {
    ($($(#[$meta:meta])* $name:ident: $start:expr, |$sum:ident, $x:ident| $add:expr, |$a:ident, $b:ident| $merge:expr;)*) => {$(
        $(#[$meta])*
        pub(crate) struct $name;

        impl Fold for $name {
            const START: f64 = $start;
            #[inline(always)]
            fn add($sum: f64, $x: f32) -> f64 {
                let $x = f64::from($x);
                $add
            }
            #[inline(always)]
            fn merge($a: f64, $b: f64) -> f64 {
                $merge
            }
        }
    )*};
}

folds! {
    /// The sum.
    Sum: 0.0, |sum, x| sum + x, |a, b| a + b;
    /// The sum of absolute values.
    SumAbs: 0.0, |sum, x| sum + x.abs(), |a, b| a + b;
    /// The sum of squares.
    SumSquare: 0.0, |sum, x| sum + x * x, |a, b| a + b;
    /// The product.
    Product: 1.0, |product, x| product * x, |a, b| a * b;
    /// The largest; NaN if there is one.
    Max: f64::NEG_INFINITY, |most, x| larger(most, x), |a, b| larger(a, b);
    /// The least; NaN if there is one.
    Min: f64::INFINITY, |least, x| -larger(-least, -x), |a, b| -larger(-a, -b);
}

/// The larger one; NaN if there is one.
#[inline(always)]
fn larger(most: f64, x: f64) -> f64 {
    // not `max`, which would leave NaN out
    if x > most || x.is_nan() { x } else { most }
}

/// Groups of neighbouring dimensions that are folded, or are not: their sizes, from the outermost.
pub(crate) fn groups(shape: &[usize], axes: &[bool]) -> Vec<(usize, bool)> {
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (&dim, &folded) in shape.iter().zip(axes) {
        match groups.last_mut() {
            _ if dim == 1 => {}
            Some((size, kind)) if *kind == folded => *size *= dim,
            _ => groups.push((dim, folded)),
        }
    }
    groups
}

/// Folds elements along the axes that are set; there is memory for the result.
pub(crate) fn along<F: Fold>(values: &[f32], shape: &[usize], axes: &[bool]) -> Vec<f32> {
    along_each::<F, F>(values, shape, axes)
}

/// The same, folding by `First` what comes from `values`, and by `Then` what was folded before.
pub(crate) fn along_each<First: Fold, Then: Fold>(
    values: &[f32],
    shape: &[usize],
    axes: &[bool],
) -> Vec<f32> {
    if values.is_empty() {
        // sizes of what is not there may be anything
        let kept = shape.iter().zip(axes).filter(|(_, folded)| !**folded);
        return vec![First::START as f32; kept.map(|(&dim, _)| dim).product()];
    }
    let mut groups = groups(shape, axes);
    if !groups.iter().any(|(_, folded)| *folded) {
        // each element is folded alone
        groups.push((1, true));
    }
    let mut made: Option<Vec<f32>> = None;
    while let Some(at) = groups.iter().rposition(|(_, folded)| *folded) {
        let (n, _) = groups.remove(at);
        let inner = groups[at..].iter().map(|(size, _)| size).product();
        let outer: usize = groups[..at].iter().map(|(size, _)| size).product();
        let mut out = vec![0.0; outer * inner];
        match &made {
            None => fold::<First>(values, n, inner, &mut out),
            Some(before) => fold::<Then>(before, n, inner, &mut out),
        }
        made = Some(out);
    }
    made.unwrap_or_default()
}
