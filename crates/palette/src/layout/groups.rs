//! Where the elements of each group lie in memory.
//!
//! Along the channel axis a weight is (outer, channels, inner); a group is (outer, some channels, inner), that is,
//! one run of memory for each outer position. With one outer position, or one group, a group is a plain slice and
//! nothing is copied. Indices are worked out group after group and put into row-major order at the end.

use std::borrow::Cow;
use std::ops::Range;

use crate::{Layout, decode};

/// The geometry of all groups of one weight.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    /// Positions before the channel axis.
    pub(crate) outer: usize,
    /// Groups along the channel axis.
    pub(crate) count: usize,
    /// Channels of one group.
    pub(crate) channels: usize,
    /// Positions behind the channel axis.
    pub(crate) inner: usize,
    /// Elements for one index.
    pub(crate) dim: usize,
    /// The shape of one group.
    pub(crate) shape: Vec<usize>,
    /// The axis of the groups or else of the output channels, where one is known.
    pub(crate) channel_axis: Option<usize>,
}

impl Groups {
    pub(crate) fn new(layout: &Layout) -> Self {
        let shape = &layout.shape;
        let axis = layout.group_axis.or(layout.vector_axis).unwrap_or(0);
        let channels = shape[axis] / layout.groups;
        let mut group_shape = shape.clone();
        group_shape[axis] = channels;
        let (outer, inner) = (&shape[..axis], &shape[axis + 1..]);
        Groups {
            outer: outer.iter().product(),
            count: layout.groups,
            channels,
            inner: inner.iter().product(),
            dim: layout.cluster_dim,
            shape: group_shape,
            channel_axis: layout.group_axis.or(layout.output_axis),
        }
    }

    /// Elements of one group.
    pub(crate) fn len(&self) -> usize {
        self.outer * self.run()
    }

    /// Elements of one group that lie together.
    fn run(&self) -> usize {
        self.channels * self.inner
    }

    /// The group's elements in order, as ranges of the weight.
    pub(crate) fn ranges(&self, group: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (run, count) = (self.run(), self.count);
        let starts = (0..self.outer).map(move |outer| (outer * count + group) * run);
        starts.map(move |start| start..start + run)
    }

    /// The group as one range of the weight, when it is one.
    pub(crate) fn whole(&self, group: usize) -> Option<Range<usize>> {
        let len = self.len();
        (self.outer == 1 || self.count == 1).then(|| group * len..(group + 1) * len)
    }

    /// Where each vector of a group starts, in index order.
    pub(crate) fn firsts(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        let (inner, dim) = (self.inner, self.dim);
        self.ranges(group).flat_map(move |range| {
            let starts = range.step_by(inner * dim);
            starts.flat_map(move |start| start..start + inner)
        })
    }

    /// The elements of the vector that starts there.
    pub(crate) fn members(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let (inner, dim) = (self.inner, self.dim);
        (0..dim).map(move |j| first + j * inner)
    }

    /// Indices of each group.
    pub(crate) fn index_counts(&self, mask: Option<&Mask<'_>>) -> Vec<usize> {
        match mask {
            None => vec![self.len() / self.dim; self.count],
            Some(mask) => (0..self.count)
                .map(|group| self.ranges(group).map(|range| mask.count(range)).sum())
                .collect(),
        }
    }

    /// Group after group into row-major order.
    pub(crate) fn row_major<'a>(
        &self,
        indices: &'a [u8],
        counts: &[usize],
        mask: Option<&Mask<'_>>,
    ) -> Cow<'a, [u8]> {
        if self.outer == 1 || self.count == 1 {
            return Cow::Borrowed(indices);
        }
        let mut cursors: Vec<usize> = counts
            .iter()
            .scan(0, |next, count| {
                let start = *next;
                *next += count;
                Some(start)
            })
            .collect();
        let run = self.run();
        let mut out = Vec::with_capacity(indices.len());
        for outer in 0..self.outer {
            for (group, cursor) in cursors.iter_mut().enumerate() {
                let start = (outer * self.count + group) * run;
                let len = match mask {
                    None => run / self.dim,
                    Some(mask) => mask.count(start..start + run),
                };
                out.extend_from_slice(&indices[*cursor..*cursor + len]);
                *cursor += len;
            }
        }
        Cow::Owned(out)
    }
}

/// The kept positions of a pruned weight: one bit an element, least-significant first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask<'a>(pub(crate) &'a [u8]);

impl Mask<'_> {
    pub(crate) fn keeps(&self, at: usize) -> bool {
        decode::is_kept(self.0, at)
    }

    /// The kept positions of a range.
    pub(crate) fn positions(&self, range: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        decode::positions(self.0, range)
    }

    fn count(&self, range: Range<usize>) -> usize {
        decode::ones(self.0, range)
    }
}
