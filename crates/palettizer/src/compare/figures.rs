//! Figures of how far two values are apart, summed up over samples.

use serde::Serialize;

/// How far a row that is a distribution may be from a sum of 1: fp16 has three digits.
const SUM_TOLERANCE: f64 = 1e-2;

/// The least probability of a divergence.
const LEAST: f64 = 1e-12;

/// How far a value of one program is from that of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The value's name.
    pub name: String,
    /// The operation that makes it; empty for an output of the model.
    pub op_type: String,
    /// Its place in the program.
    pub order: usize,
    /// Its shape, in the first sample.
    pub shape: Vec<usize>,
    /// Whether nothing differs.
    pub exact: bool,
    /// Elements that are no finite numbers in one program and not the same in the other, or that the other does not have at all.
    pub broken: u64,
    /// The signal-to-noise ratio in dB: 10 log₁₀ Σa² / Σ(a − b)². `None` where nothing differs, or there is no signal.
    pub snr_db: Option<f64>,
    /// The peak signal-to-noise ratio in dB: the same of the largest square of an element and the mean squared error.
    pub psnr_db: Option<f64>,
    /// Σab / √(Σa² Σb²).
    pub cosine: Option<f64>,
    /// The mean squared error.
    pub mse: f64,
    /// The largest difference of two elements.
    pub largest_error: f64,
    /// Whether each row, along the last axis, is a distribution.
    pub distribution: bool,
    /// The mean over rows of the Kullback-Leibler divergence Σ a ln(a/b), where they are distributions.
    pub kl: Option<f64>,
    /// Whether it holds classes, or other integers, booleans or strings.
    pub label: bool,
    /// The share of rows whose largest element is at the same place; of labels, the share of those that are equal.
    pub agreement: Option<f64>,
}

impl Difference {
    /// By what the worst is found: the signal-to-noise ratio, less than any if something is broken, more than any if nothing differs.
    pub fn rank(&self) -> f64 {
        match self.snr_db {
            _ if self.broken > 0 => f64::NEG_INFINITY,
            Some(snr) => snr,
            None if self.exact => f64::INFINITY,
            // noise without a signal
            None => f64::MIN,
        }
    }
}

/// Sums over samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    op_type: String,
    /// Its place in the program.
    pub order: usize,
    shape: Option<Vec<usize>>,
    count: u64,
    signal: f64,
    other: f64,
    product: f64,
    noise: f64,
    peak: f64,
    largest: f64,
    broken: u64,
    rows: u64,
    agreeing: u64,
    divergence: f64,
    no_distribution: bool,
    label: bool,
}

impl Tally {
    /// Sums of what an operation makes.
    pub(super) fn of(op_type: &str, order: usize) -> Self {
        Tally {
            op_type: op_type.to_owned(),
            order,
            ..Tally::default()
        }
    }

    /// A value that the other program does not have, or of another shape.
    pub(super) fn missing(&mut self) {
        self.broken += 1;
    }

    /// Labels, and other things that are equal or not.
    pub(super) fn labels<T: PartialEq>(&mut self, shape: &[usize], before: &[T], after: &[T]) {
        self.shape.get_or_insert_with(|| shape.to_vec());
        self.label = true;
        self.rows += before.len() as u64;
        self.agreeing += before.iter().zip(after).filter(|(a, b)| a == b).count() as u64;
    }

    /// Numbers.
    /// The noise as a part of the signal; `None` of what has neither, such as labels.
    pub(super) fn noise(&self) -> Option<f64> {
        if self.broken > 0 {
            return Some(f64::INFINITY);
        }
        (self.signal > 0.0).then(|| self.noise / self.signal)
    }

    pub(super) fn floats(&mut self, shape: &[usize], before: &[f32], after: &[f32]) {
        self.shape.get_or_insert_with(|| shape.to_vec());
        self.count += before.len() as u64;
        for (&a, &b) in before.iter().zip(after) {
            if !(a.is_finite() && b.is_finite()) {
                self.broken += u64::from(a != b && !(a.is_nan() && b.is_nan()));
                continue;
            }
            let (a, b) = (f64::from(a), f64::from(b));
            self.signal += a * a;
            self.other += b * b;
            self.product += a * b;
            self.noise += (a - b) * (a - b);
            self.peak = self.peak.max(a.abs());
            self.largest = self.largest.max((a - b).abs());
        }
        let width = shape.last().copied().unwrap_or(1);
        if width < 2 {
            self.no_distribution = true;
            return;
        }
        for (a, b) in before.chunks_exact(width).zip(after.chunks_exact(width)) {
            self.rows += 1;
            self.agreeing += u64::from(arg_max(a) == arg_max(b));
            let sum: f64 = a.iter().map(|&a| f64::from(a)).sum();
            if (sum - 1.0).abs() > SUM_TOLERANCE || a.iter().any(|&a| a < 0.0) {
                self.no_distribution = true;
            }
            if !self.no_distribution {
                self.divergence += divergence(a, b);
            }
        }
    }

    /// The figures of all that was added.
    pub(super) fn figures(&self, name: &str, order: usize) -> Difference {
        let distribution = !self.no_distribution && !self.label && self.rows > 0;
        let differing = self.label && self.agreeing < self.rows;
        let mse = self.noise / self.count.max(1) as f64;
        let decibels = |signal: f64, noise: f64| {
            (signal > 0.0 && noise > 0.0).then(|| 10.0 * (signal / noise).log10())
        };
        let norm = (self.signal * self.other).sqrt();
        Difference {
            name: name.to_owned(),
            op_type: self.op_type.clone(),
            order,
            shape: self.shape.clone().unwrap_or_default(),
            exact: self.noise == 0.0 && self.broken == 0 && !differing,
            broken: self.broken,
            snr_db: decibels(self.signal, self.noise),
            psnr_db: decibels(self.peak * self.peak, mse),
            cosine: (norm > 0.0).then(|| (self.product / norm).clamp(-1.0, 1.0)),
            mse,
            largest_error: self.largest,
            distribution,
            kl: distribution.then(|| (self.divergence / self.rows as f64).max(0.0)),
            label: self.label,
            agreement: (self.rows > 0).then(|| self.agreeing as f64 / self.rows as f64),
        }
    }
}

/// The first of the largest elements.
fn arg_max(row: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in row.iter().enumerate() {
        if *value > row[best] || row[best].is_nan() && !value.is_nan() {
            best = at;
        }
    }
    best
}

/// Σ a ln(a/b) of two rows, each made to sum up to 1: fp16 does so to three digits alone.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let sum = |row: &[f32]| row.iter().map(|&x| f64::from(x)).sum::<f64>().max(LEAST);
    let (whole, other) = (sum(a), sum(b));
    let pairs = a.iter().zip(b).filter(|(a, _)| **a > 0.0);
    pairs
        .map(|(&a, &b)| {
            let (a, b) = (f64::from(a) / whole, (f64::from(b) / other).max(LEAST));
            a * (a / b).ln()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&[f32], &[f32])]) -> Difference {
        let mut tally = Tally::default();
        pairs
            .iter()
            .for_each(|(a, b)| tally.floats(&[1, a.len()], a, b));
        tally.figures("y", 0)
    }

    #[test]
    fn figures_are_what_they_say() {
        let found = of(&[(&[3.0, 4.0], &[3.0, 4.5]), (&[0.0, 5.0], &[0.5, 5.0])]);
        assert!((found.snr_db.unwrap() - 20.0).abs() < 1e-9, "{found:?}");
        assert!((found.psnr_db.unwrap() - 10.0 * (25.0_f64 / 0.125).log10()).abs() < 1e-9);
        assert_eq!((found.mse, found.largest_error), (0.125, 0.5));
        assert_eq!(
            (found.agreement, found.distribution, found.kl),
            (Some(1.0), false, None)
        );
        let same = of(&[(&[1.0, 2.0], &[1.0, 2.0])]);
        assert!(same.exact && same.snr_db.is_none() && same.rank() == f64::INFINITY);
    }

    #[test]
    fn distributions_diverge() {
        let found = of(&[(&[0.5, 0.5], &[0.25, 0.75]), (&[1.0, 0.0], &[1.0, 0.0])]);
        let expected = (0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln()) / 2.0;
        assert!((found.kl.unwrap() - expected).abs() < 1e-9);
        assert_eq!(found.agreement, Some(0.5));
    }

    #[test]
    fn what_is_no_number_is_broken_unless_it_is_the_same() {
        let nan = f32::NAN;
        assert_eq!(
            of(&[(&[nan, f32::INFINITY], &[nan, f32::INFINITY])]).broken,
            0
        );
        let found = of(&[(&[nan, 1.0], &[0.0, 1.0])]);
        assert!(found.broken == 1 && !found.exact && found.rank() == f64::NEG_INFINITY);
        let mut labels = Tally::default();
        labels.labels(&[2], &["a", "b"], &["a", "c"]);
        assert_eq!(labels.figures("l", 0).agreement, Some(0.5));
        assert!(!labels.figures("l", 0).exact);
    }
}
