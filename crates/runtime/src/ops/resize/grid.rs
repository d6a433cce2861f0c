//! Where the points lie that an axis is sampled at.

use crate::call::{Args, Fault};

/// How points are laid over an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sampling {
    StrictAlignCorners,
    AlignCorners,
    Default,
    OffsetCorners,
    UnalignCorners,
}

/// The mode that the program says.
pub(super) fn sampling(args: &Args<'_>) -> Result<Sampling, Fault> {
    Ok(match args.text("sampling_mode")? {
        None | Some("DEFAULT") => Sampling::Default,
        Some("STRICT_ALIGN_CORNERS") => Sampling::StrictAlignCorners,
        Some("ALIGN_CORNERS") => Sampling::AlignCorners,
        Some("OFFSET_CORNERS") => Sampling::OffsetCorners,
        Some("UNALIGN_CORNERS") => Sampling::UnalignCorners,
        Some(other) => {
            return Err(format!("sampling_mode is \"{other}\"; expected STRICT_ALIGN_CORNERS, ALIGN_CORNERS, DEFAULT, OFFSET_CORNERS or UNALIGN_CORNERS").into());
        }
    })
}

/// A point between `begin` and `end`: `begin + share * (end - begin) + shift`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub share: f64,
    pub shift: f64,
}

impl Sampling {
    /// One of `count` points between two positions that are `length` apart, both included: those of a whole axis are 0 and its
    /// last position. A length below 0 means that the axis is gone through backwards. Points do not leave the interval.
    pub(super) fn point(self, at: usize, count: usize, length: f64) -> Point {
        let (i, n) = (at as f64, count as f64);
        let sign = if length < 0.0 { -1.0 } else { 1.0 };
        // how many positions there are
        let positions = length.abs() + 1.0;
        let within = |offset: f64, share: f64, shift: f64| {
            if offset <= 0.0 {
                Point {
                    share: 0.0,
                    shift: 0.0,
                }
            } else if offset >= length.abs() {
                Point {
                    share: 1.0,
                    shift: 0.0,
                }
            } else {
                Point { share, shift }
            }
        };
        match self {
            Sampling::AlignCorners if count == 1 => Point {
                share: 0.5,
                shift: 0.0,
            },
            Sampling::StrictAlignCorners if count == 1 => Point {
                share: 0.0,
                shift: 0.0,
            },
            Sampling::AlignCorners | Sampling::StrictAlignCorners => Point {
                share: i / (n - 1.0),
                shift: 0.0,
            },
            Sampling::Default => within(i * positions / n, i / n, sign * i / n),
            Sampling::UnalignCorners => {
                let middle = (i + 0.5) / n;
                within(middle * positions - 0.5, middle, sign * (middle - 0.5))
            }
            Sampling::OffsetCorners => {
                let middle = (i + 0.5) / n;
                let small = length < 1.0;
                let (share, shift) = if small { (0.0, middle) } else { (middle, 0.0) };
                let offset = middle * length.max(1.0);
                if length < 0.0 {
                    Point { share, shift }
                } else {
                    within(offset, share, shift)
                }
            }
        }
    }

    /// The same on a whole axis.
    pub(super) fn position(self, at: usize, count: usize, dim: usize) -> f64 {
        let length = dim.saturating_sub(1) as f64;
        let Point { share, shift } = self.point(at, count, length);
        share * length + shift
    }

    /// The positions that are nearest to the points. Points that are not bound to the ends stand for an equal part of the axis
    /// each, and have the position that the middle of theirs is in; so it is in TensorFlow with `half_pixel_centers`.
    pub(super) fn nearest(self, count: usize, dim: usize) -> Vec<usize> {
        let last = dim.saturating_sub(1);
        let nearest = |at: usize| match self {
            Sampling::Default | Sampling::UnalignCorners => {
                scaled(2 * at as u128 + 1, dim, 2 * count as u128)
            }
            _ => (self.position(at, count, dim) + 0.5).floor() as usize,
        };
        (0..count).map(|at| nearest(at).min(last)).collect()
    }
}

/// `number * dim / by`, rounded down.
pub(super) fn scaled(number: u128, dim: usize, by: u128) -> usize {
    usize::try_from(number * dim as u128 / by.max(1)).unwrap_or(usize::MAX)
}
