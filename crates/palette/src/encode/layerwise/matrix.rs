//! A weight as a matrix: output channels are rows, all else is columns, in the order of the weight's memory.

/// Where the elements of a row lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Columns that lie together.
    inner: usize,
}

impl Matrix {
    pub(super) fn new(shape: &[usize], axis: usize) -> Self {
        let rows = shape[axis];
        Matrix {
            rows,
            columns: shape.iter().product::<usize>() / rows,
            inner: shape[axis + 1..].iter().product(),
        }
    }

    /// Row by row, what is in the order of the weight.
    pub(super) fn rows_of<T: Copy>(&self, all: &[T]) -> Vec<T> {
        if self.inner == self.columns {
            return all.to_vec();
        }
        let mut out = Vec::with_capacity(all.len());
        for row in 0..self.rows {
            let runs = all.chunks_exact(self.inner).skip(row).step_by(self.rows);
            runs.for_each(|run| out.extend_from_slice(run));
        }
        out
    }

    /// The other way round.
    pub(super) fn in_order<T: Copy>(&self, rows: &[T]) -> Vec<T> {
        if self.inner == self.columns {
            return rows.to_vec();
        }
        let mut out = Vec::with_capacity(rows.len());
        for start in (0..self.columns).step_by(self.inner) {
            for row in rows.chunks_exact(self.columns) {
                out.extend_from_slice(&row[start..start + self.inner]);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_output_channels() {
        let all: Vec<usize> = (0..24).collect();
        for axis in 0..3 {
            let shape = [2, 3, 4];
            let matrix = Matrix::new(&shape, axis);
            let rows = matrix.rows_of(&all);
            let channel = |at: usize| at / [12, 4, 1][axis] % shape[axis];
            for (row, members) in rows.chunks(matrix.columns).enumerate() {
                assert!(members.iter().all(|&at| channel(at) == row), "{members:?}");
                assert!(members.is_sorted());
            }
            assert_eq!(matrix.in_order(&rows), all);
        }
    }
}
