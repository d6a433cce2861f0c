//! A plan carried out: weights palettized in batches of bounded memory, and stored in the order of the plan.
//!
//! Inside a batch weights are worked on in parallel, while what came of the batch before is stored. So the memory that is
//! needed does not grow with the model, and the bytes that come out do not depend on the number of threads.

use crate::batch::in_batches;
use crate::config::OptimizationConfig;
use crate::format::{Format, Weight};
use crate::planned::{Decision, Job, Plan, Planned, SkipReason};
use crate::report::Figures;
use crate::{Error, Inputs, Progress, Sensitivities, Statistics, Values, go_on};
use palettizer_palette::{Context, Layerwise, Palette, PaletteSpec, Refusal, Tensor, palettize};
use std::sync::atomic::AtomicBool;

/// Vectors and scaled weights are clustered as fp32 copies: they take so many times the memory of others.
const COPIED: u64 = 4;

/// Bytes of one sensitivity; a weight that is copied has a copy of its sensitivities too.
const SENSITIVITY: u64 = 4;

/// Bytes for each element of a weight that is fitted: it is a matrix in single precision, indices beside it.
const MATRIX: u64 = 10;

/// Bytes of one second moment: as it is read, damped in double precision, and half of that for its factor.
const MOMENT: u64 = 16;

/// A weight palettized and stored.
#[derive(Clone, Debug)]
pub struct Done<T> {
    /// What the format knows of it.
    pub stored: T,
    /// What the report says of it.
    pub figures: Figures,
}

/// Palettizes the weights of a plan. `store` takes their palettes in the order of the plan, and gives what the format has
/// to know of each, with the bytes that it takes now. What the values forbid becomes a skip in the plan.
///
/// # Errors
/// What reading and storing give, [`Error::Strict`], and [`Error::Stopped`] when `progress` asks for it.
pub fn execute<F: Format, T: Send>(
    format: &F,
    plan: &mut Plan<F::Place>,
    config: &OptimizationConfig,
    mut store: impl FnMut(&Planned<F::Place>, &Palette) -> Result<(T, u64), F::Error> + Send,
    progress: &dyn Progress,
) -> Result<Vec<Option<Done<T>>>, F::Error> {
    let planned = plan.weights.iter().enumerate();
    let jobs: Vec<_> = planned
        .filter_map(|(at, planned)| Some((at, planned, planned.job()?)))
        .collect();
    let bytes = jobs.iter().map(|(_, planned, _)| planned.weight.bytes);
    progress.start(jobs.len(), bytes.sum());
    let worker = Worker {
        format,
        sensitivities: config.sensitivity(),
        statistics: config.statistics(),
        stop: progress.stop(),
    };
    let mut done: Vec<Option<Done<T>>> = plan.weights.iter().map(|_| None).collect();
    let mut refused = Vec::new();
    in_batches(
        &jobs,
        |(_, planned, job)| memory(&planned.weight, job),
        |(_, planned, job)| worker.palettize(&planned.weight, job),
        |&(at, planned, job), palette| {
            match palette? {
                Ok((palette, fallback)) => {
                    let (stored, bytes) = store(planned, &palette)?;
                    let (nbits, luts) = (palette.nbits.bits(), palette.luts());
                    let mut figures = job.figures(nbits, luts, &palette.error, bytes);
                    figures.fitted(palette.fit.as_ref(), fallback);
                    done[at] = Some(Done { stored, figures });
                }
                Err(refusal) => refused.push((at, refusal.to_string())),
            }
            progress.advance(planned.weight.name(), planned.weight.bytes);
            Ok::<(), F::Error>(())
        },
        progress,
    )?;
    for (at, reason) in refused {
        plan.weights[at].decision = Decision::Skip(SkipReason::Refused(reason));
    }
    plan.check_strict(config)?;
    Ok(done)
}

/// About how much memory a weight takes while it is palettized.
pub(crate) fn memory<P>(weight: &Weight<P>, job: &Job) -> u64 {
    let copied = job.spec.cluster_dim() > 1 || job.spec.per_channel_scale();
    let (times, copies) = if copied { (COPIED, 2) } else { (1, 1) };
    let elements = weight.elements() as u64;
    let values = weight.bytes.saturating_mul(times);
    let inputs = job.inputs.as_ref();
    let moments = inputs.and_then(|inputs| inputs.moments.as_ref());
    let moments = moments.and_then(|(_, shape)| shape.numbers());
    let weighs = job.sensitivity.is_some() || inputs.is_some_and(Inputs::weighs);
    let fitted = inputs.is_some_and(Inputs::fits);
    let each = [(weighs, SENSITIVITY * copies), (fitted, MATRIX)];
    let each: u64 = each.iter().filter(|(is, _)| *is).map(|(_, b)| b).sum();
    values
        .saturating_add(elements.saturating_mul(each))
        .saturating_add((moments.unwrap_or(0) as u64).saturating_mul(MOMENT))
}

/// What palettizing weights takes from the run.
pub(crate) struct Worker<'a, F> {
    pub(crate) format: &'a F,
    pub(crate) sensitivities: Option<&'a Sensitivities>,
    pub(crate) statistics: Option<&'a Statistics>,
    pub(crate) stop: Option<&'a AtomicBool>,
}

/// A palette, and why it was not fitted to the inputs of its layer.
pub(crate) type Made = (Palette, Option<String>);

/// A weight that is being worked on, as its file has it.
pub(crate) struct Loaded<'w, P> {
    weight: &'w Weight<P>,
    job: &'w Job,
    values: Values<'w>,
    /// The sensitivities, from 0 to 1, and what the largest is.
    pub(crate) sensitivity: Option<(Vec<f32>, f32)>,
}

impl<P> Loaded<'_, P> {
    /// Its values.
    pub(crate) fn tensor(&self) -> Result<Tensor<'_>, Error> {
        let tensor = Tensor::new(
            self.job.source.dtype,
            &self.weight.shape,
            &self.values.bytes,
        );
        tensor.map_err(|error| Error::Values {
            name: self.weight.name().to_owned(),
            what: error.to_string(),
        })
    }
}

impl<F: Format> Worker<'_, F> {
    /// Palettizes one weight; the inner error says why it stays as it is.
    fn palettize(
        &self,
        weight: &Weight<F::Place>,
        job: &Job,
    ) -> Result<Result<Made, Refusal>, F::Error> {
        self.make(&self.load(weight, job)?, &job.spec)
    }

    /// What a weight is palettized from.
    pub(crate) fn load<'w>(
        &'w self,
        weight: &'w Weight<F::Place>,
        job: &'w Job,
    ) -> Result<Loaded<'w, F::Place>, F::Error> {
        go_on(self.stop)?;
        let values = self.format.values(weight)?;
        let sensitivity = match (self.sensitivities, &job.sensitivity) {
            (Some(from), Some(name)) => Some(from.read_scaled(name, &weight.shape)?),
            _ => None,
        };
        Ok(Loaded {
            weight,
            job,
            values,
            sensitivity,
        })
    }

    /// Palettizes a weight by a spec; the inner error says why that cannot be.
    pub(crate) fn make(
        &self,
        loaded: &Loaded<'_, F::Place>,
        spec: &PaletteSpec,
    ) -> Result<Result<Made, Refusal>, F::Error> {
        go_on(self.stop)?;
        let (weight, tensor) = (loaded.weight, loaded.tensor()?);
        let sensitivity = loaded.sensitivity.as_ref();
        let context = Context {
            output_axis: weight.output_axis,
            mask: loaded.values.mask.as_deref(),
            sensitivity: sensitivity.map(|(values, _)| values.as_slice()),
            layerwise: None,
            stop: self.stop,
        };
        let mut made = match (self.statistics, &loaded.job.inputs) {
            (Some(from), Some(inputs)) => fit(&tensor, spec, &context, from, inputs)?,
            _ => palettize(&tensor, spec, &context).map(|palette| (palette, None)),
        };
        let palette = made.as_mut().ok().map(|(palette, _)| palette);
        self.format.finish(weight, &loaded.values, palette)?;
        match made {
            Err(Refusal::Stopped) => Err(Error::Stopped.into()),
            made => Ok(made),
        }
    }
}

/// Fits one weight to the inputs of its layer, or clusters it where that cannot be done.
fn fit(
    tensor: &Tensor<'_>,
    spec: &PaletteSpec,
    context: &Context<'_>,
    from: &Statistics,
    inputs: &Inputs,
) -> Result<Result<Made, Refusal>, Error> {
    let weights = |diagonal: bool| match context.sensitivity {
        Some(_) => Ok(None),
        None => from.weights(inputs, tensor.shape(), diagonal),
    };
    let mut reason = inputs.fallback.clone();
    if let (None, Some((name, shape))) = (&reason, &inputs.moments) {
        let moments = from.moments(name, *shape)?;
        let start = weights(false)?;
        let context = Context {
            sensitivity: start.as_deref().or(context.sensitivity),
            layerwise: Some(Layerwise {
                moments: &moments,
                shape: *shape,
                settings: from.settings(),
            }),
            ..*context
        };
        match palettize(tensor, spec, &context) {
            Err(refusal @ Refusal::Layerwise(_)) => reason = Some(refusal.to_string()),
            palette => return Ok(palette.map(|palette| (palette, None))),
        }
    }
    let weights = weights(true)?;
    let context = Context {
        sensitivity: weights.as_deref().or(context.sensitivity),
        ..*context
    };
    let palette = palettize(tensor, spec, &context);
    Ok(palette.map(|palette| (palette, reason)))
}
