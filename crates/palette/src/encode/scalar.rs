//! One table of scalars for one group.
//!
//! A census of the values; then, in order of preference: the distinct values themselves when they fit (lossless,
//! NaN and infinities among them), or the mode's wishes, rounded as they will be stored; then each element to its
//! nearest entry. Cost: the census, the solver and the assignment, nothing more that grows with the group.

use palettizer_kernels::{Element, ValueHistogram, Weights};

use crate::encode::entries::{self, Entries, Storage};
use crate::{LutDtype, Mode, Nbits, PaletteSpec, Refusal};

/// A finished table and what it cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: Entries,
    /// With a folded scale: that of each output channel of the group.
    pub(crate) folded: Vec<f32>,
    /// Squared error of what was clustered (before the per-channel scale).
    pub(crate) squared_error: f64,
    /// Energy of the finite values that were clustered.
    pub(crate) energy: f64,
    /// Relative gap to the optimum.
    pub(crate) gap: f64,
}

/// The most entries any table has.
pub(crate) const MOST_ENTRIES: usize = 256;

/// Finds the table of `values` and the index of each.
///
/// `exact` says that entries are values of the group's own dtype, so that listing the distinct ones loses nothing.
pub(crate) fn table<T: Element>(
    values: &[T],
    weights: Weights<'_>,
    exact: bool,
    spec: &PaletteSpec,
    storage: Storage,
    indices: &mut [u8],
) -> Result<Table, Refusal> {
    if values.is_empty() {
        return Ok(Table::default());
    }
    let census = ValueHistogram::new(values, weights, spec.precision());
    let energy = census.energy();
    let limit = spec.mode().nbits().map_or(MOST_ENTRIES, |n| n.entries());
    if exact
        && storage.lut_dtype == LutDtype::Float
        && let Some(distinct) = census.distinct(limit)
    {
        census.assign(&distinct, indices);
        return Ok(Table {
            entries: Entries {
                values: distinct,
                quantized: None,
            },
            energy,
            ..Table::default()
        });
    }
    let count = census.non_finite();
    if count > 0 {
        let elements = values.len();
        return Err(Refusal::NonFinite { count, elements });
    }
    let (wishes, gap) = match spec.mode() {
        Mode::Kmeans(nbits) => {
            let clusters = census.cluster(nbits.entries());
            (clusters.centroids, clusters.gap)
        }
        Mode::Uniform(nbits) => return Ok(uniform(&census, *nbits, storage, indices)),
        Mode::Unique | Mode::Custom(_) => {
            return Err(Refusal::TooManyDistinct {
                limit,
                vectors: false,
            });
        }
    };
    let entries = entries::scalars(&wishes, storage);
    let squared_error = census.assign(&entries.values, indices);
    Ok(Table {
        entries,
        squared_error,
        energy,
        gap,
        ..Table::default()
    })
}

/// Evenly spaced entries: with the exact step, or with the step rounded to the weight's dtype as coremltools has it,
/// whichever comes out nearer once the entries are rounded.
fn uniform<T: Element>(
    census: &ValueHistogram<'_, T>,
    nbits: Nbits,
    storage: Storage,
    indices: &mut [u8],
) -> Table {
    let rounding = storage.rounding;
    let (low, high) = census.range().unwrap_or_default();
    let steps = (nbits.entries() - 1) as f64;
    let span = f64::from(high) - f64::from(low);
    let rounded = rounding.nearest(f64::from(rounding.nearest(span)) / steps);
    let mut table = |step: f64| {
        let spaced: Vec<f64> = match low == high {
            true => vec![f64::from(low)],
            false => (0..nbits.entries())
                .map(|i| f64::from(low) + i as f64 * step)
                .collect(),
        };
        let entries = entries::scalars(&spaced, storage);
        let squared_error = census.assign(&entries.values, indices);
        Table {
            entries,
            squared_error,
            energy: census.energy(),
            ..Table::default()
        }
    };
    let coarse = rounded.is_finite().then(|| table(f64::from(rounded)));
    let exact = table(span / steps);
    match coarse {
        Some(coarse) if coarse.squared_error < exact.squared_error => table(f64::from(rounded)),
        _ => exact,
    }
}

/// Calls the caller's function on one group, checks what it returns and rounds its entries.
///
/// `values` is the whole group, `kept` the offsets in it that count; their indices are written.
pub(crate) fn custom(
    values: &[f32],
    group: &crate::LutGroup<'_>,
    function: &crate::LutFunction,
    storage: Storage,
    kept: impl Iterator<Item = usize>,
    indices: &mut [u8],
) -> Result<Table, Refusal> {
    let count = values.iter().filter(|v| !v.is_finite()).count();
    if count > 0 {
        let elements = values.len();
        return Err(Refusal::NonFinite { count, elements });
    }
    let rounding = storage.rounding;
    let found = function.call(values, group).map_err(Refusal::Custom)?;
    let refuse = |text: String| Err(Refusal::Custom(text));
    if found.lut.is_empty() || found.lut.len() > MOST_ENTRIES {
        return refuse(format!(
            "returned {} entries, expected 1 to {MOST_ENTRIES}",
            found.lut.len()
        ));
    }
    if let Some(entry) = found.lut.iter().find(|entry| !entry.is_finite()) {
        return refuse(format!("returned the entry {entry}, expected finite ones"));
    }
    if found.indices.len() != values.len() {
        return refuse(format!(
            "returned {} indices for {} values",
            found.indices.len(),
            values.len()
        ));
    }
    let entries = found.lut.len();
    if let Some(index) = found.indices.iter().find(|&&i| usize::from(i) >= entries) {
        return refuse(format!("returned index {index} into {entries} entries"));
    }
    let lut: Vec<f32> = found
        .lut
        .iter()
        .map(|&entry| rounding.nearest(f64::from(entry)))
        .collect();
    if let Some(at) = lut.iter().position(|&entry| !storage.holds(entry)) {
        let under = match lut[at].is_finite() {
            true => "under the scale of a channel, ",
            false => "",
        };
        return refuse(format!(
            "returned the entry {}, which is infinite {under}in {}",
            found.lut[at],
            rounding.0.name()
        ));
    }
    let mut table = Table::default();
    for (at, index) in kept.zip(indices) {
        *index = found.indices[at];
        let value = f64::from(values[at]);
        let lost = value - f64::from(lut[usize::from(*index)]);
        table.squared_error += lost * lost;
        table.energy += value * value;
    }
    table.entries.values = lut;
    Ok(table)
}
