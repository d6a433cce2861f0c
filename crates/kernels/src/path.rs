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

use crate::line::Line;
use crate::simd::dispatch;

/// Rows settled side by side, and columns scanned side by side.
const LANES: usize = 8;

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
    let m = line.len();
    path.reset(m);
    if m > 0 {
        settle(line, price, &mut path.best, &mut path.from);
    }
}

/// The same with the cost of a run given by a function; slower, for costs that need more digits than [`Line`] has,
/// and the plain twin of [`cheapest`].
pub(crate) fn cheapest_by(m: usize, cost: impl Fn(usize, usize) -> f64, price: f64, path: &mut Path) {
    path.reset(m);
    if m == 0 {
        return;
    }
    let mut stack = vec![(0, m, false)];
    let Path { best, from } = path;
    let offer = |best: &mut [f64], from: &mut [u32], lo: usize, hi: usize, row: usize| {
        for i in lo..hi {
            let total = best[i] + (cost(i, row) + price);
            if total < best[row] {
                best[row] = total;
                from[row] = i as u32;
            }
        }
    };
    offer(best, from, 0, 1, m);
    while let Some((lo, hi, left_done)) = stack.pop() {
        if hi - lo <= 1 {
            continue;
        }
        let mid = lo + (hi - lo) / 2;
        if left_done {
            if best[lo + 1] + price < best[hi] {
                offer(best, from, lo + 1, mid + 1, hi);
            }
            stack.push((mid, hi, false));
        } else {
            let (left, right) = (from[lo] as usize, from[hi] as usize + 1);
            offer(best, from, left, right, mid);
            stack.push((lo, hi, true));
            stack.push((lo, mid, false));
        }
    }
}

dispatch! {
    fn settle(line: &Line, price: f64, best: &mut [f64], from: &mut [u32]) = settle_body
}

#[inline(always)]
fn settle_body(line: &Line, price: f64, best: &mut [f64], from: &mut [u32]) {
    // Without credits the least cost rises along the line. With them it may fall by the largest of them, if that is
    // less than the price, and one more is taken off on arrival.
    let most = line.credit.iter().fold(0.0_f64, |most, &c| if c > most { c } else { most });
    let margin = if most <= price { 2.0 * most } else { f64::INFINITY };
    let columns = Columns { w: &line.w, s1: &line.s1, s2: &line.s2, credit: &line.credit, price, margin };
    let m = line.len();
    offer(&columns, best, from, 0, 1, m);
    // (lo, hi, left half done): row lo is settled, row hi knows the columns up to lo.
    let mut stack = vec![(0, m, false)];
    while let Some((lo, hi, left_done)) = stack.pop() {
        if hi - lo <= LANES + 1 {
            leaf(&columns, best, from, lo, hi);
            continue;
        }
        let mid = lo + (hi - lo).div_ceil(2 * (LANES + 1)) * (LANES + 1);
        if left_done {
            if best[lo + 1] + price - margin < best[hi] {
                offer(&columns, best, from, lo + 1, mid + 1, hi);
            }
            stack.push((mid, hi, false));
        } else {
            let (left, right) = (from[lo] as usize, from[hi] as usize + 1);
            offer(&columns, best, from, left, right, mid);
            stack.push((lo, hi, true));
            stack.push((lo, mid, false));
        }
    }
}

/// The prefix sums, padded by [`LANES`] entries.
struct Columns<'a> {
    w: &'a [f64],
    s1: &'a [f64],
    s2: &'a [f64],
    credit: &'a [f64],
    price: f64,
    /// How much less than the price plus the cost so far a new column can cost.
    margin: f64,
}

#[inline(always)]
fn lanes(values: &[f64], at: usize) -> [f64; LANES] {
    let mut out = [0.0; LANES];
    out.copy_from_slice(&values[at..at + LANES]);
    out
}

#[inline(always)]
fn positive(x: f64) -> f64 {
    if x > 0.0 { x } else { 0.0 }
}

/// Offers the columns `lo..hi` to one row, [`LANES`] at a time.
#[inline(always)]
fn offer(columns: &Columns<'_>, best: &mut [f64], from: &mut [u32], lo: usize, hi: usize, row: usize) {
    let (w, s1, s2) = (columns.w[row], columns.s1[row], columns.s2[row]);
    let toll = columns.price - columns.credit.get(row).copied().unwrap_or(0.0);
    let mut least = [f64::INFINITY; LANES];
    let mut which = [0.0_f64; LANES];
    let mut at = lo;
    while at < hi {
        let (cw, c1, c2, cb) = (lanes(columns.w, at), lanes(columns.s1, at), lanes(columns.s2, at), lanes(best, at));
        let (base, left) = (at as f64, (hi - at) as f64);
        for l in 0..LANES {
            let d1 = s1 - c1[l];
            let cost = positive((s2 - c2[l]) - d1 * d1 / (w - cw[l]));
            let total = cb[l] + (cost + toll);
            let better = (total < least[l]) & ((l as f64) < left);
            least[l] = if better { total } else { least[l] };
            which[l] = if better { base + l as f64 } else { which[l] };
        }
        at += LANES;
    }
    let (mut low, mut arg) = (best[row], f64::from(from[row]));
    let mut improved = false;
    for l in 0..LANES {
        let better = least[l] < low || (improved && least[l] == low && which[l] < arg);
        if better {
            (low, arg, improved) = (least[l], which[l], true);
        }
    }
    best[row] = low;
    from[row] = arg as u32;
}

/// Settles the at most [`LANES`] rows between `lo` and `hi`, side by side, and offers their columns to row `hi`.
#[inline(always)]
fn leaf(columns: &Columns<'_>, best: &mut [f64], from: &mut [u32], lo: usize, hi: usize) {
    let rows = hi - lo - 1;
    if rows == 0 {
        return;
    }
    let first = lo + 1;
    let (w, s1, s2) = (lanes(columns.w, first), lanes(columns.s1, first), lanes(columns.s2, first));
    let mut toll = [columns.price; LANES];
    if !columns.credit.is_empty() {
        for (toll, credit) in toll.iter_mut().zip(lanes(columns.credit, first)) {
            *toll -= credit;
        }
    }
    let mut least = [f64::INFINITY; LANES];
    let mut which = [0.0_f64; LANES];
    let (left, right) = (from[lo] as usize, from[hi] as usize + 1);
    let sums = columns.w[left..right].iter().zip(&columns.s1[left..right]).zip(&columns.s2[left..right]);
    for ((((&cw, &c1), &c2), &cb), at) in sums.zip(&best[left..right]).zip(left..) {
        let index = at as f64;
        for l in 0..LANES {
            let d1 = s1[l] - c1;
            let cost = positive((s2[l] - c2) - d1 * d1 / (w[l] - cw));
            let total = cb + (cost + toll[l]);
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
        if best[first] + columns.price - columns.margin < best[row] {
            offer(columns, best, from, first, row, row);
        }
    }
}
