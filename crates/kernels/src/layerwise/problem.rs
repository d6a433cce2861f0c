//! What is asked of layer-wise palettization, and what comes of it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use crate::stop::Stop;

/// A layer's weights and what its inputs look like.
#[derive(Debug, Clone, Copy)]
pub struct LayerwiseProblem<'a> {
    /// One row for each output, row after row.
    pub weights: &'a [f32],
    /// Weights of a row, at least one: the inputs of an output.
    pub columns: usize,
    /// Second moments H of the inputs, `columns × columns` and symmetric (only the upper triangle is read): one for all rows, or
    /// several, each for as many consecutive rows as the next, the last for what is left.
    pub moments: &'a [&'a [f32]],
    /// How much each weight counts in the clusters that the tables start from, a Fisher information for instance; without,
    /// each counts as the diagonal of H does.
    pub start_weights: Option<&'a [f32]>,
}

impl LayerwiseProblem<'_> {
    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.weights.len() / self.columns.max(1)
    }

    /// Rows that have the same second moments.
    pub(super) fn rows_per_moments(&self) -> usize {
        self.rows().div_ceil(self.moments.len().max(1)).max(1)
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.weights[row * self.columns..(row + 1) * self.columns]
    }

    /// Refuses what no result could be given for.
    pub(super) fn check(&self, options: &LayerwiseOptions<'_>) -> Result<(), LayerwiseError> {
        if !(1..=8).contains(&options.nbits) {
            return Err(LayerwiseError::Bits(options.nbits));
        }
        if !(options.damping >= 0.0 && options.damping.is_finite()) {
            return Err(LayerwiseError::Damping(options.damping));
        }
        let shape = |what, found, wanted| match found == wanted {
            true => Ok(()),
            false => Err(LayerwiseError::Shape {
                what,
                found,
                wanted,
            }),
        };
        let rows = self.rows();
        shape("columns", self.columns, self.columns.max(1))?;
        shape("weights", self.weights.len(), (rows * self.columns).max(1))?;
        // Each has rows to be for.
        let most = rows.div_ceil(self.rows_per_moments());
        shape("matrices of second moments", self.moments.len(), most)?;
        for moments in self.moments {
            let wanted = self.columns.saturating_mul(self.columns);
            shape("second moments", moments.len(), wanted)?;
        }
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        if let Some(start) = self.start_weights {
            shape("start weights", start.len(), self.weights.len())?;
        }
        if !finite(self.weights) {
            return Err(LayerwiseError::NotFinite("weights"));
        }
        if !self.moments.iter().all(|moments| finite(moments)) {
            return Err(LayerwiseError::NotFinite("second moments"));
        }
        Ok(())
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerwiseAlgorithm {
    /// The start, one pass with error feedback, and the best tables for its indices.
    Gptq,
    /// The same, with rounds of best tables and coordinate descent over indices in between.
    Lnq,
}

/// The settings of layer-wise palettization.
#[derive(Debug, Clone, Copy)]
pub struct LayerwiseOptions<'a> {
    /// Bits of an index, 1 to 8; a table has 2 to the power of that entries.
    pub nbits: u32,
    /// Consecutive rows that share a table: 1 for a table per row, `usize::MAX` for one in all. The last table may have fewer.
    pub rows_per_table: usize,
    /// Whether each row has a factor for the entries of its table.
    pub row_scale: bool,
    /// How far to go.
    pub algorithm: LayerwiseAlgorithm,
    /// Rounds of tables and descent.
    pub rounds: usize,
    /// Most sweeps of descent over all columns in a round.
    pub sweeps: usize,
    /// What is added to the diagonal of H, as a part of its mean. Few samples want more: 0.1 does well for plain second
    /// moments of a language model, 0.03 for those weighted by gradients.
    pub damping: f64,
    /// Set by another thread when the tables are no longer wanted.
    pub stop: Option<&'a AtomicBool>,
}

impl LayerwiseOptions<'_> {
    pub(super) fn stopped(&self) -> Result<(), LayerwiseError> {
        match Stop(self.stop).requested() {
            true => Err(LayerwiseError::Stopped),
            false => Ok(()),
        }
    }

    /// Entries of a table.
    pub(super) fn entries(&self) -> usize {
        1 << self.nbits
    }
}

impl Default for LayerwiseOptions<'_> {
    fn default() -> Self {
        LayerwiseOptions {
            nbits: 4,
            rows_per_table: 1,
            row_scale: false,
            algorithm: LayerwiseAlgorithm::Lnq,
            rounds: 2,
            sweeps: 2,
            damping: 0.03,
            stop: None,
        }
    }
}

/// Tables and indices: weight `i` of row `r` becomes `scales[r] * luts[r / rows_per_table * k + indices[r * columns + i]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerwiseTables {
    /// All tables, one after the other, each ascending.
    pub luts: Vec<f32>,
    /// One index for each weight.
    pub indices: Vec<u8>,
    /// A factor for each row, above zero, if they were asked for.
    pub scales: Option<Vec<f32>>,
    /// What is minimized, with the damped H: at the start (exact k-means), after the pass with feedback, after each round, and
    /// after the last tables. It never rises; where rounding alone would raise it, the figure before stands.
    pub objective: Vec<f64>,
    /// Σ wᵀHw with the damped H: what is minimized, if every weight became zero.
    pub energy: f64,
    /// The damping of each matrix of second moments: what was asked for, or more where H was not positive definite.
    pub damping: Vec<f64>,
}

/// Why there are no tables.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerwiseError {
    /// Bits of an index that are not 1 to 8.
    Bits(u32),
    /// A damping that is negative or not finite.
    Damping(f64),
    /// Lengths that contradict each other.
    Shape {
        /// Of what.
        what: &'static str,
        /// The length that was given.
        found: usize,
        /// The length, or the nearest of the lengths, that there could be.
        wanted: usize,
    },
    /// Weights or second moments with infinities, or with what is not a number.
    NotFinite(&'static str),
    /// Second moments that are not positive definite, however much they are damped.
    Indefinite {
        /// Which of the matrices.
        matrix: usize,
        /// The damping that was tried last.
        damping: f64,
    },
    /// The stop flag was set.
    Stopped,
}

impl fmt::Display for LayerwiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayerwiseError::Bits(bits) => write!(f, "indices of {bits} bits; 1 to 8 are possible"),
            LayerwiseError::Damping(damping) => {
                write!(f, "a damping of {damping}; it is zero or more, and finite")
            }
            LayerwiseError::Shape {
                what,
                found,
                wanted,
            } => write!(f, "number of {what}: expected {wanted}, found {found}"),
            LayerwiseError::NotFinite(what) => write!(f, "{what} are not all finite"),
            LayerwiseError::Indefinite { matrix, damping } => write!(
                f,
                "matrix {matrix} of second moments is not positive definite, even with a damping of {damping}"
            ),
            LayerwiseError::Stopped => write!(f, "stopped"),
        }
    }
}

impl std::error::Error for LayerwiseError {}

/// Rows `range` cut into runs of `len`.
pub(super) fn runs(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let len = len.max(1);
    let end = range.end;
    range
        .step_by(len)
        .map(move |at| at..at.saturating_add(len).min(end))
}
