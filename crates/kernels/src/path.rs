//! The cheapest path from the first border to the last, when each cluster costs its spread plus a price.
//!
//! With `F[j]` the least cost of everything before border `j`, `F[j] = min over i < j of F[i] + cost(i, j) + price`.
//! The costs of runs form a Monge matrix, so the best `i` never moves back as `j` grows, and the minima of all rows
//! are found by divide and conquer over the rows, each row scanning only the columns between the answers of its
//! neighbours. That the columns themselves are still being computed is dealt with by settling the left half
//! before its columns are offered to the right half.
//!
//! Cost: O(n log n) evaluations in contiguous scans, about 10 ns a point; O(n) memory.
//! Wrong choice: when there are hardly more points than clusters; the caller deals with `points <= clusters`.
//! Source: Larmore and Schieber 1991, in the simplified form of noshi91 (2023).
//! Our deviations: (1) a scan of new columns is skipped when even a cluster of no cost could not win, which for runs
//! shorter than a cluster is always; in a long scan, blocks of columns are skipped likewise. (2) The last three
//! levels are replaced by eight rows side by side, one in each lane. (3) The recursion is a loop with a stack, so that all of it is compiled for one instruction set.
//! (4) Nodes may carry a credit, taken off the cost of every path through them; that leaves the matrix Monge.

use crate::buffer::Buffer;
#[cfg(target_arch = "x86_64")]
use crate::lanes::Wide;
use crate::lanes::{LANES, Lanes, Plain, warm};
use crate::line::{Line, Runs};
use crate::precise::PreciseLine;
use crate::simd::dispatch;

/// Scratch of [`cheapest`], kept between prices.
#[derive(Debug, Default)]
pub(crate) struct Path {
    /// Least cost up to each border.
    pub(crate) best: Buffer,
    from: Vec<u32>,
}

impl Path {
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

/// Fills `path` with the cheapest path at this price.
pub(crate) fn cheapest(line: &Line, price: f64, path: &mut Path) {
    path.reset(line.len());
    if line.len() > 0 {
        settle(line, &line.credit, price, &mut path.best, &mut path.from);
    }
}

/// The same with twice the digits, and no credits.
pub(crate) fn cheapest_precise(line: &PreciseLine, price: f64, path: &mut Path) {
    path.reset(line.len());
    if line.len() > 0 {
        settle_precise(line, &[], price, &mut path.best, &mut path.from);
    }
}

dispatch! {
    fn settle(runs: &Line, credit: &[f64], price: f64, best: &mut [f64], from: &mut [u32])
        = settle_body::<Plain, Line>, settle_body::<Wide, Line>
}

dispatch! {
    fn settle_precise(runs: &PreciseLine, credit: &[f64], price: f64, best: &mut [f64], from: &mut [u32])
        = settle_body::<Plain, PreciseLine>, settle_body::<Wide, PreciseLine>
}

#[inline(always)]
fn settle_body<V: Lanes, R: Runs>(
    runs: &R,
    credit: &[f64],
    price: f64,
    best: &mut [f64],
    from: &mut [u32],
) {
    // Without credits the least cost rises along the line. With them it may fall by the largest of them, if that is
    // less than the price, and one more is taken off on arrival.
    let most = credit
        .iter()
        .fold(0.0_f64, |most, &c| if c > most { c } else { most });
    let margin = if most <= price {
        2.0 * most
    } else {
        f64::INFINITY
    };
    let tolls = Tolls {
        price,
        credit,
        margin,
    };
    let m = runs.len();
    offer::<V, R>(runs, &tolls, best, from, 0, 1, m);
    // (lo, hi, left half done): row lo is settled, row hi knows the columns up to lo.
    let mut stack = vec![(0, m, false)];
    while let Some((lo, hi, left_done)) = stack.pop() {
        if hi - lo <= LANES + 1 {
            leaf::<V, R>(runs, &tolls, best, from, lo, hi);
            continue;
        }
        let mid = lo + (hi - lo).div_ceil(2 * (LANES + 1)) * (LANES + 1);
        if left_done {
            if best[lo + 1] + price - margin < best[hi] {
                offer::<V, R>(runs, &tolls, best, from, lo + 1, mid + 1, hi);
            }
            stack.push((mid, hi, false));
        } else {
            if hi - lo <= NEAR && hi - lo > NEAR / 2 {
                runs.warm(lo, hi);
                warm(best, lo, hi);
            }
            let (left, right) = window(from, lo, hi);
            offer::<V, R>(runs, &tolls, best, from, left, right, mid);
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
struct Tolls<'a> {
    price: f64,
    credit: &'a [f64],
    /// How much less than the price plus the cost so far a new column can cost.
    margin: f64,
}

/// Offers the columns `lo..hi` to one row.
#[inline(always)]
fn offer<V: Lanes, R: Runs>(
    runs: &R,
    tolls: &Tolls<'_>,
    best: &mut [f64],
    from: &mut [u32],
    lo: usize,
    hi: usize,
    row: usize,
) {
    let to = runs.at::<V>(row);
    let toll = tolls.price - tolls.credit.get(row).copied().unwrap_or(0.0);
    let mut least = Least::<V>::new();
    if hi - lo < WIDE {
        least.scan(runs, best, lo, hi, &to, toll);
    } else {
        // The answer is likely in the middle; what is found there rules most blocks out.
        let middle = lo + (hi - lo - BLOCK) / 2;
        least.scan(runs, best, middle, middle + BLOCK, &to, toll);
        let mut bar = least.reduce().0;
        // Costs rise with the length of a run, and the least cost along the line, but for the margin.
        let bound = |at: usize, end: usize| {
            ((best[at] - tolls.margin) + (runs.cost(end - 1, row) + toll)) * SURE
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
                    least.scan(runs, best, at, end, &to, toll);
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

impl<V: Lanes> Least<V> {
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
    fn scan<R: Runs>(
        &mut self,
        runs: &R,
        best: &[f64],
        lo: usize,
        hi: usize,
        to: &R::Sums<V>,
        toll: f64,
    ) {
        let (toll, step) = (V::splat(toll), V::splat(LANES as f64));
        let mut column = V::count(lo as f64);
        let mut at = lo;
        while at + LANES <= hi {
            let costs = R::costs(&runs.from::<V>(at), to);
            self.see(V::load(best, at) + (costs + toll), column);
            column = column + step;
            at += LANES;
        }
        if at < hi {
            let costs = R::costs(&runs.from::<V>(at), to);
            let total = V::load(best, at) + (costs + toll);
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
fn leaf<V: Lanes, R: Runs>(
    runs: &R,
    tolls: &Tolls<'_>,
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
    let to = runs.from::<V>(first);
    let mut toll = V::splat(tolls.price);
    if !tolls.credit.is_empty() {
        toll = toll - V::load(tolls.credit, first);
    }
    let mut least = Least::<V>::new();
    let (left, right) = window(from, lo, hi);
    let mut column = V::splat(left as f64);
    let one = V::splat(1.0);
    for (&before, at) in best[left..right].iter().zip(left..) {
        let costs = R::costs(&runs.at::<V>(at), &to);
        least.see(V::splat(before) + (costs + toll), column);
        column = column + one;
    }
    let (cost, column) = (least.cost.array(), least.column.array());
    for l in 0..rows {
        best[first + l] = cost[l];
        from[first + l] = column[l] as u32;
    }
    // Columns inside the leaf matter only where clusters are about as short as the leaf.
    if best[first] + tolls.price - 2.0 * tolls.margin >= best[hi] {
        return;
    }
    for row in first + 1..=hi {
        if best[first] + tolls.price - tolls.margin < best[row] {
            offer::<V, R>(runs, tolls, best, from, first, row, row);
        }
    }
}
