//! The nearest entry of an ascending palette, by comparing with the borders between entries.
//!
//! `x` belongs above the border of entries `a < b` when `x > (a + b) / 2`. The midpoint is exact in 64 bits; the
//! largest 32-bit float not above it decides the same for every 32-bit `x`, ties going to the lower entry. Values that
//! are not finite need no branch: the border between -inf and the first finite entry is -inf, that before +inf is the
//! greatest finite float, and that before a NaN is +inf.
//!
//! Cost: see `half` and `single`, which do it for slices. Wrong choice: palettes that are not sorted.

pub(crate) mod half;
pub(crate) mod single;

/// A palette and the borders between its entries.
#[derive(Debug, Clone)]
pub(crate) struct Borders {
    lut: Vec<f32>,
    /// `borders[i]` separates entries `i` and `i + 1`; ascending.
    borders: Vec<f32>,
    /// Where values that are not numbers go.
    nan: u8,
}

impl Borders {
    /// Of at most 256 entries, ascending; -inf may come first, +inf and NaN last.
    pub(crate) fn new(lut: &[f32]) -> Self {
        let lut = lut.get(..256).unwrap_or(lut).to_vec();
        let mut borders: Vec<f32> = lut
            .windows(2)
            .map(|pair| border(pair[0], pair[1]))
            .collect();
        // Of equal entries the first takes all: leaving it means leaving them all.
        for i in (0..borders.len()).rev() {
            if lut[i] == lut[i + 1] {
                borders[i] = borders.get(i + 1).copied().unwrap_or(f32::INFINITY);
            }
        }
        let nan = lut.iter().position(|x| x.is_nan()).unwrap_or(0) as u8;
        Borders { lut, borders, nan }
    }

    /// The borders as integers: the largest `key` whose value is not above the border, or one less than the smallest.
    pub(crate) fn keys(&self, value: impl Fn(i16) -> f32) -> Vec<i16> {
        self.borders
            .iter()
            .map(|&border| {
                // Not-a-numbers lie beyond both infinities and must count as beyond.
                let below = |key: i16| {
                    let x = value(key);
                    if x.is_nan() { key < 0 } else { x <= border }
                };
                let (mut lo, mut hi) = (i32::from(i16::MIN), i32::from(i16::MAX) + 1);
                while hi - lo > 1 {
                    let mid = (lo + hi) / 2;
                    if below(mid as i16) {
                        lo = mid
                    } else {
                        hi = mid
                    }
                }
                lo as i16
            })
            .collect()
    }

    /// Where values that are not numbers go.
    pub(crate) fn nan(&self) -> u8 {
        self.nan
    }

    /// Squared error of ascending finite `values`, each occurring `counts` times.
    pub(crate) fn error_of(&self, values: &[f32], counts: &[u64]) -> f64 {
        let mut total = 0.0;
        let mut lo = 0;
        for (index, &entry) in self.lut.iter().enumerate() {
            let hi = match self.borders.get(index) {
                Some(&border) => lo + values[lo..].partition_point(|&x| x <= border),
                None => values.len(),
            };
            if entry.is_finite() {
                let entry = f64::from(entry);
                let mut sums = [0.0; 4];
                for (i, (&x, &n)) in values[lo..hi].iter().zip(&counts[lo..hi]).enumerate() {
                    let d = f64::from(x) - entry;
                    sums[i % 4] += n as f64 * (d * d);
                }
                total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
            }
            lo = hi;
        }
        total
    }

    /// Entry for `x`.
    pub(crate) fn index(&self, x: f32) -> u8 {
        if x.is_nan() {
            self.nan
        } else {
            self.borders.partition_point(|&border| x > border) as u8
        }
    }

    /// The entries of indices.
    pub(crate) fn look_up(&self, indices: &[u8], values: &mut [f32]) {
        let mut entries = [0.0; 256];
        entries[..self.lut.len()].copy_from_slice(&self.lut);
        for (value, &index) in values.iter_mut().zip(indices) {
            *value = entries[usize::from(index)];
        }
    }

    /// Squared error of `x` at entry `index`; none for values that are not finite.
    pub(crate) fn error(&self, x: f32, index: u8) -> f64 {
        match self.lut.get(usize::from(index)) {
            Some(&entry) if x.is_finite() && entry.is_finite() => {
                (f64::from(x) - f64::from(entry)).powi(2)
            }
            _ => 0.0,
        }
    }
}

/// The largest 32-bit float that belongs to `a` rather than `b`.
fn border(a: f32, b: f32) -> f32 {
    if b.is_nan() {
        return f32::INFINITY;
    }
    if b == f32::INFINITY {
        return f32::MAX;
    }
    if a == f32::NEG_INFINITY {
        return a;
    }
    let middle = (f64::from(a) + f64::from(b)) / 2.0;
    let near = middle as f32;
    if f64::from(near) > middle {
        near.next_down()
    } else {
        near
    }
}

/// Replaces each value by the nearest entry of `lut`, ties going to the lower one; returns the squared error. Indices and error are
/// those of [`ValueHistogram::assign`](crate::ValueHistogram::assign), without memory for all indices.
///
/// ```
/// use palettizer_kernels::replace;
///
/// let mut values = [0.25_f32, 1.0, 2.0];
/// assert_eq!(replace(&mut values, &[0.0, 2.0]), 0.0625 + 1.0);
/// assert_eq!(values, [0.0, 0.0, 2.0]);
/// ```
pub fn replace(values: &mut [f32], lut: &[f32]) -> f64 {
    if lut.is_empty() {
        values.fill(0.0);
        return 0.0;
    }
    single::replace(&Borders::new(lut), values)
}
