//! What will happen to every tensor, and why, decided before anything is written.

use crate::Error;
use crate::checkpoint::{Item, Kind, Opened};
use crate::compact::Role;
use crate::element::ElementType;
use palettizer_coreml::config::{
    Names, OpPalettizerConfig, OptimizationConfig, PresetEntries, PresetEntry, Sensitivities,
    Unmatched,
};
use palettizer_coreml::report::WeightReport;
use palettizer_palette::{Dtype, Mode, Nbits, PaletteSpec, Refusal, layout, suits};

/// Weights of checkpoints have their output channels on the first axis.
pub(crate) const OUTPUT_AXIS: usize = 0;

/// The plan of a whole checkpoint.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Every tensor and palettized weight, in the order of the checkpoint.
    pub rows: Vec<Planned<'a>>,
    /// Names of the configuration that fit nothing.
    pub unmatched: Vec<Unmatched>,
}

/// What will happen to one tensor.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub item: &'a Item,
    pub decision: Decision,
}

#[derive(Debug)]
pub(crate) enum Decision {
    /// It is palettized.
    Compress(Job),
    /// It is left alone.
    Skip(Skip),
}

/// A weight to palettize.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its place in the shard's header.
    pub at: usize,
    pub dtype: Dtype,
    pub spec: PaletteSpec,
    /// The name of its sensitivities, where they weigh.
    pub sensitivity: Option<String>,
}

/// Why a tensor is left alone; the text stands in the report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Skip {
    #[error("the configuration skips it")]
    Null,
    #[error("{0}")]
    Preset(&'static str),
    #[error("no configuration applies to it")]
    Unset,
    #[error("already palettized ({nbits} bits)")]
    Palettized { nbits: Nbits },
    #[error("{} is no type of a weight: expected fp16, bf16 or fp32", .element.shown())]
    Element { element: ElementType },
    #[error("one-dimensional")]
    OneDimensional,
    #[error("a scalar")]
    Scalar,
    #[error("no more elements than the weight_threshold of {threshold}")]
    Small { threshold: usize },
    /// It cannot be palettized as asked.
    #[error("{0}")]
    Refused(String),
}

impl Skip {
    /// Whether the weight was to be palettized and could not be: what strict mode objects to.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Skip::Refused(_))
    }
}

impl From<Refusal> for Skip {
    fn from(refusal: Refusal) -> Self {
        Skip::Refused(refusal.to_string())
    }
}

impl Planned<'_> {
    pub(crate) fn job(&self) -> Option<&Job> {
        match &self.decision {
            Decision::Compress(job) => Some(job),
            Decision::Skip(_) => None,
        }
    }
}

/// Plans what `config` asks of a checkpoint.
///
/// # Errors
/// [`Error::Unsuited`] for what only programs have, [`Error::NameTaken`], and in [`Error::Model`] `Pattern` for a key that
/// is neither name nor pattern, `Strict` if a weight cannot be palettized and the configuration is strict, and
/// `Sensitivities` if those do not fit.
pub(crate) fn plan<'a>(opened: &'a Opened, config: &OptimizationConfig) -> Result<Plan<'a>, Error> {
    suited(config)?;
    let known = opened.items.iter().map(|item| item.name.as_str()).collect();
    let names = Names::new(config.op_names(), &known)?;
    let preset = config.preset();
    let preset = preset.map(|preset| PresetEntries::new(preset, config.global()));
    let rules = Rules {
        names,
        preset: preset.transpose()?,
        global: config.global(),
    };
    let mut rows = Vec::with_capacity(opened.items.len());
    for item in &opened.items {
        let decision = match decide(opened, item, &rules) {
            Ok(job) => Decision::Compress(job),
            Err(skip) => Decision::Skip(skip),
        };
        if matches!(decision, Decision::Compress(_)) {
            name_free(opened, item)?;
        }
        rows.push(Planned { item, decision });
    }
    let tensors = || opened.items.iter().map(|item| item.name.as_str());
    let unmatched = rules.names.unmatched();
    let unmatched = unmatched.map(|key| Unmatched::among(key, tensors()));
    let unmatched = unmatched.collect();
    check_strict(config, &rows)?;
    if let Some(sensitivities) = config.sensitivity() {
        weigh(opened, &mut rows, sensitivities)?;
    }
    Ok(Plan { rows, unmatched })
}

/// Gives every weight that k-means will cluster its sensitivities: those of its name.
fn weigh(
    opened: &Opened,
    rows: &mut [Planned<'_>],
    sensitivities: &Sensitivities,
) -> Result<(), Error> {
    let clustered = |job: &Job| matches!(job.spec.mode(), Mode::Kmeans(_));
    let wanted = rows.iter().filter_map(|planned| {
        let job = planned.job().filter(|job| clustered(job))?;
        let shape = opened.entry(planned.item, job.at).shape.as_slice();
        Some((vec![planned.item.name.as_str()], shape))
    });
    let mut assigned = sensitivities.assign(wanted)?.into_iter();
    for planned in rows {
        if let Decision::Compress(job) = &mut planned.decision
            && clustered(job)
        {
            job.sensitivity = assigned.next().flatten();
        }
    }
    Ok(())
}

/// Strict mode lets no failure pass.
pub(crate) fn check_strict(config: &OptimizationConfig, rows: &[Planned<'_>]) -> Result<(), Error> {
    let failure = |planned: &Planned<'_>| match &planned.decision {
        Decision::Skip(skip) if skip.is_failure() => {
            Some((planned.item.name.clone(), skip.to_string()))
        }
        _ => None,
    };
    let skipped: Vec<_> = rows.iter().filter_map(failure).collect();
    match config.strict() && !skipped.is_empty() {
        true => Err(palettizer_coreml::Error::Strict { skipped }.into()),
        false => Ok(()),
    }
}

/// Refuses what a checkpoint cannot have.
fn suited(config: &OptimizationConfig) -> Result<(), Error> {
    let unsuited = |what: String, advice| Err(Error::Unsuited { what, advice });
    if let Some(op_type) = config.op_types().keys().next() {
        return unsuited(
            format!("op type \"{op_type}\""),
            "it has tensors and no ops; configure tensors by their names, or by patterns of them",
        );
    }
    if config.minimum_deployment_target().is_some() {
        return unsuited(
            "a minimum deployment target".to_owned(),
            "only Core ML programs have one",
        );
    }
    if config.joint_compression() {
        return unsuited(
            "joint compression".to_owned(),
            "only Core ML programs store pruned or quantized weights that can be palettized too",
        );
    }
    Ok(())
}

/// The names of a weight's parts must be free.
fn name_free(opened: &Opened, item: &Item) -> Result<(), Error> {
    let names = Role::ALL.map(|role| role.of(&item.name));
    match names.into_iter().find(|name| opened.item(name).is_some()) {
        None => Ok(()),
        Some(taken) => Err(Error::NameTaken {
            weight: item.name.clone(),
            taken,
        }),
    }
}

/// What a configuration says of tensors.
struct Rules<'c> {
    names: Names<'c>,
    preset: Option<PresetEntries>,
    global: Option<&'c OpPalettizerConfig>,
}

impl Rules<'_> {
    /// The first that is set of: the tensor's name, a pattern of names, the preset, the global configuration.
    fn of(&self, name: &str) -> Result<&OpPalettizerConfig, Skip> {
        if let Some(entry) = self.names.entry(name) {
            return entry.ok_or(Skip::Null);
        }
        let preset = self.preset.as_ref();
        match preset.and_then(|preset| preset.entry(&[name], None)) {
            Some(PresetEntry::Config(config)) => Ok(config),
            Some(PresetEntry::Leave(reason)) => Err(Skip::Preset(reason)),
            None => self.global.ok_or(Skip::Unset),
        }
    }
}

fn decide(opened: &Opened, item: &Item, rules: &Rules<'_>) -> Result<Job, Skip> {
    let at = match &item.kind {
        Kind::Dense(at) => *at,
        Kind::Palette(stored) => {
            let nbits = stored.nbits;
            return Err(Skip::Palettized { nbits });
        }
    };
    let entry = opened.entry(item, at);
    let element = entry.element;
    let dtype = element.palette_dtype().ok_or(Skip::Element { element })?;
    match entry.shape.len() {
        0 => return Err(Skip::Scalar),
        1 => return Err(Skip::OneDimensional),
        _ => {}
    }
    let op_config = rules.of(&item.name)?;
    let (elements, threshold) = (entry.elements(), op_config.weight_threshold());
    if elements <= threshold {
        return Err(Skip::Small { threshold });
    }
    let spec = op_config.spec().clone();
    layout(&entry.shape, Some(OUTPUT_AXIS), &spec)?;
    suits(dtype, false, &spec)?;
    Ok(Job {
        at,
        dtype,
        spec,
        sensitivity: None,
    })
}

/// The report's row of a tensor that stays as it is; [`super::made::Done`] fills in the rest.
pub(crate) fn row(opened: &Opened, planned: &Planned<'_>) -> WeightReport {
    let item = planned.item;
    let (shape, element, bytes) = match &item.kind {
        Kind::Dense(at) => {
            let entry = opened.entry(item, *at);
            (entry.shape.clone(), entry.element, entry.range.len() as u64)
        }
        Kind::Palette(stored) => {
            let bytes = stored.bytes(&opened.shards[item.shard]);
            (stored.shape().to_vec(), stored.dtype.into(), bytes)
        }
    };
    let skip = match &planned.decision {
        Decision::Skip(skip) => Some(skip),
        Decision::Compress(_) => None,
    };
    let mut row = WeightReport::untouched(item.name.clone(), shape, element.shown(), bytes);
    row.reason = skip.map(ToString::to_string);
    row.refused = skip.is_some_and(Skip::is_failure);
    row
}
