//! A group cut into tasks for threads, and tasks into chunks that stay in cache.
//!
//! A chunk holds its vectors coordinate by coordinate, so that the lanes of a tile lie together whatever their length. Its end is
//! padded to whole tiles with its last vector.

use std::ops::Range;

use rayon::prelude::*;

use super::options::SoftGroup;
use super::real::{Real, SoftElement};

/// Vectors that are handled side by side.
pub(super) const TILE: usize = 16;
/// Vectors of a chunk; also what is summed before a sum goes over to 64 bits.
pub(super) const CHUNK: usize = 4096;
/// Vectors of a task, about.
const TASK: usize = 1 << 16;

/// The vectors of each task: runs whose elements lie together in memory. Only the group's shape decides them, so sums over them
/// do not depend on threads.
fn tasks<E: SoftElement>(group: &SoftGroup<'_, E>) -> Vec<Range<usize>> {
    let n = group.vectors();
    let size = match group.dim {
        1 => TASK,
        _ => (TASK / group.cols).max(1) * group.cols,
    };
    let starts = (0..n).step_by(size);
    starts.map(|start| start..(start + size).min(n)).collect()
}

/// Visits all chunks of a group. `work` gets the numbers of a chunk's vectors, the task's part of `out` (which has as many numbers
/// for each vector, or none at all) with the place where that starts, and `slots` sums to add to. Gives those sums over the group.
pub(super) fn visit<E: SoftElement, O: Send, S>(
    group: &SoftGroup<'_, E>,
    out: &mut [O],
    slots: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, Range<usize>, (&mut [O], usize), &mut [f64]) + Sync,
) -> Vec<f64> {
    let tasks = tasks(group);
    let per = out.len().checked_div(group.vectors()).unwrap_or(0);
    let mut parts = Vec::with_capacity(tasks.len());
    let mut rest = out;
    for task in &tasks {
        let (part, others) = rest.split_at_mut(task.len() * per);
        parts.push(part);
        rest = others;
    }
    let run = |(task, part): (&Range<usize>, &mut [O])| {
        let mut sums = vec![0.0; slots];
        let mut scratch = scratch();
        for start in task.clone().step_by(CHUNK) {
            let vectors = start..(start + CHUNK).min(task.end);
            let place = (&mut *part, task.start * per);
            work(&mut scratch, vectors, place, &mut sums);
        }
        sums
    };
    if let [task] = tasks.as_slice() {
        return match parts.pop() {
            Some(part) => run((task, part)),
            None => vec![0.0; slots],
        };
    }
    let sums: Vec<Vec<f64>> = tasks.par_iter().zip(parts).map(run).collect();
    let mut total = vec![0.0; slots];
    for sums in sums {
        for (total, sum) in total.iter_mut().zip(sums) {
            *total += sum;
        }
    }
    total
}

/// Coordinates of some vectors: those of the first coordinate, then of the second.
#[derive(Clone, Debug)]
pub(super) struct Columns<R> {
    /// `dim × width` numbers.
    pub(super) values: Vec<R>,
    /// Vectors that there is room for.
    pub(super) width: usize,
}

impl<R: Real> Columns<R> {
    /// Room for the chunks of a group of so many vectors.
    pub(super) fn new(vectors: usize, dim: usize) -> Self {
        let width = vectors.min(CHUNK).next_multiple_of(TILE);
        Columns {
            values: vec![R::ZERO; width * dim],
            width,
        }
    }

    /// One coordinate of a tile.
    #[inline(always)]
    pub(super) fn tile(&self, coordinate: usize, at: usize) -> [R; TILE] {
        let from = coordinate * self.width + at;
        let mut tile = [R::ZERO; TILE];
        tile.copy_from_slice(&self.values[from..from + TILE]);
        tile
    }

    /// Sets one coordinate of a tile.
    #[inline(always)]
    pub(super) fn set(&mut self, coordinate: usize, at: usize, tile: [R; TILE]) {
        let to = coordinate * self.width + at;
        self.values[to..to + TILE].copy_from_slice(&tile);
    }

    /// Copies elements of a group's shape in.
    pub(super) fn load<E: SoftElement<Real = R>>(
        &mut self,
        group: &SoftGroup<'_, E>,
        values: &[E],
        vectors: Range<usize>,
    ) {
        for_runs(group, vectors, self.width, |at, place, len| {
            E::widen(&values[place..place + len], &mut self.values[at..at + len]);
        });
    }

    /// Repeats the last of `len` vectors up to a whole tile.
    pub(super) fn pad(&mut self, len: usize) {
        let end = len.next_multiple_of(TILE);
        for column in self.values.chunks_exact_mut(self.width) {
            let last = column[len - 1];
            column[len..end].fill(last);
        }
    }

    /// Divides by the factors of the rows, or multiplies.
    pub(super) fn scale<E: SoftElement<Real = R>>(
        &mut self,
        group: &SoftGroup<'_, E>,
        vectors: Range<usize>,
        divide: bool,
    ) {
        let Some(scale) = group.scale else { return };
        for_runs(group, vectors, self.width, |at, place, len| {
            let factor = scale[place / group.cols];
            let values = self.values[at..at + len].iter_mut();
            match divide {
                true => values.for_each(|value| *value = *value / factor),
                false => values.for_each(|value| *value = *value * factor),
            }
        });
    }

    /// Copies out into a task's part of the elements, which starts at `origin`.
    pub(super) fn store<E: SoftElement<Real = R>>(
        &self,
        group: &SoftGroup<'_, E>,
        vectors: Range<usize>,
        (out, origin): (&mut [E], usize),
    ) {
        for_runs(group, vectors, self.width, |at, place, len| {
            let to = &mut out[place - origin..place - origin + len];
            E::narrow(&self.values[at..at + len], to);
        });
    }

    /// The same, adding.
    pub(super) fn add_to<E: SoftElement<Real = R>>(
        &self,
        group: &SoftGroup<'_, E>,
        vectors: Range<usize>,
        (out, origin): (&mut [R], usize),
    ) {
        for_runs(group, vectors, self.width, |at, place, len| {
            let to = &mut out[place - origin..place - origin + len];
            for (to, &value) in to.iter_mut().zip(&self.values[at..at + len]) {
                *to += value;
            }
        });
    }
}

/// Calls with (place in the columns, place in memory, length) for what lies together in both, and in one row of the weight
/// if rows matter.
fn for_runs<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    vectors: Range<usize>,
    width: usize,
    mut run: impl FnMut(usize, usize, usize),
) {
    let (cols, dim) = (group.cols, group.dim);
    if dim == 1 && group.scale.is_none() {
        return run(0, vectors.start, vectors.len());
    }
    let mut vector = vectors.start;
    while vector < vectors.end {
        let (block, col) = (vector / cols, vector % cols);
        let len = (cols - col).min(vectors.end - vector);
        for coordinate in 0..dim {
            let place = (block * dim + coordinate) * cols + col;
            run(coordinate * width + vector - vectors.start, place, len);
        }
        vector += len;
    }
}
