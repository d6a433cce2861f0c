//! A tensor seen through strides: some of its elements, in some order.
//!
//! Transposing, slicing, reversing, tiling and windows differ in nothing but the steps from one element to the next. A [`View`]
//! knows the steps; [`View::read`] copies what it shows, [`View::write`] puts elements there, and [`View::sum`] adds them up there,
//! which is the gradient of reading. Axes that lie next to each other in memory are merged first, so that rows are long; where the
//! rows of one side are the columns of the other, blocks that fit the cache are transposed.

use crate::element::{Element, in_parts};
use crate::tensor::element_count;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct View {
    first: usize,
    axes: Vec<Axis>,
}

/// How many positions an axis has, and how far apart in memory they are.
#[derive(Clone, Copy, Debug)]
struct Axis {
    len: usize,
    step: isize,
}

/// Rows and columns of the blocks that are transposed at once: a cache line of floats.
const BLOCK: usize = 16;

impl View {
    /// All of a row-major tensor.
    pub(crate) fn of(shape: &[usize]) -> Self {
        let mut step = 1;
        let mut axes: Vec<Axis> = Vec::with_capacity(shape.len());
        for &len in shape.iter().rev() {
            axes.push(Axis { len, step });
            // where it overflows, another axis is empty
            step = step.wrapping_mul(len as isize);
        }
        axes.reverse();
        View { first: 0, axes }
    }

    /// The lengths of its axes.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.len).collect()
    }

    /// How many elements it shows.
    pub(crate) fn len(&self) -> usize {
        element_count(&self.shape()).unwrap_or(0)
    }

    /// Its axes in another order.
    pub(crate) fn permuted(&self, order: &[usize]) -> Self {
        View {
            first: self.first,
            axes: order.iter().map(|&axis| self.axes[axis]).collect(),
        }
    }

    /// So many positions of an axis from `begin`, `step` apart; all of them must be on the axis.
    pub(crate) fn sliced(mut self, axis: usize, begin: usize, step: isize, len: usize) -> Self {
        let axis = &mut self.axes[axis];
        if len > 0 {
            let ahead = axis.step.wrapping_mul(begin as isize);
            self.first = self.first.wrapping_add_signed(ahead);
        }
        if len > 1 {
            axis.step = axis.step.wrapping_mul(step);
        }
        axis.len = len;
        self
    }

    /// A new axis before another one, along which everything is repeated.
    pub(crate) fn repeated(mut self, before: usize, len: usize) -> Self {
        self.axes.insert(before, Axis { len, step: 0 });
        self
    }

    /// An axis as two: windows of so many positions, which begin `stride` apart.
    pub(crate) fn windowed(
        mut self,
        axis: usize,
        windows: usize,
        stride: usize,
        size: usize,
    ) -> Self {
        let Axis { step, .. } = self.axes[axis];
        let stride = if windows > 1 { stride as isize } else { 1 };
        let outer = Axis {
            len: windows,
            step: step.wrapping_mul(stride),
        };
        self.axes
            .splice(axis..=axis, [outer, Axis { len: size, step }]);
        self
    }

    /// Without axes of length 1, and neighbours as one where they can be.
    fn merged(&self) -> Vec<Axis> {
        let mut merged: Vec<Axis> = Vec::with_capacity(self.axes.len());
        for &axis in self.axes.iter().filter(|axis| axis.len != 1) {
            match merged.last_mut() {
                Some(before) if before.step == axis.step * axis.len as isize => {
                    before.len *= axis.len;
                    before.step = axis.step;
                }
                _ => merged.push(axis),
            }
        }
        merged
    }

    /// What it shows.
    pub(crate) fn read<T: Element>(&self, from: &[T]) -> Vec<T> {
        let mut out = vec![T::default(); self.len()];
        if out.is_empty() {
            return out;
        }
        let axes = self.merged();
        let Some((&row, outer)) = axes.split_last() else {
            out[0] = from[self.first];
            return out;
        };
        // rows that are interleaved a few at a time are read as they are
        let column = |axis: &Axis| axis.step == 1 && axis.len >= BLOCK / 2;
        match outer.iter().rposition(column) {
            Some(column) if row.step != 1 => {
                transpose(from, &mut out, self.first, &axes, column);
            }
            _ => {
                let rows = (1usize << 14).div_ceil(row.len);
                in_parts(&mut out, rows * row.len, |(part, out)| {
                    let mut at = Odometer::at(outer, self.first, part * rows);
                    for out in out.chunks_exact_mut(row.len) {
                        read_row(from, out, at.position, row.step);
                        at.advance(outer);
                    }
                });
            }
        }
        out
    }

    /// Puts elements, row-major, where it shows.
    pub(crate) fn write<T: Element>(&self, into: &mut [T], values: &[T]) {
        self.rows(values, |position, step, values| match step {
            1 => into[position..][..values.len()].copy_from_slice(values),
            _ => {
                let mut position = position;
                for &value in values {
                    into[position] = value;
                    position = position.wrapping_add_signed(step);
                }
            }
        });
    }

    /// A tensor of so many elements: at each, the sum of all values that belong there.
    pub(crate) fn sum(&self, values: &[f32], elements: usize) -> Vec<f32> {
        // windows and repetitions add up many values: in 64 bits their order does not show
        let mut sums = vec![0f64; elements];
        self.rows(values, |position, step, values| match step {
            0 => sums[position] += values.iter().map(|&value| f64::from(value)).sum::<f64>(),
            1 => {
                let sums = &mut sums[position..][..values.len()];
                sums.iter_mut()
                    .zip(values)
                    .for_each(|(sum, &value)| *sum += f64::from(value));
            }
            _ => {
                let mut position = position;
                for &value in values {
                    sums[position] += f64::from(value);
                    position = position.wrapping_add_signed(step);
                }
            }
        });
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    /// Gives each row: where it begins, its step, its values.
    fn rows<T>(&self, values: &[T], mut each: impl FnMut(usize, isize, &[T])) {
        if values.is_empty() || values.len() != self.len() {
            return;
        }
        let axes = self.merged();
        let Some((&row, outer)) = axes.split_last() else {
            return each(self.first, 1, values);
        };
        let mut at = Odometer::at(outer, self.first, 0);
        for values in values.chunks_exact(row.len) {
            each(at.position, row.step, values);
            at.advance(outer);
        }
    }
}

fn read_row<T: Element>(from: &[T], out: &mut [T], position: usize, step: isize) {
    match step {
        1 if out.len() < 8 => {
            let from = &from[position..][..out.len()];
            out.iter_mut()
                .zip(from)
                .for_each(|(out, &value)| *out = value);
        }
        1 => out.copy_from_slice(&from[position..][..out.len()]),
        0 => out.fill(from[position]),
        _ => {
            let mut position = position;
            for out in out {
                *out = from[position];
                position = position.wrapping_add_signed(step);
            }
        }
    }
}

/// Counts through the positions of some axes, the last fastest.
struct Odometer {
    index: Vec<usize>,
    position: usize,
}

impl Odometer {
    fn at(axes: &[Axis], first: usize, mut number: usize) -> Self {
        let mut index = vec![0; axes.len()];
        let mut position = first;
        for (index, axis) in index.iter_mut().zip(axes).rev() {
            *index = number % axis.len;
            number /= axis.len;
            position = position.wrapping_add_signed(*index as isize * axis.step);
        }
        Odometer { index, position }
    }

    fn advance(&mut self, axes: &[Axis]) {
        for (index, axis) in self.index.iter_mut().zip(axes).rev() {
            *index += 1;
            self.position = self.position.wrapping_add_signed(axis.step);
            if *index < axis.len {
                return;
            }
            *index = 0;
            let back = axis.step * axis.len as isize;
            self.position = self.position.wrapping_add_signed(-back);
        }
    }
}

/// Reads where the rows of the output, its last axis, lie across memory, and its axis `column` along it.
fn transpose<T: Element>(from: &[T], out: &mut [T], first: usize, axes: &[Axis], column: usize) {
    let (outer, rest) = axes.split_at(column);
    let [along, between @ .., across] = rest else {
        return;
    };
    let rows: usize = between.iter().map(|axis| axis.len).product();
    let plane = along.len * rows * across.len;
    let part = BLOCK * rows * across.len;
    let planes: usize = out.len() / plane;
    let block = |position: usize, out: &mut [T]| {
        let mut at = Odometer::at(between, position, 0);
        let columns = out.len() / (rows * across.len);
        for row in 0..rows {
            let from = Across {
                from,
                position: at.position,
                step: across.step,
            };
            from.columns(
                out,
                row * across.len,
                rows * across.len,
                columns,
                across.len,
            );
            at.advance(between);
        }
    };
    if planes >= 64 {
        in_parts(out, plane, |(number, out)| {
            let first = Odometer::at(outer, first, number).position;
            for (part, out) in out.chunks_mut(part).enumerate() {
                block(first + part * BLOCK, out);
            }
        });
    } else {
        for (number, out) in out.chunks_mut(plane).enumerate() {
            let first = Odometer::at(outer, first, number).position;
            in_parts(out, part, |(part, out)| block(first + part * BLOCK, out));
        }
    }
}

/// Lines of memory, so far apart, that become columns.
struct Across<'a, T> {
    from: &'a [T],
    position: usize,
    step: isize,
}

impl<T: Element> Across<'_, T> {
    fn line(&self, number: usize, len: usize) -> &[T] {
        let position = self
            .position
            .wrapping_add_signed(number as isize * self.step);
        &self.from[position..][..len]
    }

    /// Fills `columns` rows of the output, `apart` from each other, with the first elements of `len` lines.
    fn columns(&self, out: &mut [T], begin: usize, apart: usize, columns: usize, len: usize) {
        let whole = if columns == BLOCK { len / 8 * 8 } else { 0 };
        for lines in (0..whole).step_by(8) {
            let from: [&[T]; 8] = std::array::from_fn(|line| self.line(lines + line, BLOCK));
            for half in (0..BLOCK).step_by(8) {
                let from: [[T; 8]; 8] = std::array::from_fn(|line| {
                    from[line][half..]
                        .first_chunk()
                        .copied()
                        .unwrap_or_default()
                });
                let turned: [[T; 8]; 8] =
                    std::array::from_fn(|column| std::array::from_fn(|line| from[line][column]));
                for (column, to) in turned.iter().enumerate() {
                    let at = begin + (half + column) * apart + lines;
                    out[at..][..8].copy_from_slice(to);
                }
            }
        }
        for line in whole..len {
            let from = self.line(line, columns);
            for (column, &value) in from.iter().enumerate() {
                out[begin + column * apart + line] = value;
            }
        }
    }
}
