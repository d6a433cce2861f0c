//! The repeat rule: a tensor cut into equal blocks along every axis, each block with its own table or scale.
//!
//! Walking the tensor in memory order, whole runs of elements lie in one block: everything behind the last axis
//! that is cut. The walk visits runs, so a per-channel scale costs a few integers for each channel and nothing for
//! each element; only a cut of the last axis into single elements comes down to runs of one.

use super::DenseError;
use std::ops::Range;

/// Some consecutive elements that lie in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Offset of the first element.
    pub(super) start: usize,
    /// Number of elements.
    pub(super) len: usize,
    /// Row-major number of the block.
    pub(super) block: usize,
}

/// The runs of a tensor, in memory order.
#[derive(Clone)]
pub(super) struct Runs {
    /// For each axis up to the last cut one: (steps, steps of one block, block stride).
    axes: Vec<(usize, usize, usize)>,
    digits: Vec<usize>,
    start: usize,
    len: usize,
    left: usize,
}

/// Cuts `shape` into `blocks` along each axis. The product of `shape` must have been checked.
pub(super) fn runs(
    what: &'static str,
    shape: &[usize],
    blocks: &[usize],
) -> Result<Runs, DenseError> {
    check(what, shape, blocks)?;
    let total = super::count(shape)?;
    if total == 0 {
        return Ok(Runs {
            axes: Vec::new(),
            digits: Vec::new(),
            start: 0,
            len: 0,
            left: 0,
        });
    }
    let mut axes = Vec::new();
    let mut len = total;
    if let Some(last) = blocks.iter().rposition(|&b| b > 1) {
        let mut stride = 1;
        // Nothing overflows: block counts divide the dimensions, whose product was checked.
        for axis in (0..=last).rev() {
            let size = shape[axis] / blocks[axis];
            let (steps, size) = if axis == last {
                (blocks[axis], 1)
            } else {
                (shape[axis], size)
            };
            len /= steps;
            axes.push((steps, size, stride));
            stride *= blocks[axis];
        }
        axes.reverse();
    }
    Ok(Runs {
        digits: vec![0; axes.len()],
        axes,
        start: 0,
        len,
        left: total / len,
    })
}

/// Refuses numbers of blocks that do not divide the axes.
pub(crate) fn check(
    what: &'static str,
    shape: &[usize],
    blocks: &[usize],
) -> Result<(), DenseError> {
    if blocks.len() != shape.len() {
        return Err(DenseError::Rank {
            what,
            expected: shape.len(),
            found: blocks.len(),
        });
    }
    for (axis, (&dim, &blocks)) in shape.iter().zip(blocks).enumerate() {
        if dim.checked_rem(blocks) != Some(0) {
            return Err(DenseError::Blocks {
                what,
                axis,
                dim,
                blocks,
            });
        }
    }
    Ok(())
}

/// The block of one element, by its coordinates. The numbers of blocks divide the axes.
pub(crate) fn block_of(mut at: usize, shape: &[usize], blocks: &[usize]) -> usize {
    let (mut block, mut stride) = (0, 1);
    for (&dim, &count) in shape.iter().zip(blocks).rev() {
        block += at % dim / (dim / count) * stride;
        stride *= count;
        at /= dim;
    }
    block
}

impl Runs {
    /// Elements of each run.
    pub(super) fn run_len(&self) -> usize {
        self.len
    }

    /// The parts of runs that lie in some consecutive elements: the block of each, and where it is among these. To be asked of all
    /// runs.
    pub(super) fn within(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> {
        let Range { start, end } = range;
        let first = start.checked_div(self.len).unwrap_or(0).min(self.left);
        let mut runs = self.clone();
        runs.start = first * self.len;
        runs.left -= first;
        let mut number = first;
        for ((steps, _, _), digit) in runs.axes.iter().zip(&mut runs.digits).rev() {
            *digit = number % steps;
            number /= steps;
        }
        let runs = runs.take_while(move |run| run.start < end);
        runs.map(move |run| {
            let part = run.start.max(start) - start..(run.start + run.len).min(end) - start;
            (run.block, part)
        })
    }
}

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        self.left = self.left.checked_sub(1)?;
        let block = self
            .axes
            .iter()
            .zip(&self.digits)
            .map(|((_, size, stride), digit)| digit / size * stride)
            .sum();
        let run = Run {
            start: self.start,
            len: self.len,
            block,
        };
        self.start += self.len;
        for ((steps, _, _), digit) in self.axes.iter().zip(&mut self.digits).rev() {
            *digit += 1;
            if *digit < *steps {
                break;
            }
            *digit = 0;
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_agree_with_coordinates(axes in prop::collection::vec((1_usize..4, 1_usize..4), 1..5)) {
            let shape: Vec<usize> = axes.iter().map(|(blocks, size)| blocks * size).collect();
            let blocks: Vec<usize> = axes.iter().map(|(blocks, _)| *blocks).collect();
            let mut found = Vec::new();
            for run in runs("scale", &shape, &blocks).unwrap() {
                prop_assert_eq!(run.start, found.len());
                found.extend(std::iter::repeat_n(run.block, run.len));
            }
            let coordinates = (0..found.len()).map(|at| block_of(at, &shape, &blocks));
            prop_assert_eq!(shape.iter().product::<usize>(), found.len());
            prop_assert!(coordinates.eq(found.iter().copied()));
            let runs = runs("scale", &shape, &blocks).unwrap();
            for start in 0..found.len() {
                let range = start..found.len().min(start + 3);
                let mut parts = Vec::new();
                for (block, part) in runs.within(range.clone()) {
                    prop_assert_eq!(part.start, parts.len());
                    parts.extend(part.map(|_| block));
                }
                prop_assert_eq!(&parts, &found[range]);
            }
        }
    }

    #[test]
    fn uncut_is_one_run_and_nothing_is_none() {
        let all: Vec<Run> = runs("lut", &[2, 3], &[1, 1]).unwrap().collect();
        let whole = Run {
            start: 0,
            len: 6,
            block: 0,
        };
        assert_eq!(all, [whole]);
        assert_eq!(runs("lut", &[0, 3], &[1, 3]).unwrap().count(), 0);
        assert_eq!(runs("lut", &[], &[]).unwrap().count(), 1);
    }

    #[test]
    fn refuses_what_cannot_be_cut() {
        let blocks = |shape: &[usize], blocks: &[usize]| runs("scale", shape, blocks).err();
        assert!(matches!(
            blocks(&[4], &[1, 1]),
            Some(DenseError::Rank { .. })
        ));
        assert!(matches!(
            blocks(&[4], &[3]),
            Some(DenseError::Blocks { .. })
        ));
        assert!(matches!(
            blocks(&[4], &[0]),
            Some(DenseError::Blocks { .. })
        ));
        assert!(matches!(
            blocks(&[4], &[8]),
            Some(DenseError::Blocks { .. })
        ));
        let huge = [1 << 40, 1 << 40];
        assert!(matches!(
            blocks(&huge, &[1, 1]),
            Some(DenseError::TooLarge { .. })
        ));
    }
}
