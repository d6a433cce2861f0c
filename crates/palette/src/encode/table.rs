//! What a group's table is to be, and what came of it.

use super::entries::Entries;
use super::storage::Storage;
use crate::{ErrorFigures, LutDtype, PaletteSpec, Refusal};

/// The most entries any table has.
pub(crate) const MOST_ENTRIES: usize = 256;

/// What is asked of the tables of a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableRequest<'a> {
    pub(crate) spec: &'a PaletteSpec,
    pub(crate) storage: Storage,
    /// Whether entries are values of the group's own dtype, so that listing the distinct ones loses nothing.
    pub(crate) exact: bool,
}

impl TableRequest<'_> {
    /// The most entries.
    pub(crate) fn limit(&self) -> usize {
        self.spec
            .mode()
            .nbits()
            .map_or(MOST_ENTRIES, |nbits| nbits.entries())
    }

    /// Whether the distinct values may be the entries, if there are few enough.
    pub(crate) fn may_list(&self) -> bool {
        self.exact && self.storage.lut_dtype == LutDtype::Float
    }

    /// Of a mode that only lists, and there are too many to list.
    pub(crate) fn too_many(&self) -> Refusal {
        Refusal::TooManyDistinct {
            limit: self.limit(),
            vectors: self.spec.cluster_dim() > 1,
        }
    }
}

/// The finished table of a group, and what it cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupTable {
    pub(crate) entries: Entries,
    /// With a folded scale: that of each output channel of the group.
    pub(crate) folded: Vec<f32>,
    /// The error of what was clustered, or of the final weights where there is a per-channel scale. Its elements are
    /// counted for the whole weight alone.
    pub(crate) error: ErrorFigures,
}

impl GroupTable {
    /// A table of the very values of a group.
    pub(crate) fn of_distinct(values: Vec<f32>, energy: f64) -> Self {
        let quantized = None;
        GroupTable {
            entries: Entries { values, quantized },
            error: ErrorFigures {
                energy,
                ..ErrorFigures::default()
            },
            ..GroupTable::default()
        }
    }
}

/// Refuses values that no mean can be taken of.
pub(crate) fn refuse_non_finite(count: usize, elements: usize) -> Result<(), Refusal> {
    match count {
        0 => Ok(()),
        count => Err(Refusal::NonFinite { count, elements }),
    }
}
