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
//! shorter than a cluster is always. (2) The last three levels are replaced by eight rows side by side, one in each
//! lane. (3) The recursion is a loop with a stack, so that all of it is compiled for one instruction set.
//! (4) Nodes may carry a credit, taken off the cost of every path through them; that leaves the matrix Monge.

use crate::line::{LANES, Line, Runs, lanes};
use crate::precise::PreciseLine;
use crate::simd::dispatch;

/// Scratch of [`cheapest`], kept between prices.
#[derive(Debug, Default)]
pub(crate) struct Path {
    /// Least cost up to each border.
    pub(crate) best: Vec<f64>,
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
    fn settle(runs: &Line, credit: &[f64], price: f64, best: &mut [f64], from: &mut [u32]) = settle_body
}

dispatch! {
    fn settle_precise(runs: &PreciseLine, credit: &[f64], price: f64, best: &mut [f64], from: &mut [u32]) = settle_body
}

#[inline(always)]
fn settle_body<R: Runs>(runs: &R, credit: &[f64], price: f64, best: &mut [f64], from: &mut [u32]) {
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
    offer(runs, &tolls, best, from, 0, 1, m);
    // (lo, hi, left half done): row lo is settled, row hi knows the columns up to lo.
    let mut stack = vec![(0, m, false)];
    while let Some((lo, hi, left_done)) = stack.pop() {
        if hi - lo <= LANES + 1 {
            leaf(runs, &tolls, best, from, lo, hi);
            continue;
        }
        let mid = lo + (hi - lo).div_ceil(2 * (LANES + 1)) * (LANES + 1);
        if left_done {
            if best[lo + 1] + price - margin < best[hi] {
                offer(runs, &tolls, best, from, lo + 1, mid + 1, hi);
            }
            stack.push((mid, hi, false));
        } else {
            let (left, right) = window(from, lo, hi);
            offer(runs, &tolls, best, from, left, right, mid);
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

/// What a cluster costs beside its spread.
struct Tolls<'a> {
    price: f64,
    credit: &'a [f64],
    /// How much less than the price plus the cost so far a new column can cost.
    margin: f64,
}

/// Offers the columns `lo..hi` to one row, [`LANES`] at a time.
#[inline(always)]
fn offer<R: Runs>(
    runs: &R,
    tolls: &Tolls<'_>,
    best: &mut [f64],
    from: &mut [u32],
    lo: usize,
    hi: usize,
    row: usize,
) {
    let to = runs.at(row);
    let toll = tolls.price - tolls.credit.get(row).copied().unwrap_or(0.0);
    let mut least = [f64::INFINITY; LANES];
    let mut which = [0.0_f64; LANES];
    let mut at = lo;
    while at < hi {
        let costs = R::costs(&runs.from(at), &to);
        let before = lanes(best, at);
        let (base, left) = (at as f64, (hi - at) as f64);
        for l in 0..LANES {
            let total = before[l] + (costs[l] + toll);
            let better = (total < least[l]) & ((l as f64) < left);
            least[l] = if better { total } else { least[l] };
            which[l] = if better { base + l as f64 } else { which[l] };
        }
        at += LANES;
    }
    for half in [4, 2, 1] {
        for l in 0..half {
            let (other, index) = (least[l + half], which[l + half]);
            let better = (other < least[l]) | ((other == least[l]) & (index < which[l]));
            least[l] = if better { other } else { least[l] };
            which[l] = if better { index } else { which[l] };
        }
    }
    if least[0] < best[row] {
        best[row] = least[0];
        from[row] = which[0] as u32;
    }
}

/// Settles the at most [`LANES`] rows between `lo` and `hi`, side by side, and offers their columns to row `hi`.
#[inline(always)]
fn leaf<R: Runs>(
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
    let to = runs.from(first);
    let mut toll = [tolls.price; LANES];
    if !tolls.credit.is_empty() {
        for (toll, credit) in toll.iter_mut().zip(lanes(tolls.credit, first)) {
            *toll -= credit;
        }
    }
    let mut least = [f64::INFINITY; LANES];
    let mut which = [0.0_f64; LANES];
    let (left, right) = window(from, lo, hi);
    for (&before, at) in best[left..right].iter().zip(left..) {
        let costs = R::costs(&runs.at(at), &to);
        let index = at as f64;
        for l in 0..LANES {
            let total = before + (costs[l] + toll[l]);
            let better = total < least[l];
            least[l] = if better { total } else { least[l] };
            which[l] = if better { index } else { which[l] };
        }
    }
    for l in 0..rows {
        best[first + l] = least[l];
        from[first + l] = which[l] as u32;
    }
    // Columns inside the leaf matter only where clusters are about as short as the leaf.
    for row in first + 1..=hi {
        if best[first] + tolls.price - tolls.margin < best[row] {
            offer(runs, tolls, best, from, first, row, row);
        }
    }
}
