//! Which of the statistics belong to which weight, and what they are good for.

use super::{FISHER, FREQUENCY, Inputs, MOMENTS, Statistics};
use crate::Error;
use crate::format::Format;
use crate::planned::{Decision, Planned};
use crate::sensitivity::named;
use palettizer_palette::{MomentsShape, layout};
use std::collections::HashSet;

/// Says for every weight that is to be palettized whether it is fitted to the inputs of its layer, and why not.
///
/// # Errors
/// [`Error::ForeignStatistics`] if nothing is known of any weight; [`Error::Statistics`] for second moments that are no square matrices;
/// [`Error::StatisticsFile`]; what the format objects to.
pub(crate) fn assign<F: Format>(
    format: &F,
    weights: &mut [Planned<F::Place>],
    from: &Statistics,
) -> Result<(), F::Error> {
    let known: HashSet<String> = from.source.names().into_iter().collect();
    let mut found = Vec::new();
    let mut foreign = true;
    for (at, names) in named(weights, |_| true) {
        let planned = &weights[at];
        let about = names.iter().find_map(|name| About::new(name, &known));
        let inputs = match about {
            Some(about) => about.inputs(format, from, planned)?,
            None => Inputs {
                output_axis: planned.weight.output_axis.unwrap_or(0),
                fallback: Some("there are no statistics of it".to_owned()),
                ..Inputs::default()
            },
        };
        let used =
            inputs.moments.is_some() || inputs.fisher.is_some() || inputs.frequency.is_some();
        foreign &= !used;
        found.push((at, inputs));
    }
    if foreign && !found.is_empty() {
        let names = found.iter().map(|(at, _)| weights[*at].weight.name());
        let names = names.map(str::to_owned).collect();
        let reason = found.iter().find_map(|(_, inputs)| inputs.fallback.clone());
        return Err(Error::ForeignStatistics {
            weights: names,
            known: weights_of(&known),
            reason: reason.unwrap_or_default(),
        }
        .into());
    }
    for (at, inputs) in found {
        let axis = &mut weights[at].weight.output_axis;
        if axis.is_some() || inputs.fits() {
            *axis = Some(inputs.output_axis);
        }
        if let Decision::Compress(job) = &mut weights[at].decision {
            job.inputs = Some(inputs);
        }
    }
    Ok(())
}

/// The weights that something is known of.
fn weights_of(known: &HashSet<String>) -> Vec<String> {
    let weight = |name: &String| {
        let mut endings = [MOMENTS, FISHER, FREQUENCY].into_iter();
        endings.find_map(|ending| name.strip_suffix(ending).map(str::to_owned))
    };
    let mut weights: Vec<String> = known.iter().filter_map(weight).collect();
    weights.sort_unstable();
    weights.dedup();
    weights
}

/// What there is about a weight: names of tensors.
struct About<'n> {
    /// The weight's.
    name: &'n str,
    moments: Option<String>,
    fisher: Option<String>,
    frequency: Option<String>,
}

impl<'n> About<'n> {
    /// `None` if there is nothing about it.
    fn new(name: &'n str, known: &HashSet<String>) -> Option<Self> {
        let tensor = |ending: &str| Some(format!("{name}{ending}")).filter(|it| known.contains(it));
        let about = About {
            name,
            moments: tensor(MOMENTS),
            fisher: tensor(FISHER),
            frequency: tensor(FREQUENCY),
        };
        let all = [&about.moments, &about.fisher, &about.frequency];
        all.iter().any(|it| it.is_some()).then_some(about)
    }

    /// What of that can be used for the weight.
    fn inputs<F: Format>(
        self,
        format: &F,
        from: &Statistics,
        planned: &Planned<F::Place>,
    ) -> Result<Inputs, F::Error> {
        let (weight, Some(job)) = (&planned.weight, planned.job()) else {
            return Ok(Inputs::default());
        };
        let mut axis = weight.output_axis;
        let mut refused = None;
        if let Some(other) = from.axis(self.name, weight.shape.len())?
            && axis != Some(other)
        {
            let fits = layout(&weight.shape, Some(other), &job.spec);
            match format.accepts(weight, &job.spec, fits)? {
                Ok(()) => axis = Some(other),
                Err(refusal) => refused = Some(format!("along output axis {other}: {refusal}")),
            }
        }
        let output_axis = axis.unwrap_or(0);
        let shaped = |name: Option<String>, shape: &[usize]| {
            name.filter(|name| from.source.shape(name).is_some_and(|found| found == shape))
        };
        let mut inputs = Inputs {
            moments: None,
            fisher: shaped(self.fisher, &weight.shape),
            frequency: shaped(self.frequency, &[weight.shape[output_axis]]),
            output_axis,
            fallback: refused,
        };
        match self.moments {
            _ if inputs.fallback.is_some() => {}
            None => inputs.fallback = Some("there are no second moments of its inputs".to_owned()),
            Some(name) => {
                let moments = moments_shape(from, &name)?;
                let matches = moments.matches(&weight.shape, output_axis);
                inputs.moments = matches.is_ok().then_some((name, moments));
                let (dtype, masked) = (job.source.dtype, job.source.masked);
                let fits = matches
                    .and_then(|()| layout(&weight.shape, axis, &job.spec))
                    .and_then(|layout| {
                        MomentsShape::suits(Some(moments), &layout, &job.spec, dtype, masked)
                    });
                inputs.fallback = fits.err().map(|refusal| refusal.to_string());
            }
        }
        Ok(inputs)
    }
}

/// How the second moments of this name are divided.
fn moments_shape(from: &Statistics, name: &str) -> Result<MomentsShape, Error> {
    let found = from.source.shape(name).unwrap_or_default();
    MomentsShape::of(&found).ok_or_else(|| Error::Statistics {
        name: name.to_owned(),
        what: format!(
            "the shape {found:?}, expected [n, n], [row_runs, n, n] or [row_runs, blocks, n, n]"
        ),
    })
}
