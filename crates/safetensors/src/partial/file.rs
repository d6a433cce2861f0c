//! A part: some of a checkpoint's weights, palettized by another run, to be assembled with others.
//!
//! A part is a safetensors file in the compact form, with one more string in its metadata: `palettizer.part`, which is
//! JSON and says for each weight what it was made from (all of it, so that nothing else passes for the same) and how far it
//! is from that, or why it could not be made.

use super::origin::Origin;
use crate::Error;
use crate::checkpoint::Opened;
use crate::compact::{FORMAT, Stored, VERSION, WEIGHTS, metadata, parse_weights};
use crate::json::Object;
use crate::shard::Shard;
use crate::spool::Spooled;
use crate::weights::Place;
use crate::write::{self, Piece};
use palettizer_palette::ErrorFigures;
use palettizer_pipeline::mapped_file::MappedFile;
use palettizer_pipeline::{Decision, Done, Error as PipelineError, Plan, Sensitivities};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// The metadata key.
const PART: &str = "palettizer.part";

/// A part, read.
#[derive(Debug)]
pub(super) struct PartialResult {
    path: PathBuf,
    /// The file.
    pub(super) file: MappedFile,
    /// The weights in it by name, or the reasons why they cannot be palettized.
    pub(super) weights: HashMap<String, Result<Spooled, String>>,
    notes: BTreeMap<String, Note>,
}

/// What a part says of one weight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    #[serde(rename = "asked")]
    origin: Origin,
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

/// Writes the weights of a plan as a part at `path`, which must not exist. What values refuse is a skip in the plan.
pub(super) fn write(
    path: &Path,
    plan: &Plan<Place>,
    origins: Vec<Option<Origin>>,
    spooled: &[Option<Done<Spooled>>],
    file: &MappedFile,
) -> Result<(), Error> {
    let mut notes = BTreeMap::new();
    let mut metas = BTreeMap::new();
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let weights = plan.weights.iter().zip(origins).zip(spooled);
    for ((planned, origin), done) in weights {
        let name = planned.weight.name();
        let made = match (done, &planned.decision) {
            (Some(done), _) => {
                metas.insert(name, done.stored.meta.clone());
                pieces.extend(done.stored.pieces(file));
                Ok(Figures::from(done.stored.figures))
            }
            (None, Decision::Skip(reason)) => Err(reason.to_string()),
            (None, Decision::Compress(_)) => continue,
        };
        if let Some(origin) = origin {
            notes.insert(name, Note { origin, made });
        }
    }
    let notes = serde_json::to_string(&notes)
        .map_err(|error| PipelineError::writing(path, error.into()))?;
    let mut strings: BTreeMap<_, _> = metadata(path, &metas)?.into_iter().collect();
    strings.insert(PART.to_owned(), notes);
    write::write(path, &strings, pieces, &())?;
    Ok(())
}

impl PartialResult {
    /// Reads a part.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let shard = Shard::open(path)?;
        let bad = |what| Error::Part {
            path: path.to_owned(),
            what,
        };
        let metadata = &shard.header.metadata;
        let notes = metadata
            .get(PART)
            .filter(|_| metadata.get(FORMAT).map(String::as_str) == Some(VERSION));
        let notes = notes.ok_or_else(|| bad("no part of a checkpoint".to_owned()))?;
        let notes: Object<Note> =
            serde_json::from_str(notes).map_err(|error| bad(format!("{PART}: {error}")))?;
        let metas = metadata.get(WEIGHTS).map_or("{}", String::as_str);
        let metas = parse_weights(metas).map_err(|error| bad(format!("{WEIGHTS}: {error}")))?;
        let places = shard.header.places();
        let mut weights = HashMap::new();
        for (name, note) in &notes.0 {
            let weight = match &note.made {
                Err(refused) => Err(refused.clone()),
                Ok(figures) => {
                    let meta = metas.get(name);
                    let meta =
                        meta.ok_or_else(|| bad(format!("\"{name}\" is not in {WEIGHTS}")))?;
                    let stored = Stored::find(name, meta, &shard.header.tensors, &places)
                        .map_err(|what| bad(format!("\"{name}\": {what}")))?;
                    Ok(Spooled {
                        parts: stored.entries(&shard).cloned().collect(),
                        nbits: stored.nbits.bits(),
                        luts: stored.luts(),
                        meta: stored.meta,
                        figures: figures.into(),
                    })
                }
            };
            weights.insert(name.clone(), weight);
        }
        Ok(Self {
            path: path.to_owned(),
            file: shard.bytes,
            weights,
            notes: notes.0,
        })
    }

    /// Checks that every weight is one of these jobs, made of this checkpoint.
    pub(super) fn belongs(
        &self,
        opened: &Opened,
        plan: &Plan<Place>,
        sensitivities: Option<&Sensitivities>,
    ) -> Result<(), Error> {
        let bad = |what| Error::Part {
            path: self.path.clone(),
            what,
        };
        for (name, note) in &self.notes {
            let job = plan.jobs().find(|(weight, _)| weight.name() == name);
            let (weight, job) = job.ok_or_else(|| {
                bad(format!(
                    "\"{name}\" is no weight that this configuration palettizes"
                ))
            })?;
            let origin = Origin::new(opened, weight, job, sensitivities)?;
            if let Some(how) = note.origin.differs(&origin) {
                return Err(bad(format!("\"{name}\" was palettized {how}")));
            }
            if let Some(Ok(spooled)) = self.weights.get(name)
                && !spooled.meta.is_of(&weight.shape, job.source.dtype)
            {
                return Err(bad(format!("\"{name}\" has another shape or type")));
            }
        }
        Ok(())
    }
}
