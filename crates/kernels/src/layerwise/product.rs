//! The three loops over a matrix in which the time is spent.
//!
//! A matrix is cut into panels of 64 columns, each contiguous: `panel[i * 64 + c]`. Four rows by eight columns are
//! accumulated in registers. All is in 64 bits: see the module above for why.

#[cfg(target_arch = "x86_64")]
use crate::simd::avx2::Avx2;
use crate::simd::dispatch;
use crate::simd::f64x8::F64x8;
use crate::simd::portable::Portable;

/// Columns of a panel.
pub(super) const PANEL: usize = 64;
pub(super) use crate::simd::f64x8::LANES;
/// Rows that are multiplied together.
pub(super) const ROWS: usize = 4;

/// So many columns to a whole number of panels.
pub(super) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(PANEL)
}

dispatch! {
    /// Adds to each row of `out` (the first 64 of every `step` numbers) the first `depth` numbers of a row of `left` (one every `stride`)
    /// times a panel. The number of rows is a multiple of four.
    pub(super) fn add_product(left: &[f64], stride: usize, depth: usize, panel: &[f64], out: &mut [f64], step: usize)
        = product_portable, product_avx2
}

#[inline(always)]
fn product_portable(
    left: &[f64],
    stride: usize,
    depth: usize,
    panel: &[f64],
    out: &mut [f64],
    step: usize,
) {
    product::<Portable>(left, stride, depth, panel, out, step);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn product_avx2(
    left: &[f64],
    stride: usize,
    depth: usize,
    panel: &[f64],
    out: &mut [f64],
    step: usize,
) {
    product::<Avx2>(left, stride, depth, panel, out, step);
}

#[inline(always)]
fn product<V: F64x8>(
    left: &[f64],
    stride: usize,
    depth: usize,
    panel: &[f64],
    out: &mut [f64],
    step: usize,
) {
    let panel = &panel[..depth * PANEL];
    for strip in (0..PANEL).step_by(LANES) {
        for (r, out) in out.chunks_mut(step * ROWS).enumerate() {
            let row = |i: usize| &left[(r * ROWS + i) * stride..][..depth];
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let mut sums = [V::splat(0.0); ROWS];
            for (i, line) in panel.chunks_exact(PANEL).enumerate() {
                let line = V::load(line, strip);
                sums[0] = sums[0] + V::splat(a[i]) * line;
                sums[1] = sums[1] + V::splat(b[i]) * line;
                sums[2] = sums[2] + V::splat(c[i]) * line;
                sums[3] = sums[3] + V::splat(d[i]) * line;
            }
            for (i, sum) in sums.into_iter().enumerate() {
                let out = &mut out[i * step + strip..][..LANES];
                for (out, sum) in out.iter_mut().zip(sum.array()) {
                    *out += sum;
                }
            }
        }
    }
}

dispatch! {
    /// The sum of some lines.
    pub(super) fn sum_lines(lines: &[[f64; LANES]], which: &[u32]) -> [f64; LANES] = sum_portable, sum_avx2
}

#[inline(always)]
fn sum_portable(lines: &[[f64; LANES]], which: &[u32]) -> [f64; LANES] {
    sum::<Portable>(lines, which)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sum_avx2(lines: &[[f64; LANES]], which: &[u32]) -> [f64; LANES] {
    sum::<Avx2>(lines, which)
}

#[inline(always)]
fn sum<V: F64x8>(lines: &[[f64; LANES]], which: &[u32]) -> [f64; LANES] {
    // Four sums, since an addition waits for the one before it.
    let mut sums = [V::splat(0.0); 4];
    let fours = which.chunks_exact(4);
    for &at in fours.remainder() {
        sums[0] = sums[0] + V::load(&lines[at as usize], 0);
    }
    for four in fours {
        for (sum, &at) in sums.iter_mut().zip(four) {
            *sum = *sum + V::load(&lines[at as usize], 0);
        }
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).array()
}

dispatch! {
    /// Adds `factor` times `line` to `out`.
    pub(super) fn add_line(factor: f64, line: &[f64], out: &mut [f64]) = add_line_body
}

#[inline(always)]
fn add_line_body(factor: f64, line: &[f64], out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(line) {
        *out += factor * x;
    }
}

dispatch! {
    /// Sum of products, in eight lanes.
    pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 = dot_body
}

#[inline(always)]
fn dot_body(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks(LANES), b.chunks(LANES));
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}
