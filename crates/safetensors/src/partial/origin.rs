//! What a palette was made from, so that nothing else passes for the same.

use crate::Error;
use crate::checkpoint::Opened;
use crate::weights::Place;
use palettizer_pipeline::{Job, Sensitivities, Weight};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use twox_hash::xxhash3_128;

/// What one weight is palettized from, as far as its palette depends on it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// Of this crate, whose next version may find other palettes.
    version: String,
    /// Every field of the spec.
    spec: BTreeMap<String, String>,
    /// The weight's type and shape, and a hash of its bytes.
    source: String,
    /// A hash of the sensitivities that weigh, if there are any.
    sensitivity: Option<String>,
}

impl Origin {
    pub(super) fn new(
        opened: &Opened,
        weight: &Weight<Place>,
        job: &Job,
        sensitivities: Option<&Sensitivities>,
    ) -> Result<Self, Error> {
        let fields = job.spec.fields().into_iter();
        let (item, entry) = opened.dense(weight.place)?;
        let shard = &opened.shards[item.shard];
        let hash = hashed(shard.data(entry).chunks(STRETCH));
        shard.release(entry);
        let sensitivity = match (&job.sensitivity, sensitivities) {
            (Some(name), Some(sensitivities)) => {
                let values = sensitivities.read(name, &entry.shape)?;
                Some(hashed(values.chunks(STRETCH).map(bytemuck::cast_slice)))
            }
            _ => None,
        };
        Ok(Origin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            spec: fields
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            source: format!("{} {:?} {hash}", entry.element.name(), entry.shape),
            sensitivity,
        })
    }

    /// How a palette that was made from `self` differs from one that is made from `other`; `None` if it does not.
    pub(super) fn differs(&self, other: &Origin) -> Option<String> {
        if self.version != other.version {
            let (found, expected) = (&self.version, &other.version);
            return Some(format!("by palettizer {found}, expected {expected}"));
        }
        let names: BTreeSet<&String> = self.spec.keys().chain(other.spec.keys()).collect();
        let field = |name: &&String| {
            let value = |origin: &Origin| origin.spec.get(*name).map_or("none", |v| v).to_owned();
            let (found, expected) = (value(self), value(other));
            (found != expected).then(|| format!("{name} {found}, expected {expected}"))
        };
        let fields: Vec<String> = names.iter().filter_map(field).collect();
        if !fields.is_empty() {
            return Some(format!("with {}", fields.join(", ")));
        }
        if self.source != other.source {
            let (found, expected) = (&self.source, &other.source);
            return Some(format!("from another weight: {found}, expected {expected}"));
        }
        let differ = match (&self.sensitivity, &other.sensitivity) {
            (found, expected) if found == expected => return None,
            (Some(_), None) => "with sensitivities, expected none",
            (None, _) => "without sensitivities, expected some",
            (Some(_), Some(_)) => "with other sensitivities",
        };
        Some(differ.to_owned())
    }
}

/// Elements that are hashed at once.
const STRETCH: usize = 1 << 20;

/// XXH3 of all bytes, in 128 bits.
fn hashed<'b>(stretches: impl Iterator<Item = &'b [u8]>) -> String {
    let mut hasher = xxhash3_128::Hasher::new();
    stretches.for_each(|stretch| hasher.write(stretch));
    format!("{:032x}", hasher.finish_128())
}
