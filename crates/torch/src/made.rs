//! Palettized weights on their way into a new file: in a spool of this run, or in a part that another run made.
//!
//! How many bytes a weight takes is not certain before it is palettized: mode unique takes the bits that the values
//! need, and values can refuse. So weights are spooled first, and the file, whose header comes first, is assembled from
//! the spool. Memory stays bounded: weights are worked on in batches of a bounded number of bytes, in parallel inside a
//! batch, while the batch before is written in the order of the plan.

use crate::Error;
use crate::batch::in_batches;
use crate::checkpoint::{Item, Opened};
use crate::compact::{Meta, Role, parts};
use crate::element::ElementType;
use crate::plan::{Job, OUTPUT_AXIS};
use crate::write::{Piece, Source};
use palettizer_coreml::Progress;
use palettizer_coreml::blob::Bytes;
use palettizer_coreml::config::Sensitivities;
use palettizer_coreml::report::{Status, WeightReport};
use palettizer_coreml::save::NewFile;
use palettizer_palette::{
    Context, ErrorFigures, Granularity, Mode, Palette, Refusal, Tensor, palettize,
};
use std::collections::HashMap;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

/// Vectors and scaled weights are clustered as fp32 copies: they take so many times the memory of others.
const COPIED: u64 = 4;

/// Bytes of memory for each sensitivity.
const SENSITIVITY: u64 = 4;

/// Palettized weights in a file.
#[derive(Debug)]
pub(crate) struct Made {
    /// The file.
    pub bytes: Bytes,
    /// The weights in it by name, or the reasons why they cannot be palettized.
    pub weights: HashMap<String, Result<Weight, String>>,
}

/// A palettized weight in a file.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    pub meta: Meta,
    pub nbits: u32,
    pub luts: usize,
    pub figures: ErrorFigures,
    pub parts: Vec<Placed>,
}

/// A tensor of a palettized weight in a file.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub role: Role,
    pub element: ElementType,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

impl Weight {
    /// Its tensors, to be written.
    pub(crate) fn pieces<'a>(
        &'a self,
        name: &'a str,
        bytes: &'a Bytes,
    ) -> impl Iterator<Item = Piece<'a>> {
        self.parts.iter().map(move |part| Piece {
            name: part.role.of(name),
            element: part.element,
            shape: part.shape.clone(),
            len: part.range.len(),
            source: Source::File(bytes, part.range.clone()),
        })
    }

    /// Fills in its row of the report.
    pub(crate) fn report(&self, job: &Job, row: &mut WeightReport) {
        let spec = &job.spec;
        let granularity = spec.granularity();
        row.status = Status::Compressed;
        row.reason = None;
        row.nbits = Some(self.nbits);
        row.mode = Some(spec.mode().name().to_owned());
        row.granularity = Some(granularity.name().to_owned());
        row.group_size = match granularity {
            Granularity::PerTensor => None,
            Granularity::PerGroupedChannel { group_size, .. } => Some(group_size),
        };
        row.cluster_dim = Some(spec.cluster_dim());
        row.sensitivity = Some(job.sensitivity.is_some());
        row.luts = Some(self.luts);
        let bytes = self.parts.iter().map(|part| part.range.len() as u64);
        row.bytes_after = bytes.sum();
        row.mse = Some(self.figures.mse());
        row.snr_db = Some(self.figures.snr_db()).filter(|snr| snr.is_finite());
        let scalar_kmeans = matches!(spec.mode(), Mode::Kmeans(_)) && spec.cluster_dim() == 1;
        row.optimality_gap = scalar_kmeans.then_some(self.figures.gap);
    }
}

/// Palettizes weights into a new file at `spool`.
pub(crate) fn make(
    opened: &Opened,
    jobs: &[(&Item, &Job)],
    sensitivities: Option<&Sensitivities>,
    spool: &Path,
    progress: &dyn Progress,
) -> Result<Made, Error> {
    let bytes = |job: &(&Item, &Job)| opened.entry(job.0, job.1.at).range.len() as u64;
    progress.start(jobs.len(), jobs.iter().map(bytes).sum());
    let mut spool = Spool::create(spool)?;
    let mut weights = HashMap::with_capacity(jobs.len());
    in_batches(
        jobs,
        |job| cost(opened, job),
        |(item, job)| one(opened, item, job, sensitivities, progress),
        |job, palette| {
            let made = match palette? {
                Ok(palette) => Ok(spool.append(&palette)?),
                Err(refusal) => Err(refusal.to_string()),
            };
            weights.insert(job.0.name.clone(), made);
            progress.advance(&job.0.name, bytes(job));
            Ok(())
        },
        progress,
    )?;
    progress.finish();
    let bytes = spool.finish()?;
    Ok(Made { bytes, weights })
}

/// Bytes of memory that a weight takes while it is palettized.
fn cost(opened: &Opened, (item, job): &(&Item, &Job)) -> u64 {
    let entry = opened.entry(item, job.at);
    let bytes = entry.range.len() as u64;
    let copied = job.spec.cluster_dim() > 1 || job.spec.per_channel_scale();
    let values = bytes.saturating_mul(if copied { COPIED } else { 1 });
    let sensitivities = match job.sensitivity {
        Some(_) => SENSITIVITY.saturating_mul(entry.elements() as u64),
        None => 0,
    };
    values.saturating_add(sensitivities)
}

/// What came of one weight; the inner error says why it stays as it is.
type Palettized = Result<Result<Palette, Refusal>, Error>;

/// Palettizes one weight.
fn one(
    opened: &Opened,
    item: &Item,
    job: &Job,
    sensitivities: Option<&Sensitivities>,
    progress: &dyn Progress,
) -> Palettized {
    let shard = &opened.shards[item.shard];
    let entry = opened.entry(item, job.at);
    let tensor = Tensor::new(job.dtype, &entry.shape, shard.data(entry));
    let tensor = tensor.map_err(|error| Error::Damaged {
        path: shard.path.clone(),
        what: format!("tensor \"{}\": {error}", entry.name),
    })?;
    let sensitivity = match (sensitivities, &job.sensitivity) {
        (Some(all), Some(name)) => Some(all.read(name, &entry.shape)?),
        _ => None,
    };
    let context = Context {
        output_axis: Some(OUTPUT_AXIS),
        mask: None,
        sensitivity: sensitivity.as_deref(),
        stop: progress.stop(),
    };
    let palette = palettize(&tensor, &job.spec, &context);
    shard.release(entry);
    match palette {
        Err(Refusal::Stopped) => Err(palettizer_coreml::Error::Stopped.into()),
        palette => Ok(palette),
    }
}

/// A file that palettes are appended to.
struct Spool {
    path: std::path::PathBuf,
    out: BufWriter<NewFile>,
    len: usize,
}

impl Spool {
    fn create(path: &Path) -> Result<Self, Error> {
        let file = NewFile::create(path);
        let file = file.map_err(|source| palettizer_coreml::Error::writing(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 20, file),
            len: 0,
        })
    }

    fn append(&mut self, palette: &Palette) -> Result<Weight, Error> {
        let mut placed = Vec::new();
        for (role, element, shape, bytes) in parts(palette) {
            let fail = |source| palettizer_coreml::Error::writing(&self.path, source);
            self.out.write_all(bytes).map_err(fail)?;
            let start = self.len;
            self.len += bytes.len();
            placed.push(Placed {
                role,
                element,
                shape,
                range: start..self.len,
            });
        }
        Ok(Weight {
            meta: Meta::from(palette),
            nbits: palette.nbits.bits(),
            luts: palette.luts(),
            figures: palette.error,
            parts: placed,
        })
    }

    /// The file's bytes.
    fn finish(mut self) -> Result<Bytes, Error> {
        let fail = |source| palettizer_coreml::Error::writing(&self.path, source);
        self.out.flush().map_err(fail)?;
        match self.len {
            0 => Ok(Bytes::from(Vec::new())),
            _ => Ok(Bytes::map(self.out.get_ref().file()).map_err(fail)?),
        }
    }
}
