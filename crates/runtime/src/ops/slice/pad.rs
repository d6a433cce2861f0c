//! Pads: a constant around a tensor, or its own elements again, one axis after the other.

use super::size;
use crate::axis::{Around, given_back, taken};
use crate::call::{Args, Call, Fault, Outcome};
use crate::element::{Element as _, each_kind};
use crate::grad::{Backward, Gradients};
use crate::view::View;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Constant,
    Reflect,
    Replicate,
}

/// What is added around a tensor: before and after each axis.
pub(crate) struct Pads {
    pub pads: Vec<[usize; 2]>,
    pub shape: Vec<usize>,
}

impl Pads {
    /// Pads of the last axes of a tensor, as many as there are.
    pub(crate) fn of(shape: &[usize], pads: &[i64]) -> Result<Self, Fault> {
        let first = shape.len().checked_sub(pads.len() / 2);
        let (Some(first), true) = (first, pads.len().is_multiple_of(2)) else {
            return Err(format!(
                "pad has {} elements; expected two for each of the last axes of x, which has {}",
                pads.len(),
                shape.len()
            )
            .into());
        };
        let mut all = vec![[0; 2]; shape.len()];
        let mut padded = shape.to_vec();
        for (axis, pair) in (first..).zip(pads.as_chunks::<2>().0) {
            let [before, after] = [size("pad", pair[0])?, size("pad", pair[1])?];
            let dim = padded[axis].checked_add(before);
            let dim = dim.and_then(|dim| dim.checked_add(after));
            padded[axis] = dim.ok_or("the dimensions of x, padded, overflow")?;
            all[axis] = [before, after];
        }
        Ok(Pads {
            pads: all,
            shape: padded,
        })
    }

    /// Where the tensor is in what it becomes.
    pub(crate) fn inside(&self) -> View {
        let mut view = View::of(&self.shape);
        for (axis, (&[before, after], &dim)) in self.pads.iter().zip(&self.shape).enumerate() {
            view = view.sliced(axis, before, 1, dim - before - after);
        }
        view
    }

    /// From the first axis to the last: the axis, the shape before it is padded, and what each position then has.
    fn tables(&self, mode: Mode) -> Result<Vec<(Around, Vec<usize>)>, Fault> {
        let dims = self.pads.iter().zip(&self.shape);
        let mut shape: Vec<usize> = dims
            .map(|(&[before, after], &dim)| dim - before - after)
            .collect();
        let mut tables = Vec::new();
        for (axis, &[before, after]) in self.pads.iter().enumerate() {
            if before + after == 0 {
                continue;
            }
            let dim = shape[axis];
            let most = if mode == Mode::Reflect {
                dim.saturating_sub(1)
            } else {
                usize::MAX
            };
            if dim == 0 || before.max(after) > most {
                return Err(format!("pad has {before} and {after} for axis {axis} of {dim} positions; a reflection has {most} at most").into());
            }
            let source = |at: usize| match mode {
                Mode::Reflect if at < before => before - at,
                Mode::Reflect if at - before >= dim => 2 * (dim - 1) - (at - before),
                _ => at.saturating_sub(before).min(dim - 1),
            };
            let table = (0..self.shape[axis]).map(source).collect();
            tables.push((Around::axis(&shape, axis), table));
            shape[axis] = self.shape[axis];
        }
        Ok(tables)
    }
}

fn given(args: &Args<'_>) -> Result<(Pads, Mode), Fault> {
    let pads = Pads::of(args.tensor("x")?.shape(), &args.ints("pad")?)?;
    let mode = match args.text("mode")? {
        None | Some("constant") => Mode::Constant,
        Some("reflect") => Mode::Reflect,
        Some("replicate") => Mode::Replicate,
        Some(other) => {
            return Err(
                format!("mode is \"{other}\"; expected constant, reflect or replicate").into(),
            );
        }
    };
    Ok((pads, mode))
}

pub(super) fn pad(call: &mut Call<'_>) -> Outcome {
    let (pads, mode) = given(call)?;
    let empty = call.count(&pads.shape)? == 0;
    each_kind!(call.tensor("x")?.dtype(), "x", T => {
        let padded = match mode {
            Mode::Constant => {
                let value = call.optional_number("constant_val")?.unwrap_or(0.0);
                let mut out = call.filled(&pads.shape, T::of_number(value))?;
                pads.inside().write(&mut out, call.elements("x")?);
                out
            }
            _ => {
                let tables = if empty { Vec::new() } else { pads.tables(mode)? };
                let (elements, _) = call.take::<T>("x")?;
                tables.into_iter().fold(elements, |elements, (around, table)| taken(&elements, around, &table, 1))
            }
        };
        call.output(&pads.shape, padded)
    })
}

pub(super) fn pad_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let (pads, mode) = given(call)?;
    let upstream = call.upstream()?;
    let gradient = match mode {
        Mode::Constant => pads.inside().read(upstream),
        _ if upstream.is_empty() => Vec::new(),
        _ => {
            let tables = pads.tables(mode)?.into_iter().rev();
            tables.fold(upstream.to_vec(), |gradient, (around, table)| {
                given_back(&gradient, around, &table, 1)
            })
        }
    };
    Ok(vec![("x", 0, gradient)])
}
