//! Reductions along axes, places of extremes, and cumulative sums.

mod backward;
mod cumsum;
mod extremes;
mod integers;

use crate::broadcast::{apply, sum_to};
use crate::call::{Args, Call, Fault, Outcome};
use crate::reduce::{Max, Min, Product, Sum, SumAbs, SumSquare, along, along_each};
use crate::registry::{Def, differentiable, op};
use crate::tensor::{Elements, element_count};
use palettizer_kernels::functions;

pub(super) const OPS: &[Def] = &[
    differentiable("cumsum", cumsum::cumsum, cumsum::cumsum_backward).by_shapes(),
    op("reduce_argmax", extremes::argmax),
    op("reduce_argmin", extremes::argmin),
    differentiable(
        "reduce_l1_norm",
        |call| {
            let floats = |x: &[f32], axes: &Axes| axes.folded::<SumAbs>(x);
            reduce(call, integers::l1_norm, floats)
        },
        backward::l1_norm,
    ),
    differentiable(
        "reduce_l2_norm",
        |call| {
            let floats = |x: &[f32], axes: &Axes| each(axes.folded::<SumSquare>(x), f32::sqrt);
            reduce(call, integers::l2_norm, floats)
        },
        backward::l2_norm,
    ),
    differentiable(
        "reduce_log_sum",
        |call| {
            let floats = |x: &[f32], axes: &Axes| each(axes.folded::<Sum>(x), functions::log);
            reduce(call, integers::log_sum, floats)
        },
        backward::log_sum,
    ),
    differentiable(
        "reduce_log_sum_exp",
        |call| {
            // what does not fit is refused before: as many elements as x has
            call.count(call.tensor("x")?.shape())?;
            reduce(call, integers::log_sum_exp, log_sum_exp)
        },
        backward::log_sum_exp,
    ),
    differentiable(
        "reduce_max",
        |call| {
            some(call)?;
            reduce(call, integers::max, |x, axes| {
                along::<Max>(x, &axes.wide, &axes.folded)
            })
        },
        backward::extreme,
    )
    .by_both(),
    differentiable(
        "reduce_mean",
        |call| {
            let floats = |x: &[f32], axes: &Axes| {
                let n = axes.count as f32;
                each(axes.folded::<Sum>(x), |sum| sum / n)
            };
            reduce(call, integers::mean, floats)
        },
        backward::mean,
    )
    .by_shapes(),
    differentiable(
        "reduce_min",
        |call| {
            some(call)?;
            reduce(call, integers::min, |x, axes| {
                along::<Min>(x, &axes.wide, &axes.folded)
            })
        },
        backward::extreme,
    )
    .by_both(),
    differentiable(
        "reduce_prod",
        |call| {
            let floats = |x: &[f32], axes: &Axes| along::<Product>(x, &axes.wide, &axes.folded);
            reduce(call, integers::product, floats)
        },
        backward::product,
    ),
    differentiable(
        "reduce_sum",
        |call| reduce(call, integers::sum, |x, axes| axes.folded::<Sum>(x)),
        backward::sum,
    )
    .by_shapes(),
    differentiable(
        "reduce_sum_square",
        |call| {
            let floats = |x: &[f32], axes: &Axes| axes.folded::<SumSquare>(x);
            reduce(call, integers::sum_square, floats)
        },
        backward::sum_square,
    ),
];

/// What a reduction goes along.
struct Axes {
    /// The shape of x.
    wide: Vec<usize>,
    /// Which of its axes are reduced.
    folded: Vec<bool>,
    /// Its shape with those of length 1.
    kept: Vec<usize>,
    /// The shape of the output.
    shape: Vec<usize>,
    /// How many elements make one.
    count: usize,
}

impl Axes {
    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let wide = args.tensor("x")?.shape().to_vec();
        let axes = args.axes("axes", wide.len())?;
        let folded =
            (0..wide.len()).map(|axis| axes.as_ref().is_none_or(|axes| axes.contains(&axis)));
        let folded: Vec<bool> = folded.collect();
        let each = || wide.iter().copied().zip(folded.iter().copied());
        let kept: Vec<usize> = each()
            .map(|(dim, folded)| if folded { 1 } else { dim })
            .collect();
        let shape = match args.bool_or("keep_dims", false)? {
            true => kept.clone(),
            false => each()
                .filter(|(_, folded)| !folded)
                .map(|(dim, _)| dim)
                .collect(),
        };
        let reduced: Vec<usize> = each()
            .filter(|(_, folded)| *folded)
            .map(|(dim, _)| dim)
            .collect();
        let count = element_count(&reduced).unwrap_or(usize::MAX);
        Ok(Axes {
            wide,
            folded,
            kept,
            shape,
            count,
        })
    }

    /// The sum, of what `First` takes of the elements.
    fn folded<First: palettizer_kernels::Fold>(&self, x: &[f32]) -> Vec<f32> {
        along_each::<First, Sum>(x, &self.wide, &self.folded)
    }
}

fn each(mut values: Vec<f32>, f: impl Fn(f32) -> f32) -> Vec<f32> {
    values.iter_mut().for_each(|value| *value = f(*value));
    values
}

fn reduce(
    call: &mut Call<'_>,
    ints: impl Fn(&[i32]) -> i32,
    floats: impl Fn(&[f32], &Axes) -> Vec<f32>,
) -> Outcome {
    let axes = Axes::of(call)?;
    call.count(&axes.shape)?;
    let x = call.tensor("x")?;
    if let Elements::Ints(values) = x.elements() {
        let made = integers::rows(call, values, &axes, ints)?;
        return call.output(&axes.shape, made);
    }
    let made = floats(call.floats("x")?, &axes);
    call.output(&axes.shape, made)
}

/// Refuses extremes of nothing.
fn some(args: &Args<'_>) -> Result<(), Fault> {
    let axes = Axes::of(args)?;
    if axes.count == 0 && !axes.shape.contains(&0) {
        let shape = axes.wide;
        return Err(format!("x has the shape {shape:?}: no element to choose from").into());
    }
    Ok(())
}

/// From the largest element: without overflow, and exact if it is infinite.
fn log_sum_exp(x: &[f32], axes: &Axes) -> Vec<f32> {
    let most = along::<Max>(x, &axes.wide, &axes.folded);
    let most = each(most, |most| if most.is_infinite() { 0.0 } else { most });
    let mut exps = vec![0.0; x.len()];
    let f = |x: f32, most: f32| functions::exp(x - most);
    // the shapes are made for each other
    if apply(
        (x, &axes.wide),
        (&most, &axes.kept),
        &axes.wide,
        &mut exps,
        f,
    )
    .is_err()
    {
        return most;
    }
    let sums = sum_to(exps, &axes.wide, &axes.kept);
    let both = sums.iter().zip(&most);
    both.map(|(&sum, most)| functions::log(sum) + most)
        .collect()
}
