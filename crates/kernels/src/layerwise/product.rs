//! The loops over a matrix in which the time is spent.
//!
//! A matrix is cut into panels of 64 columns, each contiguous: `panel[i * 64 + c]`. Four rows by eight columns are
//! accumulated in registers. All is in 64 bits: see the module above for why.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::simd::avx2::Avx2;
use crate::simd::dispatch;
use crate::simd::f64x8::F64x8;
use crate::simd::portable::Portable;

/// Columns of a panel.
pub(super) const PANEL: usize = 64;
pub(super) use crate::simd::f64x8::LANES;
/// Rows of a panel that are copied to where they lie close together, eight columns at a time: at their distance a cache has little room.
const DEEP: usize = 256;
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
        = product::<Portable>, product::<Avx2>
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
    let mut lines = [[0.0; LANES]; DEEP];
    for from in (0..depth).step_by(DEEP) {
        let to = depth.min(from + DEEP);
        for strip in (0..PANEL).step_by(LANES) {
            let panel = panel[from * PANEL..to * PANEL].chunks_exact(PANEL);
            for (line, whole) in lines.iter_mut().zip(panel) {
                line.copy_from_slice(&whole[strip..strip + LANES]);
            }
            let lines = &lines[..to - from];
            for (r, out) in out.chunks_mut(step * ROWS).enumerate() {
                let row = |i: usize| &left[(r * ROWS + i) * stride..][from..to];
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let mut sums = [V::splat(0.0); ROWS];
                for ((((line, &a), &b), &c), &d) in lines.iter().zip(a).zip(b).zip(c).zip(d) {
                    let line = V::load(line, 0);
                    sums[0] = V::splat(a).mul_add(line, sums[0]);
                    sums[1] = V::splat(b).mul_add(line, sums[1]);
                    sums[2] = V::splat(c).mul_add(line, sums[2]);
                    sums[3] = V::splat(d).mul_add(line, sums[3]);
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
}

dispatch! {
    /// For each code, the sum of the lines that have it: `starts` says where those of each begin in `which`. The sums are added to the
    /// row of `a` that is the code's, each at the code of its lane; and their products with `errors` to its `z`.
    pub(super) fn add_sums(
        lines: &[[f64; LANES]],
        which: &[u32],
        starts: &[usize],
        codes: &[u8],
        errors: &[f64],
        a: &mut [f64],
        z: &mut [[f64; LANES]],
    ) = sums::<Portable>, sums::<Avx2>
}

#[inline(always)]
fn sums<V: F64x8>(
    lines: &[[f64; LANES]],
    which: &[u32],
    starts: &[usize],
    codes: &[u8],
    errors: &[f64],
    a: &mut [f64],
    z: &mut [[f64; LANES]],
) {
    let k = z.len();
    let errors = V::load(errors, 0);
    for (code, z) in z.iter_mut().enumerate() {
        let which = &which[starts[code]..starts[code + 1]];
        if which.is_empty() {
            continue;
        }
        let sums = sum::<V>(lines, which);
        *z = sums.mul_add(errors, V::load(z, 0)).array();
        let row = &mut a[code * k..(code + 1) * k];
        for (&other, sum) in codes.iter().zip(sums.array()) {
            row[usize::from(other)] += sum;
        }
    }
}

dispatch! {
    /// The same of eight columns of the factor R, of which `codes` says where the lines of each code lie in `which`: the sums' products with each
    /// other go to `a`, in the order (0, 0), (1, 0), (1, 1), (2, 0) and so on, and with `root` (of Rᵀe) to `z`.
    /// There is room for the sums in `sums`.
    pub(super) fn add_squares(
        lines: &[[f64; LANES]],
        which: &[u32],
        codes: &[Range<usize>],
        root: &[f64],
        sums: &mut [[f64; LANES]],
        a: &mut [[f64; LANES]],
        z: &mut [[f64; LANES]],
    ) = squares::<Portable>, squares::<Avx2>
}

#[inline(always)]
fn squares<V: F64x8>(
    lines: &[[f64; LANES]],
    which: &[u32],
    codes: &[Range<usize>],
    root: &[f64],
    sums: &mut [[f64; LANES]],
    a: &mut [[f64; LANES]],
    z: &mut [[f64; LANES]],
) {
    let root = V::load(root, 0);
    let mut at = 0;
    for (code, z) in z.iter_mut().enumerate() {
        let sum = sum::<V>(lines, &which[codes[code].clone()]);
        *z = sum.mul_add(root, V::load(z, 0)).array();
        sums[code] = sum.array();
        for (a, other) in a[at..=at + code].iter_mut().zip(&*sums) {
            *a = sum.mul_add(V::load(other, 0), V::load(a, 0)).array();
        }
        at += code + 1;
    }
}

/// The sum of some lines.
#[inline(always)]
fn sum<V: F64x8>(lines: &[[f64; LANES]], which: &[u32]) -> V {
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
    (sums[0] + sums[1]) + (sums[2] + sums[3])
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
