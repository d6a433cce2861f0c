//! The least-weight path from the first border to the last, when each arc (a cluster) costs its spread plus a price λ.
//!
//! With `F[j]` the least cost of everything before border `j`, `F[j] = min over i < j of F[i] + cost(i, j) + λ`.
//! The costs of intervals form a Monge matrix, so the best `i` never moves back as `j` grows, and the minima of all rows
//! are found by divide and conquer over the rows, each row scanning only the columns between the answers of its
//! neighbours. That the columns themselves are still being computed is dealt with by solving the left half
//! before its columns are offered to the right half.
//!
//! Cost: O(n log n) evaluations in contiguous scans, about 10 ns a point; O(n) memory.
//! Wrong choice: when there are hardly more points than clusters; the caller deals with `points <= clusters`.
//! Source: Larmore and Schieber 1991, in the simplified form of noshi91 (2023).
//! Our deviations: (1) a scan of new columns is skipped when even a cluster of no cost could not win, which for intervals
//! shorter than a cluster is always; in a long scan, blocks of columns are skipped likewise. (2) The last three
//! levels are replaced by eight rows side by side, one in each lane. (3) The recursion is a loop with a stack, so that all of it is compiled for one instruction set.
//! (4) Nodes may carry a discount, taken off the cost of every path through them; that leaves the matrix Monge.

use super::double_double::DoubleDoubleSums;
use super::prefix_sums::{IntervalCosts, PrefixSums};
use crate::buffer::Buffer;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx2::Avx2;
use crate::simd::dispatch;
use crate::simd::f64x8::{F64x8, LANES, prefetch};
use crate::simd::portable::Portable;

/// Scratch of [`least_weight_path`], kept from one λ to the next.
#[derive(Debug, Default)]
pub(crate) struct LeastWeightPath {
    /// Least cost up to each border.
    pub(crate) best: Buffer,
    from: Vec<u32>,
}

impl LeastWeightPath {
    fn reset(&mut self, m: usize) {
        self.best.clear();
        self.best.resize(m + 1 + LANES, f64::INFINITY);
        self.from.clear();
        self.from.resize(m + 1 + LANES, 0);
        self.best[0] = 0.0;
    }

    /// Borders of the path to the last one, both ends included.
    pub(crate) fn borders(&self, m: usize) -> Vec<u32> {
        let mut borders = vec![m as u32];
        let mut at = m;
        while at > 0 {
            at = self.from[at] as usize;
            borders.push(at as u32);
        }
        borders.reverse();
        borders
    }
}

/// Fills `path` with the least-weight path at this λ.
pub(crate) fn least_weight_path(prefix: &PrefixSums, lambda: f64, path: &mut LeastWeightPath) {
    path.reset(prefix.len());
    if prefix.len() > 0 {
        solve(
            prefix,
            &prefix.discount,
            lambda,
            &mut path.best,
            &mut path.from,
        );
    }
}

/// The same with twice the digits, and no discounts.
pub(crate) fn least_weight_path_double(
    prefix: &DoubleDoubleSums,
    lambda: f64,
    path: &mut LeastWeightPath,
) {
    path.reset(prefix.len());
    if prefix.len() > 0 {
        solve_double(prefix, &[], lambda, &mut path.best, &mut path.from);
    }
}

dispatch! {
    fn solve(intervals: &PrefixSums, discount: &[f64], lambda: f64, best: &mut [f64], from: &mut [u32])
        = solve_body::<Portable, PrefixSums>, solve_body::<Avx2, PrefixSums>
}

dispatch! {
    fn solve_double(intervals: &DoubleDoubleSums, discount: &[f64], lambda: f64, best: &mut [f64], from: &mut [u32])
        = solve_body::<Portable, DoubleDoubleSums>, solve_body::<Avx2, DoubleDoubleSums>
}

#[inline(always)]
fn solve_body<V: F64x8, R: IntervalCosts>(
    intervals: &R,
    discount: &[f64],
    lambda: f64,
    best: &mut [f64],
    from: &mut [u32],
) {
    // Without discounts the least cost rises along the line. With them it may fall by the largest of them, if that is
    // less than λ, and one more is taken off on arrival.
    let most = discount
        .iter()
        .fold(0.0_f64, |most, &c| if c > most { c } else { most });
    let margin = if most <= lambda {
        2.0 * most
    } else {
        f64::INFINITY
    };
    let arcs = ArcCosts {
        lambda,
        discount,
        margin,
    };
    let m = intervals.len();
    offer::<V, R>(intervals, &arcs, best, from, 0, 1, m);
    // (lo, hi, left half done): row lo is solved, row hi knows the columns up to lo.
    let mut stack = vec![(0, m, false)];
    while let Some((lo, hi, left_done)) = stack.pop() {
        if hi - lo <= LANES + 1 {
            leaf::<V, R>(intervals, &arcs, best, from, lo, hi);
            continue;
        }
        let mid = lo + (hi - lo).div_ceil(2 * (LANES + 1)) * (LANES + 1);
        if left_done {
            if best[lo + 1] + lambda - margin < best[hi] {
                offer::<V, R>(intervals, &arcs, best, from, lo + 1, mid + 1, hi);
            }
            stack.push((mid, hi, false));
        } else {
            if hi - lo <= NEAR && hi - lo > NEAR / 2 {
                intervals.prefetch(lo, hi);
                prefetch(best, lo, hi);
            }
            let (left, right) = window(from, lo, hi);
            offer::<V, R>(intervals, &arcs, best, from, left, right, mid);
            stack.push((lo, hi, true));
            stack.push((lo, mid, false));
        }
    }
}

/// Columns that a row between `lo` and `hi` scans. Rounding can reverse the two answers where costs are all but equal.
#[inline(always)]
fn window(from: &[u32], lo: usize, hi: usize) -> (usize, usize) {
    (from[lo] as usize, from[hi].max(from[lo]) as usize + 1)
}

/// Rows that are fetched from memory together: halving a longer line again and again means a cache miss for each row.
const NEAR: usize = 1024;
/// Columns that are ruled out together.
const BLOCK: usize = 32;
/// Fewer columns than this are looked at one by one.
const WIDE: usize = 256;
/// Room for rounding in a bound.
const SURE: f64 = 1.0 - 1e-12;

/// What a cluster costs beside its spread.
struct ArcCosts<'a> {
    lambda: f64,
    discount: &'a [f64],
    /// How much less than λ plus the cost so far a new column can cost.
    margin: f64,
}

/// Offers the columns `lo..hi` to one row.
#[inline(always)]
fn offer<V: F64x8, R: IntervalCosts>(
    intervals: &R,
    arcs: &ArcCosts<'_>,
    best: &mut [f64],
    from: &mut [u32],
    lo: usize,
    hi: usize,
    row: usize,
) {
    let to = intervals.at::<V>(row);
    let fixed = arcs.lambda - arcs.discount.get(row).copied().unwrap_or(0.0);
    let mut least = Least::<V>::new();
    if hi - lo < WIDE {
        least.scan(intervals, best, lo, hi, &to, fixed);
    } else {
        // The answer is likely in the middle; what is found there rules most blocks out.
        let middle = lo + (hi - lo - BLOCK) / 2;
        least.scan(intervals, best, middle, middle + BLOCK, &to, fixed);
        let mut bar = least.reduce().0;
        // Costs rise with the length of an interval, and the least cost along the line, but for the margin.
        let bound = |at: usize, end: usize| {
            ((best[at] - arcs.margin) + (intervals.cost(end - 1, row) + fixed)) * SURE
        };
        let size = if hi - lo < BLOCK * BLOCK {
            hi - lo
        } else {
            BLOCK * 8
        };
        let mut start = lo;
        while start < hi {
            let stop = if start + size < hi { start + size } else { hi };
            let mut at = if stop - start > BLOCK && bound(start, stop) > bar {
                stop
            } else {
                start
            };
            while at < stop {
                let end = if at + BLOCK < stop { at + BLOCK } else { stop };
                if bound(at, end) <= bar {
                    least.scan(intervals, best, at, end, &to, fixed);
                    bar = least.reduce().0;
                }
                at = end;
            }
            start = stop;
        }
    }
    let (cost, column) = least.reduce();
    if cost < best[row] {
        best[row] = cost;
        from[row] = column as u32;
    }
}

/// The least of some costs and its column, in each lane.
#[derive(Clone, Copy)]
struct Least<V> {
    cost: V,
    column: V,
}

impl<V: F64x8> Least<V> {
    #[inline(always)]
    fn new() -> Self {
        Least {
            cost: V::splat(f64::INFINITY),
            column: V::splat(0.0),
        }
    }

    #[inline(always)]
    fn see(&mut self, cost: V, column: V) {
        let better = cost.less(self.cost);
        self.cost = V::pick(better, cost, self.cost);
        self.column = V::pick(better, column, self.column);
    }

    /// Looks at the columns `lo..hi`, [`LANES`] at a time.
    #[inline(always)]
    fn scan<R: IntervalCosts>(
        &mut self,
        intervals: &R,
        best: &[f64],
        lo: usize,
        hi: usize,
        to: &R::Sums<V>,
        fixed: f64,
    ) {
        let (fixed, step) = (V::splat(fixed), V::splat(LANES as f64));
        let mut column = V::count(lo as f64);
        let mut at = lo;
        while at + LANES <= hi {
            let costs = R::costs(&intervals.from::<V>(at), to);
            self.see(V::load(best, at) + (costs + fixed), column);
            column = column + step;
            at += LANES;
        }
        if at < hi {
            let costs = R::costs(&intervals.from::<V>(at), to);
            let total = V::load(best, at) + (costs + fixed);
            let inside = column.less(V::splat(hi as f64));
            self.see(V::pick(inside, total, V::splat(f64::INFINITY)), column);
        }
    }

    /// The least of all lanes, the lowest column first.
    #[inline(always)]
    fn reduce(self) -> (f64, f64) {
        let (mut cost, mut column) = (self.cost.array(), self.column.array());
        for half in [4, 2, 1] {
            for l in 0..half {
                let (other, index) = (cost[l + half], column[l + half]);
                let better = (other < cost[l]) | ((other == cost[l]) & (index < column[l]));
                cost[l] = if better { other } else { cost[l] };
                column[l] = if better { index } else { column[l] };
            }
        }
        (cost[0], column[0])
    }
}

/// Settles the at most [`LANES`] rows between `lo` and `hi`, side by side, and offers their columns to row `hi`.
#[inline(always)]
fn leaf<V: F64x8, R: IntervalCosts>(
    intervals: &R,
    arcs: &ArcCosts<'_>,
    best: &mut [f64],
    from: &mut [u32],
    lo: usize,
    hi: usize,
) {
    let rows = hi - lo - 1;
    if rows == 0 {
        return;
    }
    let first = lo + 1;
    let to = intervals.from::<V>(first);
    let mut fixed = V::splat(arcs.lambda);
    if !arcs.discount.is_empty() {
        fixed = fixed - V::load(arcs.discount, first);
    }
    let mut least = Least::<V>::new();
    let (left, right) = window(from, lo, hi);
    let mut column = V::splat(left as f64);
    let one = V::splat(1.0);
    for (&before, at) in best[left..right].iter().zip(left..) {
        let costs = R::costs(&intervals.at::<V>(at), &to);
        least.see(V::splat(before) + (costs + fixed), column);
        column = column + one;
    }
    let (cost, column) = (least.cost.array(), least.column.array());
    for l in 0..rows {
        best[first + l] = cost[l];
        from[first + l] = column[l] as u32;
    }
    // Columns inside the leaf matter only where clusters are about as short as the leaf.
    if best[first] + arcs.lambda - 2.0 * arcs.margin >= best[hi] {
        return;
    }
    for row in first + 1..=hi {
        if best[first] + arcs.lambda - arcs.margin < best[row] {
            offer::<V, R>(intervals, arcs, best, from, first, row, row);
        }
    }
}
