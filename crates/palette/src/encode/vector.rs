//! One table of vectors for one group.
//!
//! The distinct vectors themselves when they fit; otherwise vector k-means, its centroids rounded as they will be
//! stored, and each vector to its nearest entry. The values are held as `f32`, one vector after the other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use palettizer_kernels::{VectorOptions, assign_vectors, cluster_vectors};

use super::entries;
use super::table::{GroupTable, TableRequest, refuse_non_finite};
use crate::{Context, ErrorFigures, Mode, Refusal};

/// Finds the table of the vectors in `values` and the index of each. `group` makes the seed the group's own.
pub(crate) fn table(
    values: &mut [f32],
    weights: Option<&[f32]>,
    request: &TableRequest<'_>,
    context: &Context<'_>,
    group: usize,
    indices: &mut [u8],
) -> Result<GroupTable, Refusal> {
    let dim = request.spec.cluster_dim();
    let mut energy = 0.0;
    let mut non_finite = 0;
    for value in values.iter_mut() {
        // One zero and one NaN, so that equal vectors have equal bits.
        *value = if value.is_nan() {
            f32::NAN
        } else {
            *value + 0.0
        };
        if value.is_finite() {
            energy += f64::from(*value) * f64::from(*value);
        } else {
            non_finite += 1;
        }
    }
    if request.may_list()
        && let Some(distinct) = distinct(values, dim, request.limit(), indices)
    {
        return Ok(GroupTable::of_distinct(distinct, energy));
    }
    refuse_non_finite(non_finite, values.len())?;
    let Mode::Kmeans(nbits) = request.spec.mode() else {
        return Err(request.too_many());
    };
    let options = VectorOptions {
        seed: group_seed(request.spec.seed(), group),
        stop: context.stop,
        ..VectorOptions::default()
    };
    let clusters = cluster_vectors(values, dim, nbits.entries(), weights, options);
    context.go_on()?;
    let targets: Vec<f64> = clusters.centroids.iter().map(|&c| f64::from(c)).collect();
    let entries = entries::vectors(&targets, request.storage);
    let squared_error = assign_vectors(values, dim, &entries.values, indices, context.stop);
    context.go_on()?;
    Ok(GroupTable {
        error: ErrorFigures {
            squared_error,
            energy,
            ..ErrorFigures::default()
        },
        entries,
        folded: Vec::new(),
    })
}

/// The distinct vectors in ascending order when there are at most `limit`, with the index of each vector.
pub(crate) fn distinct(
    values: &[f32],
    dim: usize,
    limit: usize,
    indices: &mut [u8],
) -> Option<Vec<f32>> {
    let bits: &[u32] = bytemuck::cast_slice(values);
    let mut seen: HashMap<&[u32], u8> = HashMap::with_capacity(limit);
    let mut order: Vec<usize> = Vec::with_capacity(limit);
    for (at, (vector, index)) in bits.chunks_exact(dim).zip(indices.iter_mut()).enumerate() {
        let next = order.len();
        *index = match seen.entry(vector) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) if next < limit => {
                order.push(at);
                *entry.insert(next as u8)
            }
            Entry::Vacant(_) => return None,
        };
    }
    let vector = |at: usize| &values[at * dim..][..dim];
    let mut ranked: Vec<usize> = (0..order.len()).collect();
    ranked.sort_by(|&a, &b| {
        let (a, b) = (vector(order[a]), vector(order[b]));
        let unequal = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
        unequal.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    let mut rank = vec![0; order.len()];
    for (new, &old) in ranked.iter().enumerate() {
        rank[old] = new as u8;
    }
    for index in indices.iter_mut() {
        *index = rank[usize::from(*index)];
    }
    Some(
        ranked
            .iter()
            .flat_map(|&old| vector(order[old]))
            .copied()
            .collect(),
    )
}

/// A seed of the group's own: SplitMix64's finalizer over seed and number.
pub(crate) fn group_seed(seed: u64, group: usize) -> u64 {
    let mut z = seed.wrapping_add((group as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
