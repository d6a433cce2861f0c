//! A part: some of a checkpoint's weights, palettized by another run, to be assembled with others.
//!
//! A part is a safetensors file in the compact form, with one more string in its metadata: `palettizer.part`, which is
//! JSON and says for each weight what it was made from (all of it, so that nothing else passes for the same) and how far it
//! is from that, or why it could not be made.

use crate::Error;
use crate::checkpoint::{Item, Opened};
use crate::compact::{FORMAT, Role, Stored, VERSION, WEIGHTS, parse_weights, weights_json};
use crate::header::Entry;
use crate::json::Object;
use crate::made::{Made, Placed, Weight};
use crate::plan::Job;
use crate::shard::Shard;
use crate::write::{self, Piece};
use palettizer_coreml::config::Sensitivities;
use palettizer_palette::ErrorFigures;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use twox_hash::xxhash3_128;

/// The metadata key.
const PART: &str = "palettizer.part";

/// A part, read.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    pub made: Made,
    notes: BTreeMap<String, Note>,
}

/// What a part says of one weight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    asked: Asked,
    made: Result<Figures, String>,
}

/// Error figures, bit for bit: JSON has no infinity, and its numbers are not read back exactly.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    squared_error: u64,
    energy: u64,
    elements: usize,
    gap: u64,
}

impl From<ErrorFigures> for Figures {
    fn from(figures: ErrorFigures) -> Self {
        Figures {
            squared_error: figures.squared_error.to_bits(),
            energy: figures.energy.to_bits(),
            elements: figures.elements,
            gap: figures.gap.to_bits(),
        }
    }
}

impl From<&Figures> for ErrorFigures {
    fn from(figures: &Figures) -> Self {
        ErrorFigures {
            squared_error: f64::from_bits(figures.squared_error),
            energy: f64::from_bits(figures.energy),
            elements: figures.elements,
            gap: f64::from_bits(figures.gap),
        }
    }
}

/// Writes what was made of `jobs` as a part at `path`, which must not exist.
pub(crate) fn write(
    path: &Path,
    opened: &Opened,
    jobs: &[(&Item, &Job)],
    sensitivities: Option<&Sensitivities>,
    made: &Made,
) -> Result<(), Error> {
    let mut notes = BTreeMap::new();
    let mut metas = BTreeMap::new();
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    for (item, job) in jobs {
        let Some(weight) = made.weights.get(&item.name) else {
            continue;
        };
        if let Ok(weight) = weight {
            metas.insert(item.name.as_str(), &weight.meta);
            pieces.extend(weight.pieces(&item.name, &made.bytes));
        }
        let figures = |weight: &Weight| Figures::from(weight.figures);
        let note = Note {
            asked: Asked::new(opened, item, job, sensitivities)?,
            made: weight.as_ref().map(figures).map_err(String::clone),
        };
        notes.insert(&item.name, note);
    }
    let json = |error: serde_json::Error| {
        Error::from(palettizer_coreml::Error::writing(path, error.into()))
    };
    let metadata = BTreeMap::from([
        (FORMAT.to_owned(), VERSION.to_owned()),
        (WEIGHTS.to_owned(), weights_json(&metas).map_err(json)?),
        (
            PART.to_owned(),
            serde_json::to_string(&notes).map_err(json)?,
        ),
    ]);
    write::write(path, &metadata, pieces, &())?;
    Ok(())
}

impl Part {
    /// Reads a part.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let shard = Shard::open(path)?;
        let bad = |what| Error::Part {
            path: path.to_owned(),
            what,
        };
        let none = BTreeMap::new();
        let metadata = shard.header.metadata.as_ref().unwrap_or(&none);
        let notes = metadata
            .get(PART)
            .filter(|_| metadata.get(FORMAT).map(String::as_str) == Some(VERSION));
        let notes = notes.ok_or_else(|| bad("no part of a checkpoint".to_owned()))?;
        let notes: Object<Note> =
            serde_json::from_str(notes).map_err(|error| bad(format!("{PART}: {error}")))?;
        let metas = metadata.get(WEIGHTS).map_or("{}", String::as_str);
        let metas = parse_weights(metas).map_err(|error| bad(format!("{WEIGHTS}: {error}")))?;
        let tensors = &shard.header.tensors;
        let names = tensors.iter().enumerate();
        let at: HashMap<&str, usize> = names.map(|(at, entry)| (entry.name.as_str(), at)).collect();
        let mut weights = HashMap::new();
        for (name, note) in &notes.0 {
            let weight = match &note.made {
                Err(refused) => Err(refused.clone()),
                Ok(figures) => {
                    let meta = metas.get(name);
                    let meta =
                        meta.ok_or_else(|| bad(format!("\"{name}\" is not in {WEIGHTS}")))?;
                    let stored = Stored::find(name, meta, tensors, &at)
                        .map_err(|what| bad(format!("\"{name}\": {what}")))?;
                    Ok(weight(&stored, tensors, name, figures.into()))
                }
            };
            weights.insert(name.clone(), weight);
        }
        Ok(Self {
            path: path.to_owned(),
            notes: notes.0,
            made: Made {
                bytes: shard.bytes,
                weights,
            },
        })
    }

    /// Checks that every weight is one of these jobs, made of this checkpoint.
    pub(crate) fn belongs(
        &self,
        opened: &Opened,
        jobs: &HashMap<&str, (&Item, &Job)>,
        sensitivities: Option<&Sensitivities>,
    ) -> Result<(), Error> {
        let bad = |what| Error::Part {
            path: self.path.clone(),
            what,
        };
        for (name, note) in &self.notes {
            let (item, job) = jobs.get(name.as_str()).ok_or_else(|| {
                bad(format!(
                    "\"{name}\" is no weight that this configuration palettizes"
                ))
            })?;
            let asked = Asked::new(opened, item, job, sensitivities)?;
            if let Some(how) = note.asked.differs(&asked) {
                return Err(bad(format!("\"{name}\" was palettized {how}")));
            }
            if let Some(Ok(weight)) = self.made.weights.get(name)
                && !weight
                    .meta
                    .is_of(&opened.entry(item, job.at).shape, job.dtype)
            {
                return Err(bad(format!("\"{name}\" has another shape or type")));
            }
        }
        Ok(())
    }
}

/// A stored weight, with its parts placed in the file.
fn weight(stored: &Stored, tensors: &[Entry], name: &str, figures: ErrorFigures) -> Weight {
    let entries = stored.positions().map(|at| &tensors[at]);
    let role = |entry: &Entry| {
        Role::ALL
            .into_iter()
            .find(|role| role.of(name) == entry.name)
    };
    let placed = entries.filter_map(|entry| {
        Some(Placed {
            role: role(entry)?,
            element: entry.element,
            shape: entry.shape.clone(),
            range: entry.range.clone(),
        })
    });
    Weight {
        meta: stored.meta.clone(),
        nbits: stored.nbits.bits(),
        luts: stored.luts(),
        figures,
        parts: placed.collect(),
    }
}

/// What one weight is palettized from, as far as its palette depends on it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Of this crate, whose next version may find other palettes.
    version: String,
    /// Every field of the spec.
    spec: BTreeMap<String, String>,
    /// The weight's type and shape, and a hash of its bytes.
    source: String,
    /// A hash of the sensitivities that weigh, if there are any.
    sensitivity: Option<String>,
}

impl Asked {
    fn new(
        opened: &Opened,
        item: &Item,
        job: &Job,
        sensitivities: Option<&Sensitivities>,
    ) -> Result<Self, Error> {
        let fields = job.spec.fields().into_iter();
        let entry = opened.entry(item, job.at);
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
        Ok(Asked {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            spec: fields
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            source: format!("{} {:?} {hash}", entry.element.name(), entry.shape),
            sensitivity,
        })
    }

    /// How a palette that was made from `self` differs from one that is made from `other`; `None` if it does not.
    fn differs(&self, other: &Asked) -> Option<String> {
        if self.version != other.version {
            let (found, expected) = (&self.version, &other.version);
            return Some(format!("by palettizer {found}, expected {expected}"));
        }
        let names: BTreeSet<&String> = self.spec.keys().chain(other.spec.keys()).collect();
        let field = |name: &&String| {
            let value = |asked: &Asked| asked.spec.get(*name).map_or("none", |v| v).to_owned();
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
