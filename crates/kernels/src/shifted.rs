//! Sums of shifted copies of a row, and what belongs to their gradients: convolutions of few channels, where a product of
//! matrices would move more numbers than it multiplies.
//!
//! A shift is the place where a copy begins; each copy is as long as the row that it is added to. Several are handled at a time,
//! so that the row is read and written less often.

use crate::simd::dispatch;

/// Copies handled at a time.
const TOGETHER: usize = 4;
/// Sums of a product of rows.
const LANES: usize = 8;

/// Adds `factor * source[shift..]` to `row`, for each shift and factor.
///
/// # Panics
/// If a shifted row ends behind the source.
pub fn add_from_shifted(row: &mut [f32], source: &[f32], shifts: &[(usize, f32)]) {
    add_from(row, source, shifts);
}

dispatch! {
    fn add_from(row: &mut [f32], source: &[f32], shifts: &[(usize, f32)]) = add_from_body
}

#[inline(always)]
fn add_from_body(row: &mut [f32], source: &[f32], shifts: &[(usize, f32)]) {
    let (whole, rest) = shifts.as_chunks::<TOGETHER>();
    for &[(a, p), (b, q), (c, r), (d, s)] in whole {
        let at = |shift: usize| source[shift..][..row.len()].iter();
        let copies = at(a).zip(at(b)).zip(at(c)).zip(at(d));
        for (sum, (((a, b), c), d)) in row.iter_mut().zip(copies) {
            *sum += (p * a + q * b) + (r * c + s * d);
        }
    }
    for &(shift, factor) in rest {
        let copy = &source[shift..][..row.len()];
        for (sum, x) in row.iter_mut().zip(copy) {
            *sum += factor * x;
        }
    }
}

/// Adds `factor * row` to `target[shift..]`, for each shift and factor.
///
/// # Panics
/// If a shifted row ends behind the target.
pub fn add_to_shifted(target: &mut [f32], row: &[f32], shifts: &[(usize, f32)]) {
    add_to(target, row, shifts);
}

dispatch! {
    fn add_to(target: &mut [f32], row: &[f32], shifts: &[(usize, f32)]) = add_to_body
}

#[inline(always)]
fn add_to_body(target: &mut [f32], row: &[f32], shifts: &[(usize, f32)]) {
    for &(shift, factor) in shifts {
        let part = &mut target[shift..][..row.len()];
        for (sum, x) in part.iter_mut().zip(row) {
            *sum += factor * x;
        }
    }
}

/// Adds the sum of `row * source[shift..]` to the number of each shift.
///
/// # Panics
/// If a shifted row ends behind the source, or there are not as many sums as shifts.
pub fn shifted_products(row: &[f32], source: &[f32], shifts: &[usize], sums: &mut [f64]) {
    assert_eq!(shifts.len(), sums.len(), "a sum for each shift");
    products(row, source, shifts, sums);
}

dispatch! {
    fn products(row: &[f32], source: &[f32], shifts: &[usize], sums: &mut [f64]) = products_body
}

#[inline(always)]
fn products_body(row: &[f32], source: &[f32], shifts: &[usize], sums: &mut [f64]) {
    let (whole, rest) = shifts.as_chunks::<TOGETHER>();
    let (first, last) = sums.split_at_mut(whole.len() * TOGETHER);
    let (first, _) = first.as_chunks_mut::<TOGETHER>();
    for (&shifts, sums) in whole.iter().zip(first) {
        products_of(row, source, shifts, sums);
    }
    for (&shift, sum) in rest.iter().zip(last) {
        products_of(row, source, [shift], std::array::from_mut(sum));
    }
}

#[inline(always)]
fn products_of<const N: usize>(
    row: &[f32],
    source: &[f32],
    shifts: [usize; N],
    sums: &mut [f64; N],
) {
    let mut lanes = [[0.0f32; LANES]; N];
    let copies = shifts.map(|shift| &source[shift..][..row.len()]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    let others = copies.map(|copy| copy.as_chunks::<LANES>().0);
    for (at, chunk) in chunks.iter().enumerate() {
        for (lanes, other) in lanes.iter_mut().zip(others) {
            for ((sum, x), y) in lanes.iter_mut().zip(chunk).zip(&other[at]) {
                *sum += x * y;
            }
        }
    }
    let behind = chunks.len() * LANES;
    for ((sum, lanes), copy) in sums.iter_mut().zip(lanes).zip(copies) {
        let rest = rest.iter().zip(&copy[behind..]).map(|(x, y)| x * y);
        let rest: f32 = rest.sum();
        *sum += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + f64::from(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_shifted_rows_are_those_of_plain_loops() {
        for length in [0, 1, 7, 8, 37] {
            let source: Vec<f32> = (0..64).map(|at| (at * 37 % 19) as f32 - 9.0).collect();
            let row: Vec<f32> = (0..length).map(|at| (at * 11 % 7) as f32 - 3.0).collect();
            for count in [0, 1, 3, 4, 9] {
                let shifts: Vec<(usize, f32)> = (0..count)
                    .map(|at| (at * 3 % 25, at as f32 - 2.0))
                    .collect();
                let (mut sum, mut target) = (row.clone(), source.clone());
                let mut products = vec![1.0; count];
                let places: Vec<usize> = shifts.iter().map(|&(shift, _)| shift).collect();
                add_from_shifted(&mut sum, &source, &shifts);
                add_to_shifted(&mut target, &row, &shifts);
                shifted_products(&row, &source, &places, &mut products);
                for (at, &x) in row.iter().enumerate() {
                    let more = shifts.iter().map(|&(s, f)| f * source[s + at]);
                    assert_eq!(sum[at], x + more.sum::<f32>());
                }
                for (at, &x) in source.iter().enumerate() {
                    let more = shifts.iter().map(|&(s, f)| {
                        let from = at.checked_sub(s).and_then(|at| row.get(at));
                        f * from.copied().unwrap_or(0.0)
                    });
                    assert_eq!(target[at], x + more.sum::<f32>());
                }
                for (&shift, &found) in places.iter().zip(&products) {
                    let terms = row.iter().zip(&source[shift..]).map(|(x, y)| x * y);
                    assert_eq!(found, 1.0 + f64::from(terms.sum::<f32>()));
                }
            }
        }
    }
}
