//! A part: some of a checkpoint's weights, palettized by another run, to be assembled with others.
//!
//! A part is a safetensors file in the compact form, with one more string in its metadata: `palettizer.part`, which is
//! JSON and says for each weight what it was made of and how far it is from that, or why it could not be made.

use crate::Error;
use crate::checkpoint::{Item, Opened};
use crate::compact::{FORMAT, Role, Stored, VERSION, WEIGHTS, parse_weights, weights_json};
use crate::header::Entry;
use crate::json::Object;
use crate::made::{Made, Placed, Weight};
use crate::plan::{Job, text};
use crate::shard::Shard;
use crate::write::{self, Piece};
use palettizer_palette::ErrorFigures;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

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
    /// What was asked for.
    spec: String,
    /// What the weight was, and whether sensitivities weighed.
    source: String,
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
            spec: text(&job.spec),
            source: source(opened, item, job),
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
            if note.spec != text(&job.spec) {
                return Err(bad(format!(
                    "\"{name}\" was palettized otherwise: {}, expected {}",
                    note.spec,
                    text(&job.spec)
                )));
            }
            if note.source != source(opened, item, job) {
                return Err(bad(format!("\"{name}\" was made of another weight")));
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

/// Where a weight is looked at to know it again.
const SAMPLES: usize = 64;

/// Bytes that are looked at in each place.
const SAMPLE: usize = 64;

/// What tells a weight from another one of its name: its type and shape, a hash (FNV-1a) of bytes from places all over
/// it, and whether sensitivities weigh.
fn source(opened: &Opened, item: &Item, job: &Job) -> String {
    let shard = &opened.shards[item.shard];
    let entry = opened.entry(item, job.at);
    let data = shard.data(entry);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let step = (data.len() / SAMPLES).max(SAMPLE);
    for place in data.chunks(step) {
        for &byte in place.iter().take(SAMPLE) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    shard.release(entry);
    let weighted = match job.sensitivity {
        Some(_) => ", weighted",
        None => "",
    };
    format!(
        "{} {:?} {hash:016x}{weighted}",
        entry.element.name(),
        entry.shape
    )
}
