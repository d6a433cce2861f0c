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

use super::prefix_sums::IntervalCosts;
use crate::buffer::Buffer;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx2::Avx2;
use crate::simd::dispatch;
use crate::simd::f64x8::{F64x8, LANES, prefetch};
use crate::simd::portable::Portable;

/// Rows that are fetched from memory together: halving a longer line again and again means a cache miss for each row.
const NEAR: usize = 1024;
/// Rows that are solved level by level where their own columns do not matter.
const TOGETHER: usize = 16 * (LANES + 1);
/// Columns that are ruled out together.
const BLOCK: usize = 32;
/// Whether to stop is asked for lines longer than this.
const OFTEN: usize = 1 << 14;
/// Fewer columns than this are looked at one by one.
const FEW: usize = 256;
/// Room for rounding in a bound.
const SURE: f64 = 1.0 - 1e-12;

/// The least-weight paths to all borders, kept from one λ to the next.
#[derive(Debug, Default)]
pub(crate) struct LeastWeightPath {
    /// Least cost up to each border.
    pub(crate) best: Buffer,
    from: Vec<u32>,
}

impl LeastWeightPath {
    /// Finds the paths at this λ; none, if it is stopped.
    pub(crate) fn find<R: IntervalCosts>(&mut self, intervals: &R, lambda: f64) {
        let len = intervals.len() + 1 + LANES;
        self.best.clear();
        self.best.resize(len, f64::INFINITY);
        self.from.clear();
        self.from.resize(len, 0);
        self.best[0] = 0.0;
        if intervals.len() > 0 {
            solve(intervals, lambda, &mut self.best, &mut self.from);
        }
        if intervals.stopped() {
            self.from.fill(0);
        }
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

dispatch! {
    fn solve<R: IntervalCosts>(intervals: &R, lambda: f64, best: &mut [f64], from: &mut [u32])
        = solve_body::<Portable, R>, solve_body::<Avx2, R>
}

#[inline(always)]
fn solve_body<V: F64x8, R: IntervalCosts>(
    intervals: &R,
    lambda: f64,
    best: &mut [f64],
    from: &mut [u32],
) {
    // Without discounts the least cost rises along the line. With them it may fall by the largest of them, if that is
    // less than λ, and one more is taken off on arrival.
    let discount = intervals.discount();
    let larger = |most, &c| if c > most { c } else { most };
    let most = discount.iter().fold(0.0_f64, larger);
    let graph = Graph {
        intervals,
        lambda,
        discount,
        margin: if most <= lambda {
            2.0 * most
        } else {
            f64::INFINITY
        },
    };
    let m = intervals.len();
    graph.offer::<V>(best, from, (0, 1), m);
    // (lo, hi, left half done): row lo is solved, row hi knows the columns up to lo.
    let mut stack = vec![(0, m, false)];
    while let Some((lo, hi, left_done)) = stack.pop() {
        if hi - lo <= LANES + 1 {
            graph.leaf::<V>(best, from, lo, hi);
            continue;
        }
        if hi - lo <= TOGETHER && !left_done && graph.are_apart(best, lo, hi) {
            graph.together::<V>(best, from, lo, hi);
            continue;
        }
        if hi - lo > OFTEN && intervals.stopped() {
            return;
        }
        let mid = lo + (hi - lo).div_ceil(2 * (LANES + 1)) * (LANES + 1);
        if left_done {
            if best[lo + 1] + lambda - graph.margin < best[hi] {
                graph.offer::<V>(best, from, (lo + 1, mid + 1), hi);
            }
            stack.push((mid, hi, false));
        } else {
            if hi - lo <= NEAR && hi - lo > NEAR / 2 {
                intervals.prefetch(lo, hi);
                prefetch(best, lo, hi);
            }
            let columns = window(from, lo, hi);
            graph.offer::<V>(best, from, columns, mid);
            stack.push((lo, hi, true));
            stack.push((lo, mid, false));
        }
    }
}

/// Borders and the arcs between them.
struct Graph<'a, R> {
    intervals: &'a R,
    /// What each arc costs beside its interval.
    lambda: f64,
    /// What arriving at each border takes off.
    discount: &'a [f64],
    /// How much less than λ plus the cost so far a new column can cost.
    margin: f64,
}

/// Columns that a row between `lo` and `hi` scans. Rounding can reverse the two answers where costs are all but equal.
#[inline(always)]
fn window(from: &[u32], lo: usize, hi: usize) -> (usize, usize) {
    let (first, last) = (from[lo], from[hi]);
    (first as usize, last.max(first) as usize + 1)
}

impl<R: IntervalCosts> Graph<'_, R> {
    /// What no column before `end` from one on that costs `before` can cost less than: costs rise with the length of an
    /// interval, and the least cost along the line, but for the margin.
    #[inline(always)]
    fn bound(&self, before: f64, (end, row): (usize, usize), fixed: f64) -> f64 {
        ((before - self.margin) + (self.intervals.cost(end - 1, row) + fixed)) * SURE
    }

    /// Offers the columns `lo..hi` to one row.
    #[inline(always)]
    fn offer<V: F64x8>(
        &self,
        best: &mut [f64],
        from: &mut [u32],
        (lo, hi): (usize, usize),
        row: usize,
    ) {
        let intervals = self.intervals;
        let to = intervals.at::<V>(row);
        let fixed = self.lambda - self.discount.get(row).copied().unwrap_or(0.0);
        let mut least = Least::<V>::new();
        if hi - lo < FEW {
            least.scan((intervals, best), (lo, hi), &to, fixed);
        } else {
            // The answer is likely in the middle; what is found there rules most blocks out.
            let middle = lo + (hi - lo - BLOCK) / 2;
            least.scan((intervals, best), (middle, middle + BLOCK), &to, fixed);
            let mut bar = least.reduce().0;
            let long = hi - lo >= BLOCK * BLOCK;
            let size = if long { BLOCK * 8 } else { hi - lo };
            let mut start = lo;
            while start < hi {
                let stop = if start + size < hi { start + size } else { hi };
                let out = stop - start > BLOCK && self.bound(best[start], (stop, row), fixed) > bar;
                let mut at = if out { stop } else { start };
                while at < stop {
                    let end = if at + BLOCK < stop { at + BLOCK } else { stop };
                    if self.bound(best[at], (end, row), fixed) <= bar {
                        least.scan((intervals, best), (at, end), &to, fixed);
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
            from[row] = whole(column);
        }
    }

    /// Whether no column from `first` on can win in a row up to `hi`, not even a cluster of no cost.
    #[inline(always)]
    fn are_apart(&self, best: &[f64], first: usize, hi: usize) -> bool {
        best[first] + self.lambda - 2.0 * self.margin >= best[hi]
    }

    /// Solves all rows between `lo` and `hi`, whose own columns do not matter. No row of a level waits for another, so that the
    /// processor is at work on several.
    #[inline(always)]
    fn together<V: F64x8>(&self, best: &mut [f64], from: &mut [u32], lo: usize, hi: usize) {
        let leaves = (hi - lo).div_ceil(LANES + 1);
        let row = |leaf: usize| {
            if leaf < leaves {
                lo + leaf * (LANES + 1)
            } else {
                hi
            }
        };
        let mut step = leaves.next_power_of_two() / 2;
        while step > 0 {
            let mut leaf = step;
            while leaf < leaves {
                let columns = window(from, row(leaf - step), row(leaf + step));
                self.offer::<V>(best, from, columns, row(leaf));
                leaf += 2 * step;
            }
            step /= 2;
        }
        for leaf in 0..leaves {
            self.leaf::<V>(best, from, row(leaf), row(leaf + 1));
        }
    }

    /// Solves the at most [`LANES`] rows between `lo` and `hi`, side by side, and offers their columns to row `hi`.
    #[inline(always)]
    fn leaf<V: F64x8>(&self, best: &mut [f64], from: &mut [u32], lo: usize, hi: usize) {
        let (rows, first) = (hi - lo - 1, lo + 1);
        if rows == 0 {
            return;
        }
        let to = self.intervals.from::<V>(first);
        let mut fixed = V::splat(self.lambda);
        if !self.discount.is_empty() {
            fixed = fixed - V::load(self.discount, first);
        }
        let mut least = Least::<V>::new();
        let (left, right) = window(from, lo, hi);
        let mut column = V::splat(left as f64);
        let one = V::splat(1.0);
        for (&before, at) in best[left..right].iter().zip(left..) {
            let costs = R::costs(&self.intervals.at::<V>(at), &to);
            least.see(V::splat(before) + (costs + fixed), column);
            column = column + one;
        }
        let cost = least.cost.array();
        let column = least.column.array().map(whole);
        if rows == LANES {
            best[first..first + LANES].copy_from_slice(&cost);
            from[first..first + LANES].copy_from_slice(&column);
        } else {
            best[first..hi].copy_from_slice(&cost[..rows]);
            from[first..hi].copy_from_slice(&column[..rows]);
        }
        // Columns inside the leaf matter only where clusters are about as short as the leaf.
        if self.are_apart(best, first, hi) {
            return;
        }
        for row in first + 1..=hi {
            if best[first] + self.lambda - self.margin < best[row] {
                self.offer::<V>(best, from, (first, row), row);
            }
        }
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
        self.cost = cost.lesser(self.cost);
        self.column = V::pick(better, column, self.column);
    }

    /// Looks at the columns `lo..hi`, [`LANES`] at a time.
    #[inline(always)]
    fn scan<R: IntervalCosts>(
        &mut self,
        (intervals, best): (&R, &[f64]),
        (lo, hi): (usize, usize),
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
        let cost = lowest(self.cost.array());
        let dearer = V::splat(cost).less(self.cost);
        let column = V::pick(dearer, V::splat(f64::INFINITY), self.column);
        (cost, lowest(column.array()))
    }
}

/// A whole number below 2^32. A conversion would look out for others.
#[inline(always)]
fn whole(x: f64) -> u32 {
    const SHIFT: f64 = (1_u64 << 52) as f64;
    (x + SHIFT).to_bits() as u32
}

/// The lowest of the lanes.
#[inline(always)]
fn lowest(mut lanes: [f64; LANES]) -> f64 {
    for half in [4, 2, 1] {
        for l in 0..half {
            let (a, b) = (lanes[l], lanes[l + half]);
            lanes[l] = if a < b { a } else { b };
        }
    }
    lanes[0]
}
