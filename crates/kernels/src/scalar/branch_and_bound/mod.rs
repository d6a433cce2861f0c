//! Optimal clusters of very many values, most of which are never sorted.
//!
//! 1. Values are put into bins, of which only weight, sum and sum of squares are kept.
//! 2. The best clusters that do not cut a bin are found, at some price λ for a cluster. That is an upper bound.
//! 3. Cutting a bin saves at most `2 d · sqrt(weight · spread)`, where `d` is the distance from a border in
//!    the bin to the centroids on its sides. In an optimum `d` is bounded: if the centroid were farther, splitting off
//!    the values next to the border would gain more than λ. With that much discount for each border, the same
//!    search gives a lower bound, for the whole and for each single border (forwards plus backwards).
//! 4. For [`Precision::Refined`] some hundred bins for each cluster bring the two that near to each other. The [near] answer is found
//!    among few borders and settled where the bins say that the middle between two centroids is, and one search for the lower bound
//!    proves it.
//! 5. For the optimum itself, a border whose lower bound exceeds the upper bound is in none. The bins next to the others are open, the
//!    rest closed for good. Where open bins hold many values each, they are split and counted again. Then the values in the open bins
//!    are gathered, sorted, and the search runs once more with those values one by one.
//!
//! About `1.5 k²` bins stay open however many there are, since all borders may give way a little together. For very many
//! clusters that is nearly all, and then large groups begin with bins that are narrow enough at once.
//!
//! Cost: one pass over the values, two or three for the optimum. Wrong choice: for few values or very many clusters, where nearly all
//! bins stay; then [`cluster`] gives up and all values are sorted.
//! Source: ours; reduction by bounds as in branch and bound, discounts as in Lagrangian relaxation.

mod bins;
mod coarse;
mod moments;
mod near;
mod settle;

use rayon::prelude::*;

use super::lagrangian::{self, Clusters, MANY_CLUSTERS, Partition};
use super::least_weight_path::LeastWeightPath;
use super::prefix_sums::{IntervalCosts, PrefixSums};
use super::radix_sort::unkey;
use crate::stop::Stop;
use crate::weights::Weights;
use bins::Bins;
use coarse::{Coarse, Open};

/// A coarse answer this near to its bound is good enough for [`Precision::Refined`].
const NEAR: f64 = 1e-4;
/// Above this part of the values, sorting all of them is as quick.
const MANY: f64 = 0.6;
/// Fewer values than this are sorted at once if about all bins would have to be resolved.
const LARGE: usize = 1 << 22;
/// The gap that bins are split for, some of which the next answer will not make use of.
const AIM: f64 = 0.6 * NEAR;
/// A bin is split into at most so many parts.
const PARTS: usize = 32;
/// Parts that would have fewer values on the average are not made; the values are sorted.
const CROWD: f64 = 2.0;
/// From so many clusters on, few bins would be closed.
const MIDDLE: usize = 180;
/// Fewer values for each bin than this are sorted: of those that are sorted in the cache, and of others.
const SPARSE: (f64, f64) = (2.75, 1.4);
/// Fewer values than the first are always sorted; up to the second they are in the cache.
const SMALLER: (usize, usize) = (11 << 10, 26 << 10);
/// Fewer values than this are sorted where the optimum itself is wanted.
const SMALL: usize = 1 << 14;
/// Bins for each cluster whose moments prove that an answer is near enough: what they leave open goes with their inverse square.
const PER_CLUSTER: usize = 400;
/// The same for all clusters together: few clusters leave more open than that rule says.
const FEWEST: usize = 1 << 11;
/// Bins per square of the clusters for a gap that is near enough.
const FINE: usize = 14;
/// More bins than this are never made.
const MOST: usize = 1 << 21;
/// Values summed up by one task.
const CHUNK: usize = 1 << 17;
/// Rounding errors up to this part of the cost are left in it.
const CLEAR: f64 = 1e-11;
/// No split of a cluster of an optimum gains more than this many times λ.
const LIMIT: f64 = 1.25;
/// Room for rounding in the bounds.
const ROOM: f64 = 1.0 + 1e-9;

/// How far to go for 32-bit values; 16-bit values are always clustered exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Within a proven distance of the optimum, at most 1e-4 of its cost and reported as [`Clusters::gap`]. What is not proven is
    /// mostly some 1e-6.
    Refined,
    /// The optimum itself.
    Exact,
}

/// Group of values to be clustered.
pub(crate) struct Group<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) weights: Weights<'a>,
    pub(crate) range: (f32, f32),
    pub(crate) finite: bool,
    pub(crate) precision: Precision,
    pub(crate) stop: Stop<'a>,
}

/// Clusters, or `None` if sorting all values is no slower, or nobody waits for them any longer.
pub(crate) fn cluster(group: &Group<'_>, k: usize) -> Option<Clusters> {
    let mut bins = Bins::new(
        group.values,
        group.range,
        target(group.values.len(), k, group.precision)?,
    );
    let mut coarse = Coarse::new(
        &bins.moments(group.values, group.weights, group.finite),
        group.stop,
    );
    if coarse.points.len() < 8 * k {
        return None;
    }
    let anchor = f64::from(bins.anchor);
    if k == 1 {
        let whole = coarse.partition(&PrefixSums::new(&coarse.points), k, None);
        return Some(finished(group, whole.clusters(), anchor, &coarse, 0.0));
    }
    let (low, high) = group.range;
    let ends = (f64::from(low) - anchor, f64::from(high) - anchor);
    let mut limit = None;
    let mut lambda = None;
    if group.precision == Precision::Refined
        && let Some((clusters, gap)) = near::near(&mut coarse, k, ends)
    {
        return Some(finished(group, clusters, anchor, &coarse, gap));
    }
    loop {
        let prefix = PrefixSums::new(&coarse.points);
        let (answer, start) = match lambda {
            Some(lambda) => (None, lambda),
            // A better upper bound leaves less to resolve. That is worth a search where clusters are many.
            None if k >= MANY_CLUSTERS => {
                let answer = coarse.partition(&prefix, k, None);
                let lambda = answer.lambda;
                (Some(answer), lambda)
            }
            None => (None, lagrangian::initial(&coarse.points, &prefix, k).0),
        };
        let limit = *limit.get_or_insert_with(|| {
            coarse.bound(&prefix, k, ends, LIMIT * start);
            LIMIT * start
        });
        let bounds = Bounds::new(&coarse, prefix, k, start, answer);
        lambda = Some(bounds.rough.lambda);
        // The bound on distances presumed that no split gains more than the limit.
        if bounds.lower <= 0.0 || bounds.rough.lambda + (bounds.upper - bounds.lower) > limit {
            return None;
        }
        let gap = ((bounds.upper - bounds.lower) / bounds.lower).max(0.0);
        if group.precision == Precision::Refined && gap <= NEAR {
            let rough = bounds.rough.clusters();
            return Some(finished(group, rough, anchor, &coarse, gap));
        }
        let open = bounds.open(&coarse, k);
        if group.stop.requested() {
            return None;
        }
        let number: f64 = open.bins(&coarse).map(|bin| f64::from(bin.number)).sum();
        if number > MANY * group.values.len() as f64 {
            return None;
        }
        let parts = match group.precision {
            Precision::Refined => ((gap / AIM).sqrt().ceil() as usize).clamp(2, PARTS),
            Precision::Exact => PARTS,
        };
        let crowded = number > (open.bins(&coarse).count() * parts) as f64 * CROWD;
        if !bins.is_split() && crowded {
            coarse = split(group, &mut bins, &coarse, &open, parts);
        } else {
            coarse = resolved(group, &bins, &coarse, &open);
            let found = coarse.partition(&PrefixSums::new(&coarse.points), k, lambda);
            return Some(finished(group, found.clusters(), anchor, &coarse, 0.0));
        }
    }
}

/// How many bins to begin with for so many values; `None` where sorting all is quicker.
fn target(len: usize, k: usize, precision: Precision) -> Option<usize> {
    if precision == Precision::Refined {
        let target = (PER_CLUSTER * k).max(FEWEST);
        let times = |values: f64| (target as f64 * values) as usize;
        let fewest = times(SPARSE.0).clamp(SMALLER.0, SMALLER.1);
        return (len >= fewest.max(times(SPARSE.1))).then_some(target);
    }
    if len < SMALL {
        return None;
    }
    // About 1.5 k² bins stay open, however many there are. Where that is most of them, begin with as many as will do.
    let fine = (FINE * k * k).min(MOST);
    let target = if k > MIDDLE && len > 4 * fine {
        fine
    } else {
        let most = if k <= MANY_CLUSTERS { 1 << 16 } else { 1 << 17 };
        (64 * k * k).clamp(1 << 13, most).min(len / 8)
    };
    (k * k <= target || len >= LARGE).then_some(target)
}

/// The open bins split into so many parts each, and their values counted again.
fn split<'s>(
    group: &Group<'_>,
    bins: &mut Bins,
    coarse: &Coarse<'s>,
    open: &Open,
    parts: usize,
) -> Coarse<'s> {
    bins.split(open.bins(coarse).map(|bin| bin.id), parts);
    let moments = bins.moments(group.values, group.weights, group.finite);
    let mut next = 0;
    coarse.refined(open, |coarse, bin| {
        coarse.open(&moments[next..next + parts], next, bin.distance);
        next += parts;
    })
}

/// The open bins replaced by their values, sorted.
fn resolved<'s>(group: &Group<'_>, bins: &Bins, coarse: &Coarse<'s>, open: &Open) -> Coarse<'s> {
    let ids = open.bins(coarse).map(|bin| bin.id);
    let sorted = bins.gather(group.values, group.weights, ids);
    let mut rest = &sorted[..];
    coarse.refined(open, |coarse, bin| {
        let (here, after) = rest.split_at((bin.number as usize).min(rest.len()));
        rest = after;
        for equal in here.chunk_by(|a, b| a.0 == b.0) {
            let x = f64::from(unkey(equal[0].0)) - f64::from(bins.anchor);
            coarse.value(x, equal.iter().map(|pair| f64::from(pair.1)).sum());
        }
    })
}

/// What is known of the optimum.
struct Bounds<'s> {
    /// An answer that cuts no bin.
    rough: Partition,
    /// Its cost.
    upper: f64,
    /// What no answer costs less than.
    lower: f64,
    rounding: f64,
    /// The borders with their discounts, and the path from the first of them.
    prefix: PrefixSums<'s>,
    forward: LeastWeightPath,
}

impl<'s> Bounds<'s> {
    /// From a λ to begin with, and an answer that cuts no bin, if there is one.
    fn new(
        coarse: &Coarse<'_>,
        whole: PrefixSums<'s>,
        k: usize,
        lambda: f64,
        answer: Option<Partition>,
    ) -> Self {
        let thin = (coarse.borders.len() <= whole.len()).then(|| whole.at_borders(&coarse.borders));
        let (mut prefix, whole) = match thin {
            Some(thin) => (thin, Some(whole)),
            None => (whole, None),
        };
        let mut forward = LeastWeightPath::default();
        prefix.set_discount(coarse.discount(lambda));
        forward.find(&prefix, lambda);
        let rough = answer.unwrap_or_else(|| {
            let mut borders = forward.borders(prefix.len());
            if borders.len() == k + 1 {
                for border in &mut borders {
                    *border = coarse.borders[*border as usize];
                }
                return Partition::new(&coarse.points, borders, lambda);
            }
            prefix.discount.clear();
            let rough = coarse.partition(whole.as_ref().unwrap_or(&prefix), k, Some(lambda));
            prefix.set_discount(coarse.discount(rough.lambda));
            forward.find(&prefix, rough.lambda);
            rough
        });
        let spread = coarse.spread();
        let rounding = 16.0 * f64::EPSILON * prefix.sum_of_squares();
        Bounds {
            upper: spread + rough.cost(),
            lower: spread + forward.best[prefix.len()] - rough.lambda * k as f64 - rounding,
            rough,
            rounding,
            prefix,
            forward,
        }
    }

    /// What an optimum may have: borders, or borders in a bin next to them, which it cuts.
    fn open(&self, coarse: &Coarse<'_>, k: usize) -> Open {
        let m = self.prefix.len();
        let mut backward = LeastWeightPath::default();
        backward.find(&self.prefix.mirrored(), self.rough.lambda);
        let rest = coarse.spread() - self.rough.lambda * k as f64 - 2.0 * self.rounding;
        let mut open = Open::none(coarse);
        for (b, &at) in coarse.borders.iter().enumerate() {
            let path = self.forward.best[b] + backward.best[m - b] + self.prefix.discount[b];
            if rest + path <= self.upper * ROOM {
                open.border(coarse, at as usize);
            }
        }
        open
    }
}

/// Back from positions relative to the anchor, with the spread inside bins.
fn finished(
    group: &Group<'_>,
    mut clusters: Clusters,
    anchor: f64,
    coarse: &Coarse<'_>,
    gap: f64,
) -> Clusters {
    clusters.centroids.iter_mut().for_each(|c| *c += anchor);
    clusters.cost += coarse.spread();
    clusters.gap += gap;
    if coarse.rounding > CLEAR * clusters.cost {
        clusters.cost = cost(group, &clusters.centroids);
    }
    clusters
}

/// Cost from scratch.
fn cost(group: &Group<'_>, centroids: &[f64]) -> f64 {
    let borders: Vec<f64> = centroids
        .windows(2)
        .map(|pair| f64::midpoint(pair[0], pair[1]))
        .collect();
    let part = |c: usize, chunk: &[f32]| {
        let mut sum = 0.0;
        group.weights.each(c * CHUNK, chunk.len(), |i, w| {
            let x = f64::from(chunk[i]);
            if x.is_finite() {
                let d = x - centroids[borders.partition_point(|&border| x > border)];
                sum += w * (d * d);
            }
        });
        sum
    };
    let parts: Vec<f64> = group
        .values
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(c, chunk)| part(c, chunk))
        .collect();
    parts.iter().sum()
}
