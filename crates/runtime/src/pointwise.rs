//! Operations that make each element from one: how they are run and differentiated.
//!
//! `pointwise!` writes a function of elements with its parameters as a type that loops inline, so that they become vector
//! instructions. Derivatives are computed from the argument, not from the output, which may have been rounded to fp16.

use crate::call::{Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::tensor::Elements;
use palettizer_kernels::{Pointwise, map_in_place, sum_of, zip};

/// A function of numbers that knows the given variables: `pointwise!([alpha], |x| alpha * x)`.
macro_rules! pointwise {
    (|$($x:ident),+| $value:expr) => { $crate::pointwise::pointwise!([], |$($x),+| $value) };
    ([$($known:ident),*], |$($x:ident),+| $value:expr) => {{
        struct Function { $($known: f32),* }
        impl palettizer_kernels::Pointwise<{ [$(stringify!($x)),+].len() }> for Function {
            #[inline(always)]
            fn at(&self, [$($x),+]: [f32; [$(stringify!($x)),+].len()]) -> f32 {
                let &Function { $($known),* } = self;
                $value
            }
        }
        Function { $($known),* }
    }};
}
pub(crate) use pointwise;

/// Applies a function to each element of `x`, in place where nothing else needs them.
pub(crate) fn map(call: &mut Call<'_>, f: impl Pointwise<1>) -> Outcome {
    if let Some((mut values, shape)) = call.sole_floats("x")? {
        map_in_place(&mut values, &f);
        return call.output(&shape, values);
    }
    let (x, shape) = (call.floats("x")?, call.tensor("x")?.shape());
    let mut out = call.zeros(shape)?;
    palettizer_kernels::map(x, &mut out, &f);
    call.output(shape, out)
}

/// Applies one function to integers, another to floats.
pub(crate) fn map_numbers(
    call: &mut Call<'_>,
    ints: impl Fn(i32) -> i32,
    floats: impl Pointwise<1>,
) -> Outcome {
    let x = call.tensor("x")?;
    match x.elements() {
        Elements::Ints(values) => {
            call.count(x.shape())?;
            let values: Vec<i32> = values.iter().map(|&x| ints(x)).collect();
            call.output(x.shape(), values)
        }
        _ => map(call, floats),
    }
}

/// The gradient of x where it can be told from what was given: `f(upstream, y)`.
pub(crate) fn slope_by_output(
    call: &Backward<'_>,
    f: impl Pointwise<2>,
) -> Result<Gradients, Fault> {
    let (y, upstream) = (call.output_floats(0)?, call.upstream()?);
    let mut gradient = vec![0.0; y.len()];
    zip(upstream, y, &mut gradient, &f);
    Ok(vec![("x", 0, gradient)])
}

/// The gradient of `x`, as a function of the one of the output and of x.
pub(crate) fn slope(call: &Backward<'_>, f: impl Pointwise<2>) -> Result<Gradients, Fault> {
    if !call.wants("x") {
        return Ok(Vec::new());
    }
    let (x, upstream) = (call.floats("x")?, call.upstream()?);
    let mut gradient = vec![0.0; x.len()];
    zip(upstream, x, &mut gradient, &f);
    Ok(vec![("x", 0, gradient)])
}

/// Adds the gradient of a parameter of one number: the sum of a function of the gradient of the output and of x.
pub(crate) fn parameter(
    call: &Backward<'_>,
    param: &'static str,
    mut gradients: Gradients,
    f: impl Pointwise<2>,
) -> Result<Gradients, Fault> {
    if call.wants(param) {
        let sum = sum_of(call.upstream()?, call.floats("x")?, &f);
        gradients.push((param, 0, vec![sum as f32]));
    }
    Ok(gradients)
}
