//! Layer-wise palettization: tables and indices that keep what a layer computes, not its weights.
//!
//! # Idea
//! A layer is y = W x. Palettized weights q in the place of a row w change its output by (q − w)·x, over many inputs by
//! (q − w)ᵀ H (q − w) on the average, with H the second moments of x. That is minimized, over tables and indices:
//!
//! | module | does |
//! |---|---|
//! | `curvature` | H damped, its columns in descending order of the diagonal, its factor (`cholesky`) |
//! | `start` | exact weighted k-means |
//! | `feedback` | one pass over the columns, each making up for the errors of those before |
//! | `best_tables` | the best tables for given indices, and scales of rows: closed forms |
//! | `descent` | better indices for given tables, one after the other |
//! | `reseat` | a place for entries that nothing uses |
//! | `rounds` | the order of all that |
//! | `fixed` | better indices for tables that were rounded since |
//! | `product` | matrix products |
//!
//! # Cost
//! n² multiplications a row for each matrix product there is: half a product each for the start, for what zeros would cost, for the
//! feedback and for each solution of tables, a whole one for each round of descent, 5 in all for two rounds. Sweeps add n for each index that changes.
//! n³/6 for each H. Memory: 12 n² bytes for each H that is in use (one at a time, unless a table's rows have several), the indices, and for each
//! thread some numbers for each weight of 32 rows, k² for each of those rows, and k² for each piece of a table's rows.
//! On one core 1536 rows of 576 take 0.16 s (GPTQ) or 0.34 s (two rounds) at 3 bits and a table for each row, 576 rows of 1536 0.4 or 0.85 s. Wrong choice: without samples of the inputs, or fewer than
//! some hundreds; then cluster the weights ([`ValueHistogram`](crate::ValueHistogram)).
//!
//! # Numerics
//! All sums are in 64 bits, weights, H, tables and scales in 32. With 64 bits the objective is known well enough to be seen falling at
//! each step. They cost less than they seem to: what is dense is done seldom, and descent is sparse. Products are fused with their
//! additions (FMA), which every processor has that has AVX2, and ARM's; another takes many times as long.
//!
//! # Sources
//! Kim et al., GuidedQuant, arXiv 2505.07004 (LNQ: closed-form tables and coordinate descent); Frantar et al., GPTQ, arXiv
//! 2210.17323 (feedback, order of columns, damping); Zhao and Yuan, GANQ, arXiv 2501.12956 (tables with feedback). Our deviations: (1) the start is the optimal k-means,
//! weighted; (2) no inverse of H: feedback takes its sums from H = R Rᵀ directly; (3) a row keeps the start's indices
//! where feedback makes it worse; (4) descent keeps g = H e up to date and only pays for indices that change; (5) a table changes
//! only if the objective falls, after rounding to 32 bits; (6) unused entries move; (7) where there are scales, each
//! solution of tables is preceded by one of scales, which replaces solving again.

mod best_tables;
mod cholesky;
mod curvature;
mod descent;
mod feedback;
mod fixed;
mod nearest;
mod problem;
mod product;
mod reseat;
mod rounds;
mod start;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use curvature::Curvature;
pub use fixed::layerwise_indices;
pub use problem::{
    LayerwiseAlgorithm, LayerwiseError, LayerwiseOptions, LayerwiseProblem, LayerwiseTables,
};
use rounds::{Fitted, fit, groups};
use tile::Layer;

/// Up to so many columns, all matrices of second moments may be in memory at once.
const SMALL: usize = 256;

/// Finds tables and indices that minimize Σ (w − q)ᵀ H (w − q) over the rows w of a layer.
///
/// Runs on the caller's rayon pool; the result does not depend on its size.
///
/// ```
/// use palettizer_kernels::{LayerwiseOptions, LayerwiseProblem, layerwise};
///
/// // The two inputs are nearly the same, so that errors of opposite sign cancel.
/// let second_moments = [1.0, 0.99, 0.99, 1.0];
/// let problem = LayerwiseProblem {
///     weights: &[0.0, 0.4, 1.0, 0.6],
///     columns: 2,
///     moments: &[&second_moments],
///     start_weights: None,
/// };
/// let options = LayerwiseOptions { nbits: 1, rows_per_table: 2, ..LayerwiseOptions::default() };
/// let found = layerwise(&problem, &options)?;
/// assert_eq!((found.luts.len(), found.indices.len()), (2, 4));
/// assert!(found.objective.is_sorted_by(|before, after| before >= after));
/// # Ok::<(), palettizer_kernels::LayerwiseError>(())
/// ```
///
/// # Errors
/// If lengths or options make no sense, if anything is not finite, if H is not positive definite however much it is damped, or
/// if it was stopped.
pub fn layerwise(
    problem: &LayerwiseProblem<'_>,
    options: &LayerwiseOptions<'_>,
) -> Result<LayerwiseTables, LayerwiseError> {
    problem.check(options)?;
    let parts = parts(problem, options);
    let solve = |rows: &Range<usize>| part(problem, options, rows.clone());
    let solved: Vec<_> = if problem.columns <= SMALL {
        parts.par_iter().map(solve).collect()
    } else {
        parts.iter().map(solve).collect()
    };
    let mut tables = LayerwiseTables {
        luts: Vec::new(),
        indices: Vec::with_capacity(problem.weights.len()),
        scales: options.row_scale.then(Vec::new),
        objective: Vec::new(),
        energy: 0.0,
        damping: Vec::new(),
    };
    for part in solved {
        let (damping, all) = part?;
        tables.damping.extend(damping);
        for fitted in all {
            tables.luts.extend(fitted.luts);
            tables.indices.extend(fitted.indices);
            if let Some(scales) = &mut tables.scales {
                scales.extend(fitted.scales);
            }
            tables.energy += fitted.energy;
            tables.objective.resize(fitted.objective.len(), 0.0);
            let sums = tables.objective.iter_mut().zip(fitted.objective);
            sums.for_each(|(sum, part)| *sum += part);
        }
    }
    Ok(tables)
}

/// Runs of rows that share neither a table nor second moments with others.
fn parts(problem: &LayerwiseProblem<'_>, options: &LayerwiseOptions<'_>) -> Vec<Range<usize>> {
    let rows = problem.rows();
    let mut parts = Vec::new();
    let mut start = 0;
    for end in (0..rows).step_by(problem.rows_per_moments()).skip(1) {
        if end % options.rows_per_table.max(1) == 0 {
            parts.push(start..end);
            start = end;
        }
    }
    parts.push(start..rows);
    parts
}

/// Fits some rows; also the damping of their second moments.
fn part(
    problem: &LayerwiseProblem<'_>,
    options: &LayerwiseOptions<'_>,
    rows: Range<usize>,
) -> Result<(Vec<f64>, Vec<Fitted>), LayerwiseError> {
    options.stopped()?;
    let same = problem.rows_per_moments();
    let first = rows.start / same;
    let curvatures: Result<Vec<_>, _> = (first..rows.end.div_ceil(same))
        .map(|at| Curvature::new(problem.moments[at], problem.columns, options.damping, at))
        .collect();
    let curvatures = curvatures?;
    let layer = Layer {
        problem,
        options,
        curvatures: &curvatures,
        first,
    };
    let groups = groups(rows, options.rows_per_table);
    let fitted: Vec<_> = groups
        .into_par_iter()
        .map(|rows| fit(&layer, rows))
        .collect();
    let fitted: Result<Vec<_>, _> = fitted.into_iter().collect();
    Ok((curvatures.iter().map(|c| c.damping).collect(), fitted?))
}
