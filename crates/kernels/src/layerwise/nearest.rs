//! The nearest entry of a table, in 64 bits.

/// Up to so many borders, all are compared.
const FEW: usize = 16;

/// The entries of a table in ascending order, and the borders between them.
pub(super) struct Nearest {
    values: Vec<f64>,
    borders: Vec<f64>,
    /// Which entry of the table each value is.
    codes: Vec<u8>,
}

impl Nearest {
    pub(super) fn new(table: &[f32]) -> Self {
        let codes = ascending(table);
        let values: Vec<f64> = codes
            .iter()
            .map(|&code| f64::from(table[usize::from(code)]))
            .collect();
        let borders = values
            .windows(2)
            .map(|pair| f64::midpoint(pair[0], pair[1]))
            .collect();
        Nearest {
            values,
            borders,
            codes,
        }
    }

    /// Code and value of the entry that is nearest to `x`, the lower of two.
    #[inline(always)]
    pub(super) fn find(&self, x: f64) -> (u8, f64) {
        let at = if self.borders.len() < FEW {
            self.borders.iter().map(|&b| usize::from(x > b)).sum()
        } else {
            self.borders.partition_point(|&b| x > b)
        };
        (self.codes[at], self.values[at])
    }
}

/// The codes of a table in ascending order of its entries.
pub(super) fn ascending(table: &[f32]) -> Vec<u8> {
    let mut codes: Vec<u8> = (0..table.len()).map(|code| code as u8).collect();
    codes.sort_by(|&a, &b| table[usize::from(a)].total_cmp(&table[usize::from(b)]));
    codes
}
