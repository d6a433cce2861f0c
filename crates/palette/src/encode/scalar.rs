//! One table of scalars for one group.
//!
//! A histogram of the values; then, in order of preference: the distinct values themselves when they fit (lossless,
//! NaN and infinities among them), or what the mode aims at, rounded as it will be stored; then each element to its
//! nearest entry. Cost: the histogram, the solver and the assignment, nothing more that grows with the group.

use palettizer_kernels::{Element, Precision, ValueHistogram, Weights};

use super::entries;
use super::storage::Storage;
use super::table::{GroupTable, MOST_ENTRIES, TableRequest, refuse_non_finite};
use crate::{Context, CustomLut, ErrorFigures, LutFunction, LutGroup, Mode, Nbits, Refusal};

/// Finds the table of `values` and the index of each.
pub(crate) fn table<T: Element>(
    values: &[T],
    weights: Weights<'_>,
    request: &TableRequest<'_>,
    context: &Context<'_>,
    indices: &mut [u8],
) -> Result<GroupTable, Refusal> {
    if values.is_empty() {
        return Ok(GroupTable::default());
    }
    let histogram = histogram(values, weights, request, context);
    let mut table = match (listed(&histogram, request)?, request.spec.mode()) {
        (Some(listed), _) => listed,
        (None, Mode::Kmeans(nbits)) => clustered(&histogram, *nbits, request.storage, context)?,
        (None, Mode::Uniform(nbits)) => {
            return Ok(uniform(&histogram, *nbits, request.storage, indices));
        }
        (None, Mode::Unique | Mode::Custom(_)) => return Err(request.too_many()),
    };
    table.error.squared_error = histogram.assign(&table.entries.values, indices);
    Ok(table)
}

/// Finds the table of `values` by k-means; its error is measured when the indices are found, by [`assign`].
pub(crate) fn fit<T: Element>(
    values: &[T],
    weights: Weights<'_>,
    nbits: Nbits,
    request: &TableRequest<'_>,
    context: &Context<'_>,
) -> Result<GroupTable, Refusal> {
    let histogram = histogram(values, weights, request, context);
    match listed(&histogram, request)? {
        Some(listed) => Ok(listed),
        None => clustered(&histogram, nbits, request.storage, context),
    }
}

/// Finds the index of each of the values that a table was [fitted](fit) to.
pub(crate) fn assign<T: Element>(values: &[T], table: &mut GroupTable, indices: &mut [u8]) {
    let histogram = ValueHistogram::new(values, Weights::Equal, Precision::Refined);
    table.error.squared_error = histogram.assign(&table.entries.values, indices);
}

fn histogram<'a, T: Element>(
    values: &'a [T],
    weights: Weights<'a>,
    request: &TableRequest<'_>,
    context: &Context<'a>,
) -> ValueHistogram<'a, T> {
    ValueHistogram::new(values, weights, request.spec.precision()).with_stop(context.stop)
}

/// The distinct values themselves, where they fit; else all must be finite.
fn listed<T: Element>(
    histogram: &ValueHistogram<'_, T>,
    request: &TableRequest<'_>,
) -> Result<Option<GroupTable>, Refusal> {
    if request.may_list()
        && let Some(distinct) = histogram.distinct(request.limit())
    {
        return Ok(Some(GroupTable::of_distinct(distinct, histogram.energy())));
    }
    refuse_non_finite(histogram.non_finite(), histogram.len())?;
    Ok(None)
}

/// The optimal table.
fn clustered<T: Element>(
    histogram: &ValueHistogram<'_, T>,
    nbits: Nbits,
    storage: Storage,
    context: &Context<'_>,
) -> Result<GroupTable, Refusal> {
    let clusters = histogram.cluster(nbits.entries());
    context.go_on()?;
    Ok(GroupTable {
        entries: entries::scalars(&clusters.centroids, storage),
        folded: Vec::new(),
        error: ErrorFigures {
            energy: histogram.energy(),
            gap: clusters.gap,
            ..ErrorFigures::default()
        },
    })
}

/// Evenly spaced entries: with the exact step, or with the step rounded to the weight's dtype as coremltools has it,
/// whichever comes out nearer once the entries are rounded.
fn uniform<T: Element>(
    histogram: &ValueHistogram<'_, T>,
    nbits: Nbits,
    storage: Storage,
    indices: &mut [u8],
) -> GroupTable {
    let rounding = storage.rounding;
    let (low, high) = histogram.range().unwrap_or_default();
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
        GroupTable {
            error: ErrorFigures {
                squared_error: histogram.assign(&entries.values, indices),
                energy: histogram.energy(),
                ..ErrorFigures::default()
            },
            entries,
            folded: Vec::new(),
        }
    };
    let coarse = rounded.is_finite().then(|| table(f64::from(rounded)));
    let exact = table(span / steps);
    match coarse {
        Some(coarse) if coarse.error.squared_error < exact.error.squared_error => {
            table(f64::from(rounded))
        }
        _ => exact,
    }
}

/// Calls the caller's function on one group, checks what it returns and rounds its entries.
///
/// `values` is the whole group, `kept` the offsets in it that count; their indices are written.
pub(crate) fn custom(
    values: &[f32],
    group: &LutGroup<'_>,
    function: &LutFunction,
    storage: Storage,
    kept: impl Iterator<Item = usize>,
    indices: &mut [u8],
) -> Result<GroupTable, Refusal> {
    let non_finite = values.iter().filter(|value| !value.is_finite()).count();
    refuse_non_finite(non_finite, values.len())?;
    let found = function.call(values, group).map_err(Refusal::Custom)?;
    let lut = checked(&found, values.len(), storage).map_err(Refusal::Custom)?;
    let mut table = GroupTable::default();
    for (at, index) in kept.zip(indices) {
        *index = found.indices[at];
        table
            .error
            .add(f64::from(values[at]), f64::from(lut[usize::from(*index)]));
    }
    table.entries.values = lut;
    Ok(table)
}

/// The entries that a function found, as they are stored; or what is wrong with them, or with the indices.
fn checked(found: &CustomLut, values: usize, storage: Storage) -> Result<Vec<f32>, String> {
    let (entries, indices) = (found.lut.len(), found.indices.len());
    if entries == 0 || entries > MOST_ENTRIES {
        return Err(format!(
            "returned {entries} entries, expected 1 to {MOST_ENTRIES}"
        ));
    }
    if let Some(entry) = found.lut.iter().find(|entry| !entry.is_finite()) {
        return Err(format!("returned the entry {entry}, expected finite ones"));
    }
    if indices != values {
        return Err(format!("returned {indices} indices for {values} values"));
    }
    if let Some(index) = found.indices.iter().find(|&&i| usize::from(i) >= entries) {
        return Err(format!("returned index {index} into {entries} entries"));
    }
    let rounding = storage.rounding;
    let stored = found
        .lut
        .iter()
        .map(|&entry| rounding.nearest(f64::from(entry)));
    let lut: Vec<f32> = stored.collect();
    if let Some(at) = lut.iter().position(|&entry| !storage.holds(entry)) {
        let under = match lut[at].is_finite() {
            true => "under the scale of a channel, ",
            false => "",
        };
        return Err(format!(
            "returned the entry {}, which is infinite {under}in {}",
            found.lut[at],
            rounding.0.name()
        ));
    }
    Ok(lut)
}
