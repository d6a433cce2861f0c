//! Products of matrices, in fp32: a safe door to the `gemm` crate.
//!
//! Each element of the result is summed in an order that depends on the sizes alone, so it is the same for any number of threads.

use gemm::Parallelism;

/// Multiplications below which threads cost more than they bring.
const ALONE: usize = 1 << 16;

/// A matrix in a slice: element (row, column) is at `row * row_stride + column * column_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// If the slice is shorter than the matrix.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns, 1)
    }

    /// A matrix with these strides.
    ///
    /// # Panics
    /// If the slice is shorter than the matrix.
    pub fn strided(
        values: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Self {
        let end = extent(rows, columns, row_stride, column_stride);
        assert!(
            end.is_some_and(|end| end <= values.len()),
            "the matrix is larger than its slice"
        );
        Matrix {
            values,
            rows,
            columns,
            row_stride,
            column_stride,
        }
    }

    /// The same elements with rows and columns in each other's place.
    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Elements from the first to behind the last.
fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> Option<usize> {
    if rows == 0 || columns == 0 {
        return Some(0);
    }
    let row = (rows - 1).checked_mul(row_stride)?;
    let column = (columns - 1).checked_mul(column_stride)?;
    row.checked_add(column)?.checked_add(1)
}

/// Writes `a · b` to `out`, or adds it with `accumulate`; row r of the result begins at `r * row_stride`. It works on the rayon pool
/// that it is called on if there is enough to do.
///
/// ```
/// use palettizer_kernels::{Matrix, product};
///
/// let (a, b, mut out) = ([1.0, 2.0, 3.0, 4.0], [1.0, -1.0], [0.0; 2]);
/// product(Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 1), &mut out, 1, false);
/// assert_eq!(out, [-1.0, -1.0]);
/// ```
///
/// # Panics
/// If the sizes do not fit each other, or `out` is shorter than the result.
pub fn product(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], row_stride: usize, accumulate: bool) {
    let threads = rayon::current_num_threads();
    let much = a.rows.saturating_mul(b.columns).saturating_mul(a.columns) > ALONE;
    let parallelism = match threads > 1 && much {
        true => Parallelism::Rayon(threads),
        false => Parallelism::None,
    };
    multiply(a, b, out, row_stride, accumulate, parallelism);
}

/// [`product`] on the thread that calls it: for those who split the work themselves. The result is the same.
///
/// # Panics
/// If the sizes do not fit each other, or `out` is shorter than the result.
pub fn product_alone(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    row_stride: usize,
    accumulate: bool,
) {
    multiply(a, b, out, row_stride, accumulate, Parallelism::None);
}

#[expect(unsafe_code, reason = "the crate's interface is of pointers")]
fn multiply(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    row_stride: usize,
    accumulate: bool,
    parallelism: Parallelism,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(
        k, b.rows,
        "columns of the first factor are rows of the second"
    );
    assert!(n <= row_stride || m <= 1, "rows of the result overlap");
    let end = extent(m, n, row_stride, 1);
    assert!(
        end.is_some_and(|end| end <= out.len()),
        "the result is larger than its slice"
    );
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            (0..m).for_each(|row| out[row * row_stride..][..n].fill(0.0));
        }
        return;
    }
    // SAFETY: all elements that the strides lead to lie within the slices, as `Matrix::strided` and the assertions above
    // have it; rows of the result do not overlap, and `out` is borrowed mutably, so it is none of the factors. Strides and sizes
    // are those of slices, so they fit into isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row_stride as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(work)
    }

    #[test]
    fn equals_sums_of_products_whatever_the_sizes_strides_and_threads() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 7),
            (1, 64, 300),
            (65, 1, 33),
            (47, 129, 301),
            (16, 16, 0),
            (200, 100, 64),
        ] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let mut expected = vec![0.0f64; m * n];
            for row in 0..m {
                for column in 0..n {
                    let terms =
                        (0..k).map(|at| f64::from(a[row * k + at]) * f64::from(b[at * n + column]));
                    expected[row * n + column] = terms.sum();
                }
            }
            let flipped: Vec<f32> = (0..n * k).map(|at| b[at % k * n + at / k]).collect();
            let once = |threads| {
                let mut out = vec![1.0f32; m * (n + 3)];
                in_pool(threads, || {
                    product(
                        Matrix::new(&a, m, k),
                        Matrix::new(&b, k, n),
                        &mut out,
                        n + 3,
                        false,
                    )
                });
                out
            };
            let first = once(1);
            for threads in [2, 3, 7] {
                assert_eq!(first, once(threads), "{m} {n} {k} on {threads} threads");
            }
            let mut other = vec![2.0f32; m * n];
            product(
                Matrix::new(&a, m, k),
                Matrix::new(&flipped, n, k).transposed(),
                &mut other,
                n,
                true,
            );
            for row in 0..m {
                for column in 0..n {
                    let wanted = expected[row * n + column];
                    assert!((f64::from(first[row * (n + 3) + column]) - wanted).abs() < 1e-4);
                    assert!((f64::from(other[row * n + column]) - wanted - 2.0).abs() < 1e-4);
                }
                assert!(
                    first[row * (n + 3) + n..][..3]
                        .iter()
                        .all(|&gap| gap == 1.0)
                        || row + 1 == m
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "larger than its slice")]
    fn refuses_a_matrix_that_is_larger_than_its_slice() {
        Matrix::strided(&[0.0; 5], 2, 3, 3, 1);
    }
}
