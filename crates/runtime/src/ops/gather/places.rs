//! Where the blocks of one tensor are in another one.

use super::positions;
use crate::axis::{Around, product};
use crate::call::{Args, Fault};
use crate::tensor::element_count;

/// Blocks of so many elements, and where each begins in the other tensor.
pub(super) struct Places {
    pub block: usize,
    pub begins: Vec<usize>,
    /// The shape of all blocks together.
    pub shape: Vec<usize>,
}

/// Passes a shape that is as it must be.
pub(super) fn expect_shape(param: &str, found: &[usize], expected: &[usize]) -> Result<(), Fault> {
    if found != expected {
        return Err(format!("{param} has the shape {found:?}; expected {expected:?}").into());
    }
    Ok(())
}

/// Says whether blocks of this shape together are what is expected, before there is a list of them.
pub(super) type Allow<'a> = &'a dyn Fn(&[usize]) -> Result<(), Fault>;

/// Those of `indices` on one axis of `data`: a block is what comes after the axis.
pub(super) fn on_axis(args: &Args<'_>, data: &[usize], allow: Allow<'_>) -> Result<Places, Fault> {
    let axis = args.axis_or("axis", 0, data.len())?;
    let Around { before, dim, after } = Around::axis(data, axis);
    let table = positions(args, &[dim])?;
    let indices = args.tensor("indices")?.shape();
    let shape = [&data[..axis], indices, &data[axis + 1..]].concat();
    allow(&shape)?;
    let mut begins = Vec::new();
    if element_count(&shape) != Some(0) {
        begins.reserve_exact(before * table.len());
        for block in 0..before {
            begins.extend(table.iter().map(|at| (block * dim + at) * after));
        }
    }
    Ok(Places {
        block: after,
        begins,
        shape,
    })
}

/// Those of `indices`, of the rank of `data`, of which each is the position on one axis; elsewhere it is where it is itself.
pub(super) fn along_axis(
    args: &Args<'_>,
    data: &[usize],
    allow: Allow<'_>,
) -> Result<Places, Fault> {
    let axis = args.axis_or("axis", 0, data.len())?;
    let shape = args.tensor("indices")?.shape();
    let mut expected = data.to_vec();
    if let (Some(expected), Some(&dim)) = (expected.get_mut(axis), shape.get(axis)) {
        *expected = dim;
    }
    expect_shape("indices", shape, &expected)?;
    allow(shape)?;
    let Around { dim, after, .. } = Around::axis(data, axis);
    let mut begins = positions(args, &[dim])?;
    if begins.is_empty() {
        return Ok(Places {
            block: 1,
            begins,
            shape: expected,
        });
    }
    let rows = begins.chunks_exact_mut(after).enumerate();
    for (row, begins) in rows {
        let first = row / shape[axis] * dim * after;
        for (column, begin) in begins.iter_mut().enumerate() {
            *begin = first + *begin * after + column;
        }
    }
    Ok(Places {
        block: 1,
        begins,
        shape: expected,
    })
}

/// Those of `indices` whose last axis names positions on several axes of `data`, after `batches` axes that both have.
pub(super) fn nd(
    args: &Args<'_>,
    data: &[usize],
    batches: usize,
    allow: Allow<'_>,
) -> Result<Places, Fault> {
    let indices = args.tensor("indices")?.shape();
    let Some((&depth, outer)) = indices.split_last() else {
        return Err("indices is a scalar; expected one dimension or more".into());
    };
    let fits = batches
        .checked_add(depth)
        .is_some_and(|axes| axes <= data.len());
    if !fits || batches > outer.len() || outer[..batches] != data[..batches] {
        return Err(format!("indices has the shape {indices:?}, which does not name places in {data:?} after {batches} batch dimensions").into());
    }
    let (named, rest) = data[batches..].split_at(depth);
    let shape = [outer, rest].concat();
    allow(&shape)?;
    let block = product(rest);
    if element_count(&shape) == Some(0) {
        // indices that name nothing must be right all the same
        positions(args, named)?;
        return Ok(Places {
            block,
            begins: Vec::new(),
            shape,
        });
    }
    let (batch, in_batch) = (product(named) * block, product(&outer[batches..]));
    let mut begins = vec![0; product(outer)];
    if depth > 0 {
        let table = positions(args, named)?;
        for (begin, place) in begins.iter_mut().zip(table.chunks_exact(depth)) {
            let place = place.iter().zip(named);
            *begin = place.fold(0, |sum, (at, dim)| sum * dim + at) * block;
        }
    }
    for (number, begins) in begins.chunks_mut(in_batch).enumerate() {
        begins.iter_mut().for_each(|begin| *begin += number * batch);
    }
    Ok(Places {
        block,
        begins,
        shape,
    })
}
