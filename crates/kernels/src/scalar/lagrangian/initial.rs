//! A λ to begin the search with, from the density of the values; and a partition that is about as good as one can be without a look at
//! all borders.
//!
//! Source: Panter and Dite 1951: an optimal quantizer of many levels puts them in proportion to the integral of density^(1/3).

use super::search::{Found, search};
use crate::scalar::points::Points;
use crate::scalar::prefix_sums::PrefixSums;

/// What to add to a count in the formula of Panter and Dite, which is exact for many clusters only: nothing would suit
/// uniform values, and 0.85 normal ones.
const SHIFT: f64 = 0.45;
/// Borders per cluster in a selection that λ is looked for in.
const ROUGH: usize = 10;
/// The same where λ is known roughly.
const FINE: usize = 40;
/// Places for each border in one search among those near it.
const CHOICES: u32 = 16;
/// Searches among places next to each other at most.
const ROUNDS: usize = 6;
/// Borders of a selection at least.
const NODES: usize = 400;
/// Shares of a run that may be those of an outlier.
const LONG: f64 = 4.0;
/// Times that what outliers count is capped at most.
const CAPS: usize = 12;
/// From so many clusters on, the range of λ that buys them is easily missed.
pub(crate) const MANY_CLUSTERS: usize = 64;

/// A λ to begin with: that of a selection of the borders, for which a guess will do; and the partition that it buys there, if there is
/// one.
pub(crate) fn initial(
    points: &Points<'_>,
    prefix: &PrefixSums<'_>,
    k: usize,
) -> (f64, Option<Vec<u32>>) {
    let m = points.len();
    let few = (ROUGH * k).min((m / 8).max(4 * k));
    let (mut selection, integral) = select_borders(points, prefix, few.min(m));
    let mut lambda = guess(integral, k);
    if few > m / 3 {
        return (lambda, None);
    }
    let Some((rough, mut found)) = at_selection(prefix, &selection, k, lambda) else {
        return (lambda, None);
    };
    lambda = rough;
    // The range of λ that buys k clusters is the narrower the more they are; few are seldom missed.
    if k >= MANY_CLUSTERS && FINE * k <= m / 3 {
        let (finer, _) = select_borders(points, prefix, FINE * k);
        if let Some(better) = at_selection(prefix, &finer, k, rough) {
            (lambda, found) = better;
            selection = finer;
        }
    }
    let borders = found.borders.iter().map(|&at| selection[at as usize]);
    (lambda, Some(borders.collect()))
}

/// A λ that buys `k` clusters, or nearly so, and a partition whose borders are the best within some distance: a search among few
/// borders, and then among ever more of those near the ones found. `None` for few points.
pub(crate) fn near_optimum(
    points: &Points<'_>,
    prefix: &PrefixSums<'_>,
    k: usize,
) -> Option<(f64, Vec<u32>)> {
    let nodes = (FINE * k).max(NODES);
    if nodes > points.len() / 3 {
        return None;
    }
    let mut start = None;
    if ROUGH * k >= NODES {
        let (selection, integral) = select_borders(points, prefix, ROUGH * k);
        start = at_selection(prefix, &selection, k, guess(integral, k)).map(|found| found.0);
    }
    let (selection, integral) = select_borders(points, prefix, nodes);
    let start = start.unwrap_or_else(|| guess(integral, k));
    let (lambda, found) = at_selection(prefix, &selection, k, start)?;
    let neighbour = |border: u32, to: isize| {
        let at = (border as usize).saturating_add_signed(to);
        selection[at.min(selection.len() - 1)]
    };
    let windows = found
        .borders
        .iter()
        .map(|&border| (neighbour(border, -1), neighbour(border, 1)));
    let mut windows: Vec<(u32, u32)> = windows.collect();
    let end = points.len() as u32;
    let mut rounds = 0;
    loop {
        let near = Near::new(&windows);
        if near.places.len() <= k {
            return None;
        }
        let found = search(&prefix.at_borders(&near.places), k, lambda);
        let best = || found.borders.iter().map(|&at| at as usize);
        if best().all(|at| near.steps[at] == 1) {
            rounds += 1;
            let inner = best().filter(|&at| at > 0 && at + 1 < near.places.len());
            if rounds == ROUNDS || inner.clone().all(|at| near.is_inside(at)) {
                return Some((lambda, best().map(|at| near.places[at]).collect()));
            }
        }
        windows = best()
            .map(|at| {
                let (place, reach) = (near.places[at], (near.steps[at] - 1).max(CHOICES / 2));
                (place.saturating_sub(reach), (place + reach).min(end))
            })
            .collect();
    }
}

/// Places around some borders, and how far each is from the next.
struct Near {
    places: Vec<u32>,
    steps: Vec<u32>,
}

impl Near {
    /// Some places in each window, of which the first and the last are the ends of everything.
    fn new(windows: &[(u32, u32)]) -> Self {
        let mut near = Near {
            places: vec![0],
            steps: vec![1],
        };
        for &(first, last) in windows {
            let step = (last - first).div_ceil(CHOICES).max(1);
            let places = (first..last).step_by(step as usize).chain([last]);
            for place in places {
                if place > near.places[near.places.len() - 1] {
                    near.places.push(place);
                    near.steps.push(step);
                }
            }
        }
        near
    }

    /// Whether the places next to one are there, too.
    fn is_inside(&self, at: usize) -> bool {
        self.places[at + 1] - self.places[at - 1] == 2
    }
}

/// λ from the density.
fn guess(integral: f64, k: usize) -> f64 {
    integral.powi(3) / (6.0 * (k as f64 + SHIFT).powi(3))
}

/// The middle of the λ that buy `k` clusters at a selection of the borders, and what they buy there. `None` if it has few borders,
/// however many were asked for: with all of the density in a few values, all others share one interval.
fn at_selection(
    prefix: &PrefixSums<'_>,
    selection: &[u32],
    k: usize,
    start: f64,
) -> Option<(f64, Found)> {
    if selection.len() <= 2 * k {
        return None;
    }
    let thin = prefix.at_borders(selection);
    let found = search(&thin, k, start);
    Some((found.middle.unwrap_or(found.lambda), found))
}

/// About `nodes` borders between which an optimal quantizer would put equally many centroids, first and last
/// included, and Σ weight^(1/3) width^(2/3) over the intervals between them.
fn select_borders(points: &Points<'_>, prefix: &PrefixSums<'_>, nodes: usize) -> (Vec<u32>, f64) {
    let m = points.len();
    let step = (m / (2 * nodes).max(1)).clamp(1, 1 << 16);
    let part = |lo: usize, hi: usize| {
        let width = points.x[hi.min(m - 1)] - points.x[lo];
        cube_root((prefix.w[hi] - prefix.w[lo]) * width * width)
    };
    let runs = || (0..m).step_by(step).map(|lo| (lo, (lo + step).min(m)));
    let parts: Vec<f64> = runs().map(|(lo, hi)| part(lo, hi)).collect();
    let mut total: f64 = parts.iter().sum();
    let mut share = total / nodes as f64;
    // The way to the next point takes one border, however long it is: outliers would get all.
    for _ in 0..CAPS {
        let capped = |((lo, hi), whole): ((usize, usize), &f64)| match *whole > LONG * share {
            true => (lo..hi).map(|at| part(at, at + 1).min(share)).sum(),
            false => *whole,
        };
        let capped: f64 = runs().zip(&parts).map(capped).sum();
        if capped >= 0.9 * total {
            break;
        }
        (total, share) = (capped, capped / nodes as f64);
    }
    let mut borders = vec![0];
    let (mut sum, mut next) = (0.0, share);
    let mut add = |end: usize, part: f64| {
        sum += part.min(share);
        if sum >= next || end == m {
            borders.push(end as u32);
            next = sum + share * 0.75;
        }
    };
    for ((lo, hi), whole) in runs().zip(parts) {
        // In the tails a run of points may be worth many clusters: there each point is a run.
        if whole > share {
            (lo..hi).for_each(|at| add(at + 1, part(at, at + 1)));
        } else {
            add(hi, whole);
        }
    }
    (borders, total)
}

/// Cube root of a number that is not negative, to within a hundredth.
pub(crate) fn cube_root(x: f64) -> f64 {
    if x < f64::MIN_POSITIVE {
        return 0.0;
    }
    // A third of the exponent, and then a step of Newton.
    let y = f64::from_bits(x.to_bits() / 3 + 0x2a9f_7893_0000_0000);
    (y + y + x / (y * y)) / 3.0
}
