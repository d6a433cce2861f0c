//! A plan carried out: weights palettized in batches of bounded memory, and stored in the order of the plan.
//!
//! Inside a batch weights are worked on in parallel, while what came of the batch before is stored. So the memory that is
//! needed does not grow with the model, and the bytes that come out do not depend on the number of threads.

use crate::batch::in_batches;
use crate::config::OptimizationConfig;
use crate::format::{Format, Weight};
use crate::planned::{Decision, Job, Plan, Planned, SkipReason};
use crate::report::Figures;
use crate::{Error, Progress, Sensitivities, go_on};
use palettizer_palette::{Context, Palette, Refusal, Tensor, palettize};
use std::sync::atomic::AtomicBool;

/// Vectors and scaled weights are clustered as fp32 copies: they take so many times the memory of others.
const COPIED: u64 = 4;

/// Bytes of one sensitivity; a weight that is copied has a copy of its sensitivities too.
const SENSITIVITY: u64 = 4;

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
                Ok(palette) => {
                    let (stored, bytes) = store(planned, &palette)?;
                    let (nbits, luts) = (palette.nbits.bits(), palette.luts());
                    let figures = job.figures(nbits, luts, &palette.error, bytes);
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
fn memory<P>(weight: &Weight<P>, job: &Job) -> u64 {
    let copied = job.spec.cluster_dim() > 1 || job.spec.per_channel_scale();
    let (times, copies) = if copied { (COPIED, 2) } else { (1, 1) };
    let values = weight.bytes.saturating_mul(times);
    match job.sensitivity {
        None => values,
        Some(_) => {
            let each = SENSITIVITY * copies;
            values.saturating_add((weight.elements() as u64).saturating_mul(each))
        }
    }
}

/// What palettizing one weight takes from the run.
struct Worker<'a, F> {
    format: &'a F,
    sensitivities: Option<&'a Sensitivities>,
    stop: Option<&'a AtomicBool>,
}

impl<F: Format> Worker<'_, F> {
    /// Palettizes one weight; the inner error says why it stays as it is.
    fn palettize(
        &self,
        weight: &Weight<F::Place>,
        job: &Job,
    ) -> Result<Result<Palette, Refusal>, F::Error> {
        go_on(self.stop)?;
        let values = self.format.values(weight)?;
        let tensor = Tensor::new(job.source.dtype, &weight.shape, &values.bytes);
        let tensor = tensor.map_err(|error| Error::Values {
            name: weight.name().to_owned(),
            what: error.to_string(),
        })?;
        let sensitivity = match (self.sensitivities, &job.sensitivity) {
            (Some(from), Some(name)) => Some(from.read(name, &weight.shape)?),
            _ => None,
        };
        let context = Context {
            output_axis: weight.output_axis,
            mask: values.mask.as_deref(),
            sensitivity: sensitivity.as_deref(),
            layerwise: None,
            stop: self.stop,
        };
        let mut palette = palettize(&tensor, &job.spec, &context);
        self.format.finish(weight, &values, palette.as_mut().ok())?;
        match palette {
            Err(Refusal::Stopped) => Err(Error::Stopped.into()),
            palette => Ok(palette),
        }
    }
}
