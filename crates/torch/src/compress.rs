//! A checkpoint palettized: in one run, or in parts that are assembled.

use crate::Error;
use crate::checkpoint::{Checkpoint, Item, Kind, Opened, foreign_metadata};
use crate::compact::{FORMAT, VERSION, WEIGHTS, weights_json};
use crate::made::{Made, make};
use crate::output;
use crate::part::{self, Part};
use crate::plan::{Decision, Job, Plan, Skip, check_strict, plan, row};
use crate::write::{self, Piece};
use palettizer_coreml::Progress;
use palettizer_coreml::config::{OptimizationConfig, Unmatched};
use palettizer_coreml::report::WeightReport;
use palettizer_coreml::save::{self, Beside};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// What palettizing a checkpoint came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Bytes of the shards before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// What became of every tensor, in the order of the checkpoint.
    pub weights: Vec<WeightReport>,
    /// Names of the configuration that fit nothing.
    pub unmatched: Vec<Unmatched>,
}

impl Checkpoint {
    /// The weights that `config` palettizes, with their bytes, in the order of the checkpoint: what
    /// [`compress_part`](Self::compress_part) can make parts of.
    ///
    /// # Errors
    /// As [`compress_to`](Self::compress_to), before anything is written.
    pub fn jobs(&self, config: &OptimizationConfig) -> Result<Vec<(&str, u64)>, Error> {
        let plan = plan(&self.0, config)?;
        let bytes = |item: &Item, job: &Job| self.0.entry(item, job.at).range.len() as u64;
        let rows = plan.rows.iter();
        let jobs = rows.filter_map(|planned| Some((planned.item, planned.job()?)));
        Ok(jobs
            .map(|(item, job)| (item.name.as_str(), bytes(item, job)))
            .collect())
    }

    /// Palettizes to `out`: a file if the checkpoint is one, or else a folder with shards of the same names and an index.
    ///
    /// Memory does not grow with the checkpoint, and the bytes do not depend on the number of threads. For a while, `out`
    /// takes twice the bytes of the palettized weights.
    ///
    /// # Errors
    /// [`Error::Unsuited`], [`Error::NameTaken`] or [`Error::OutputKind`], and in [`Error::Model`] what a strict
    /// configuration, sensitivities and the output's place may give. Then `out` is as it was before.
    pub fn compress_to(
        &self,
        config: &OptimizationConfig,
        out: &Path,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        let plan = plan(&self.0, config)?;
        let beside = output::prepare(&self.0, out, overwrite)?;
        let spool = beside.scratch().join("spool");
        let sensitivities = config.sensitivity();
        let made = make(&self.0, &jobs(&plan), sensitivities, &spool, progress);
        let made = output::named(&beside, self.0.settle(made))?;
        put_together(&self.0, config, plan, &[&made], beside, progress)
    }

    /// Palettizes some of the weights to a part, a file at `out` that [`assemble`](Self::assemble) takes. The weights are
    /// of those that [`jobs`](Self::jobs) lists.
    ///
    /// # Errors
    /// [`Error::NoJob`] for a weight that is none of those; else as [`compress_to`](Self::compress_to). What values refuse
    /// is no error yet: the part says so.
    pub fn compress_part(
        &self,
        names: &[impl AsRef<str>],
        config: &OptimizationConfig,
        out: &Path,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let plan = plan(&self.0, config)?;
        let by_name = by_name(&plan);
        let job = |name: &str| {
            by_name.get(name).copied().ok_or_else(|| Error::NoJob {
                name: name.to_owned(),
                reason: why_not(&plan, name),
            })
        };
        let jobs = names.iter().map(|name| job(name.as_ref()));
        let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
        let beside = output::file(out, overwrite)?;
        let spool = beside.scratch().join("spool");
        let made = make(&self.0, &jobs, config.sensitivity(), &spool, progress);
        let made = output::named(&beside, self.0.settle(made))?;
        let written = part::write(&beside.built(), &self.0, &jobs, config.sensitivity(), &made);
        output::named(&beside, self.0.settle(written))?;
        Ok(beside.put()?)
    }

    /// Puts parts together to the checkpoint that [`compress_to`](Self::compress_to) would write, byte for byte.
    ///
    /// # Errors
    /// [`Error::Part`] for a file that is no part, or was made of another weight or by another configuration;
    /// [`Error::MissingParts`]; else as [`compress_to`](Self::compress_to).
    pub fn assemble(
        &self,
        config: &OptimizationConfig,
        parts: &[impl AsRef<Path>],
        out: &Path,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        let plan = plan(&self.0, config)?;
        let beside = output::prepare(&self.0, out, overwrite)?;
        let by_name = by_name(&plan);
        let mut opened = Vec::with_capacity(parts.len());
        for path in parts {
            let part = Part::open(path.as_ref())?;
            part.belongs(&self.0, &by_name, config.sensitivity())?;
            opened.push(part.made);
        }
        let made: Vec<&Made> = opened.iter().collect();
        let there = |name: &str| made.iter().any(|made| made.weights.contains_key(name));
        let missing = jobs(&plan).into_iter().map(|(item, _)| item.name.as_str());
        let missing: Vec<&str> = missing.filter(|name| !there(name)).collect();
        if let [first, ..] = missing.as_slice() {
            return Err(Error::MissingParts {
                count: missing.len(),
                first: (*first).to_owned(),
            });
        }
        put_together(&self.0, config, plan, &made, beside, progress)
    }
}

fn jobs<'p>(plan: &'p Plan<'_>) -> Vec<(&'p Item, &'p Job)> {
    let rows = plan.rows.iter();
    rows.filter_map(|planned| Some((planned.item, planned.job()?)))
        .collect()
}

fn by_name<'p>(plan: &'p Plan<'_>) -> HashMap<&'p str, (&'p Item, &'p Job)> {
    let jobs = jobs(plan).into_iter();
    jobs.map(|(item, job)| (item.name.as_str(), (item, job)))
        .collect()
}

fn why_not(plan: &Plan<'_>, name: &str) -> String {
    let row = plan.rows.iter().find(|planned| planned.item.name == name);
    match row.map(|planned| &planned.decision) {
        Some(Decision::Skip(skip)) => skip.to_string(),
        _ => "the checkpoint has no such tensor".to_owned(),
    }
}

/// Writes the new checkpoint, whose palettized weights are all in `made`, and puts it in its place.
fn put_together(
    opened: &Opened,
    config: &OptimizationConfig,
    plan: Plan<'_>,
    made: &[&Made],
    beside: Beside,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let find = |name: &str| {
        let mut made = made.iter();
        made.find_map(|made| Some((made.weights.get(name)?, &made.bytes)))
    };
    let Plan {
        mut rows,
        unmatched,
    } = plan;
    let mut reports = Vec::with_capacity(rows.len());
    let mut fates = Vec::with_capacity(rows.len());
    for planned in &mut rows {
        let found = planned.job().and_then(|_| find(&planned.item.name));
        if let Some((Err(reason), _)) = found {
            planned.decision = Decision::Skip(Skip::Refused(reason.clone()));
        }
        let mut report = row(opened, planned);
        let mut fate = None;
        if let (Some((Ok(weight), bytes)), Some(job)) = (found, planned.job()) {
            weight.report(job, &mut report);
            fate = Some((weight, bytes));
        }
        fates.push(fate);
        reports.push(report);
    }
    check_strict(config, &rows)?;

    let shards = opened.shards.iter().enumerate().map(|(number, shard)| {
        let mut metas = BTreeMap::new();
        let mut pieces: Vec<Piece<'_>> = Vec::new();
        let own = rows.iter().zip(&fates);
        for (planned, fate) in own.filter(|(planned, _)| planned.item.shard == number) {
            let name = planned.item.name.as_str();
            match (&planned.item.kind, fate) {
                (_, Some((weight, bytes))) => {
                    metas.insert(name, &weight.meta);
                    pieces.extend(weight.pieces(name, bytes));
                }
                (Kind::Dense(at), None) => {
                    pieces.push(Piece::copy(shard, opened.entry(planned.item, *at)));
                }
                (Kind::Palette(stored), None) => {
                    metas.insert(name, &stored.meta);
                    pieces.extend(stored.entries(shard).map(|entry| Piece::copy(shard, entry)));
                }
            }
        }
        let mut metadata: BTreeMap<String, String> = foreign_metadata(shard).collect();
        if !metas.is_empty() {
            let json = weights_json(&metas);
            let json =
                json.map_err(|error| palettizer_coreml::Error::writing(&shard.path, error.into()))?;
            metadata.insert(FORMAT.to_owned(), VERSION.to_owned());
            metadata.insert(WEIGHTS.to_owned(), json);
        }
        Ok((metadata, pieces))
    });
    let built = opened.settle(build(opened, shards, &beside, progress));
    let bytes_after = output::named(&beside, built)?;
    for part in made {
        part.bytes.unchanged()?;
    }
    beside.put()?;
    Ok(Outcome {
        bytes_before: opened.len(),
        bytes_after,
        weights: reports,
        unmatched,
    })
}

/// Writes shards, each with its metadata and tensors, and the index if there is one. Gives the bytes of the shards.
pub(crate) fn build<'a>(
    opened: &Opened,
    shards: impl Iterator<Item = Result<(BTreeMap<String, String>, Vec<Piece<'a>>), Error>>,
    beside: &Beside,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let built = beside.built();
    let Some(index) = &opened.index else {
        let mut bytes = 0;
        for shard in shards {
            let (metadata, pieces) = shard?;
            bytes += write::write(&built, &metadata, pieces, progress)?;
        }
        return Ok(bytes);
    };
    fs::create_dir(&built).map_err(|source| palettizer_coreml::Error::writing(&built, source))?;
    let (mut bytes, mut total_size) = (0, 0);
    let mut files = BTreeMap::new();
    for (shard, made) in opened.shards.iter().zip(shards) {
        let (metadata, pieces) = made?;
        for piece in &pieces {
            total_size += piece.len as u64;
            files.insert(piece.name.clone(), shard.name());
        }
        bytes += write::write(&built.join(shard.name()), &metadata, pieces, progress)?;
    }
    let path = built.join(index.path.file_name().unwrap_or_default());
    let fail = |source| palettizer_coreml::Error::writing(&path, source);
    let text = index
        .rewritten(&files, total_size)
        .map_err(|error| fail(error.into()))?;
    save::write(&path, text.as_ref()).map_err(fail)?;
    Ok(bytes)
}
