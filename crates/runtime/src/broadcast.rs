//! Several tensors gone through together, as numpy broadcasts them.
//!
//! [`Loops`] holds the dimensions of the result and, for each operand, the stride along them: 0 where it is broadcast. Neighbouring
//! dimensions that all operands go through alike are merged, so that most of what programs do is one long run.

use crate::call::Fault;
use crate::reduce;
use rayon::prelude::*;

/// Elements of the result that one piece of work makes.
const PIECE: usize = 1 << 14;

/// The shape that tensors of these shapes are broadcast to.
pub(crate) fn shape_of(shapes: &[&[usize]]) -> Result<Vec<usize>, Fault> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (wide, &dim) in result[rank - shape.len()..].iter_mut().zip(*shape) {
            if *wide == 1 {
                *wide = dim;
            } else if dim != 1 && dim != *wide {
                let all: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
                return Err(
                    format!("shapes {} cannot be broadcast together", all.join(" and ")).into(),
                );
            }
        }
    }
    Ok(result)
}

/// The distance of neighbours along each dimension of a shape.
pub(crate) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at].saturating_mul(shape[at]);
    }
    strides
}

/// The strides of a tensor along the dimensions that it is broadcast to.
pub(crate) fn strides(shape: &[usize], wide: &[usize]) -> Result<Vec<usize>, Fault> {
    let fits = |(&dim, &wide): (&usize, &usize)| dim == 1 || dim == wide;
    let gap = wide.len().checked_sub(shape.len());
    let gap = gap.filter(|&gap| shape.iter().zip(&wide[gap..]).all(fits));
    let gap = gap.ok_or_else(|| format!("the shape {shape:?} cannot be broadcast to {wide:?}"))?;
    let mut strides = vec![0; gap];
    let own = contiguous(shape).into_iter().zip(shape);
    strides.extend(own.map(|(stride, &dim)| if dim == 1 { 0 } else { stride }));
    Ok(strides)
}

/// How N operands are gone through for a result.
#[derive(Debug)]
pub(crate) struct Loops<const N: usize> {
    /// From the outermost to the innermost but one.
    outer: Vec<usize>,
    outer_strides: Vec<[usize; N]>,
    /// How long the innermost dimension is.
    run: usize,
    /// The strides along it.
    pub steps: [usize; N],
}

impl<const N: usize> Loops<N> {
    /// For operands of these shapes, broadcast to `shape`.
    pub(crate) fn new(shape: &[usize], operands: [&[usize]; N]) -> Result<Self, Fault> {
        let mut all: [Vec<usize>; N] = std::array::from_fn(|_| Vec::new());
        for (found, operand) in all.iter_mut().zip(operands) {
            *found = strides(operand, shape)?;
        }
        let strides: [&[usize]; N] = std::array::from_fn(|at| all[at].as_slice());
        Ok(Self::strided(shape, strides))
    }

    /// For operands with these strides along the dimensions of the result.
    pub(crate) fn strided(shape: &[usize], operands: [&[usize]; N]) -> Self {
        let mut dims: Vec<(usize, [usize; N])> = Vec::new();
        for (at, &dim) in shape.iter().enumerate() {
            let strides = std::array::from_fn(|operand| operands[operand][at]);
            match dims.last_mut() {
                _ if dim == 1 => {}
                Some((last, outer))
                    if (0..N).all(|at| outer[at] == strides[at].saturating_mul(dim)) =>
                {
                    *last = last.saturating_mul(dim);
                    *outer = strides;
                }
                _ => dims.push((dim, strides)),
            }
        }
        let (run, steps) = dims.pop().unwrap_or((1, [0; N]));
        let (outer, outer_strides) = dims.into_iter().unzip();
        Loops {
            outer,
            outer_strides,
            run,
            steps,
        }
    }

    /// Calls `work` with runs of the result, and where each operand begins there; along them operands go on by `steps`.
    pub(crate) fn for_each<R: Send>(
        &self,
        out: &mut [R],
        work: impl Fn(&mut [R], [usize; N]) + Sync,
    ) {
        if out.len() <= 4 * PIECE {
            return self.piece(0, out, &work);
        }
        let pieces = out.par_chunks_mut(PIECE).enumerate();
        pieces.for_each(|(at, out)| self.piece(at * PIECE, out, &work));
    }

    /// The runs of a part of the result that begins at an element.
    fn piece<R>(&self, first: usize, mut out: &mut [R], work: &impl Fn(&mut [R], [usize; N])) {
        if out.is_empty() {
            return;
        }
        let (mut within, mut rest) = (first % self.run, first / self.run);
        let mut place = vec![0; self.outer.len()];
        let mut offsets = [0; N];
        for (at, &dim) in self.outer.iter().enumerate().rev() {
            place[at] = rest % dim;
            rest /= dim;
            for (offset, stride) in offsets.iter_mut().zip(self.outer_strides[at]) {
                *offset += place[at] * stride;
            }
        }
        loop {
            let (now, later) = out.split_at_mut(out.len().min(self.run - within));
            let begin = std::array::from_fn(|at| offsets[at] + within * self.steps[at]);
            work(now, begin);
            if later.is_empty() {
                return;
            }
            (out, within) = (later, 0);
            for (at, &dim) in self.outer.iter().enumerate().rev() {
                place[at] += 1;
                let strides = self.outer_strides[at];
                (0..N).for_each(|operand| offsets[operand] += strides[operand]);
                if place[at] < dim {
                    break;
                }
                (0..N).for_each(|operand| offsets[operand] -= dim * strides[operand]);
                place[at] = 0;
            }
        }
    }
}

/// Writes a function of two broadcast operands to `out`, of the shape that they are broadcast to.
pub(crate) fn apply<X: Copy + Sync, Y: Copy + Sync, R: Send>(
    (x, x_shape): (&[X], &[usize]),
    (y, y_shape): (&[Y], &[usize]),
    shape: &[usize],
    out: &mut [R],
    f: impl Fn(X, Y) -> R + Sync,
) -> Result<(), Fault> {
    let loops = Loops::new(shape, [x_shape, y_shape])?;
    let steps = loops.steps;
    loops.for_each(out, |out, [i, j]| {
        let n = out.len();
        match steps {
            [1, 1] => {
                let both = x[i..i + n].iter().zip(&y[j..j + n]);
                out.iter_mut()
                    .zip(both)
                    .for_each(|(out, (&x, &y))| *out = f(x, y));
            }
            [1, 0] => {
                let y = y[j];
                out.iter_mut()
                    .zip(&x[i..i + n])
                    .for_each(|(out, &x)| *out = f(x, y));
            }
            [0, 1] => {
                let x = x[i];
                out.iter_mut()
                    .zip(&y[j..j + n])
                    .for_each(|(out, &y)| *out = f(x, y));
            }
            _ => {
                let (x, y) = (x[i], y[j]);
                out.iter_mut().for_each(|out| *out = f(x, y));
            }
        }
    });
    Ok(())
}

/// Puts a function of each element and of another operand, broadcast to its shape, in its place.
pub(crate) fn apply_in_place<X: Copy + Send, Y: Copy + Sync>(
    values: &mut [X],
    shape: &[usize],
    (y, y_shape): (&[Y], &[usize]),
    f: impl Fn(X, Y) -> X + Sync,
) -> Result<(), Fault> {
    let loops = Loops::new(shape, [y_shape])?;
    let steps = loops.steps;
    loops.for_each(values, |values, [j]| match steps {
        [1] => {
            let y = &y[j..j + values.len()];
            values.iter_mut().zip(y).for_each(|(x, &y)| *x = f(*x, y));
        }
        _ => {
            let y = y[j];
            values.iter_mut().for_each(|x| *x = f(*x, y));
        }
    });
    Ok(())
}

/// Copies elements along the given strides: transposed, broadcast, or both.
pub(crate) fn copy<T: Copy + Send + Sync>(
    values: &[T],
    strides: &[usize],
    shape: &[usize],
    out: &mut [T],
) {
    let loops = Loops::strided(shape, [strides]);
    let [step] = loops.steps;
    loops.for_each(out, |out, [from]| match step {
        0 => out.fill(values[from]),
        1 => out.copy_from_slice(&values[from..from + out.len()]),
        _ => {
            let values = values[from..].iter().step_by(step);
            out.iter_mut()
                .zip(values)
                .for_each(|(out, &value)| *out = value);
        }
    });
}

/// The gradient of what was broadcast from one shape to another: summed over what it was repeated along.
pub(crate) fn sum_to(gradient: Vec<f32>, wide: &[usize], shape: &[usize]) -> Vec<f32> {
    if wide == shape {
        return gradient;
    }
    let gap = wide.len().saturating_sub(shape.len());
    let repeated = |at: usize| at < gap || (shape[at - gap] == 1 && wide[at] != 1);
    let axes: Vec<bool> = (0..wide.len()).map(repeated).collect();
    reduce::along::<reduce::Sum>(&gradient, wide, &axes)
}
