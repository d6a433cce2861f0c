//! Which weights of a plan are clustered by sensitivities, and by which.

use crate::Error;
use crate::config::Sensitivities;
use crate::palettize::plan::{Decision, Job, Planned};
use palettizer_palette::Mode;
use std::collections::HashMap;

/// Gives every weight that k-means will cluster its sensitivities: by its own name, or by that of a constant that shares
/// its data.
///
/// # Errors
/// [`Error::Sensitivities`] for all that are missing or of another shape.
pub(crate) fn assign(weights: &mut [Planned<'_>], from: &Sensitivities) -> Result<(), Error> {
    let mut sharing: HashMap<(&str, u64), Vec<&str>> = HashMap::new();
    for planned in &*weights {
        if let Decision::Compress(job) = &planned.decision
            && let Some(place) = place(job)
        {
            let names = planned.sites.iter().map(|site| site.name.as_str());
            sharing.entry(place).or_default().extend(names);
        }
    }
    let wanted = weights.iter().filter_map(|planned| {
        let job = clustered(&planned.decision)?;
        let own = planned.sites.iter().map(|site| site.name.as_str());
        let others = place(job).and_then(|place| sharing.get(&place));
        let names = own.chain(others.into_iter().flatten().copied());
        Some((names.collect(), planned.shape.as_slice()))
    });
    let mut assigned = from.assign(wanted)?.into_iter();
    for planned in weights {
        if clustered(&planned.decision).is_some()
            && let Decision::Compress(job) = &mut planned.decision
        {
            job.sensitivity = assigned.next().flatten();
        }
    }
    Ok(())
}

/// The job of a weight that k-means clusters: the other modes know no sensitivities.
fn clustered<'p, 'a>(decision: &'p Decision<'a>) -> Option<&'p Job<'a>> {
    match decision {
        Decision::Compress(job) if matches!(job.spec.mode(), Mode::Kmeans(_)) => Some(job),
        _ => None,
    }
}

fn place<'a>(job: &Job<'a>) -> Option<(&'a str, u64)> {
    let place = job.value.blob_file.as_ref()?;
    Some((place.file_name.as_str(), place.offset))
}
