//! Reductions of integers: computed exactly or in fp64, and cut to integers, as coremltools does. Sums that are too large wrap.

use super::Axes;
use crate::call::{Call, Fault};
use crate::view::View;

/// A function of the elements that are reduced to each.
pub(super) fn rows(
    call: &Call<'_>,
    values: &[i32],
    axes: &Axes,
    f: impl Fn(&[i32]) -> i32,
) -> Result<Vec<i32>, Fault> {
    if values.is_empty() {
        return call.filled(&axes.shape, f(&[]));
    }
    call.count(&axes.wide)?;
    let all = 0..axes.wide.len();
    let (folded, kept): (Vec<usize>, Vec<usize>) = all.partition(|&axis| axes.folded[axis]);
    let order: Vec<usize> = kept.into_iter().chain(folded).collect();
    let rows = View::of(&axes.wide).permuted(&order).read(values);
    Ok(rows.chunks(axes.count.max(1)).map(f).collect())
}

fn wide(row: &[i32]) -> impl Iterator<Item = i64> {
    row.iter().map(|&x| i64::from(x))
}

fn floats(row: &[i32]) -> impl Iterator<Item = f64> {
    row.iter().map(|&x| f64::from(x))
}

pub(super) fn sum(row: &[i32]) -> i32 {
    wide(row).fold(0i64, i64::wrapping_add) as i32
}

pub(super) fn sum_square(row: &[i32]) -> i32 {
    wide(row).fold(0i64, |sum, x| sum.wrapping_add(x * x)) as i32
}

pub(super) fn l1_norm(row: &[i32]) -> i32 {
    wide(row).fold(0i64, |sum, x| sum.wrapping_add(x.abs())) as i32
}

pub(super) fn product(row: &[i32]) -> i32 {
    row.iter().fold(1i32, |product, &x| product.wrapping_mul(x))
}

pub(super) fn max(row: &[i32]) -> i32 {
    row.iter().copied().max().unwrap_or(i32::MIN)
}

pub(super) fn min(row: &[i32]) -> i32 {
    row.iter().copied().min().unwrap_or(i32::MAX)
}

pub(super) fn mean(row: &[i32]) -> i32 {
    (floats(row).sum::<f64>() / row.len() as f64) as i32
}

pub(super) fn l2_norm(row: &[i32]) -> i32 {
    floats(row).map(|x| x * x).sum::<f64>().sqrt() as i32
}

pub(super) fn log_sum(row: &[i32]) -> i32 {
    floats(row).sum::<f64>().ln() as i32
}

pub(super) fn log_sum_exp(row: &[i32]) -> i32 {
    let most = f64::from(max(row));
    let sum: f64 = floats(row).map(|x| (x - most).exp()).sum();
    (sum.ln() + most) as i32
}
