//! The nearest centroid, with the first one favoured.

use super::centers::Centers;
use super::chunk::{Columns, TILE, visit};
use super::options::{SoftGroup, SoftOptions};
use super::real::{Real, SoftElement};
use super::tile::distance;
use crate::simd::dispatch;

/// The index of the nearest of at most 256 centroids for each vector, block of rows by block of rows, the lowest of several.
/// The squared distance to the first is lowered by `prune_threshold`.
///
/// ```
/// use palettizer_kernels::{SoftGroup, soft_nearest};
///
/// let group = SoftGroup { values: &[0.1_f32, 0.45, 0.6], cols: 3, dim: 1, scale: None };
/// let mut indices = [0; 3];
/// soft_nearest(&group, &[1.0, 0.0], 0.0, &mut indices);
/// assert_eq!(indices, [1, 1, 0]);
/// soft_nearest(&group, &[1.0, 0.0], 0.2, &mut indices);
/// assert_eq!(indices, [1, 0, 0]);
/// ```
///
/// # Panics
/// If the lengths contradict each other.
pub fn soft_nearest<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centroids: &[E::Real],
    prune_threshold: f64,
    indices: &mut [u8],
) {
    let dim = group.dim;
    let options = SoftOptions {
        prune_threshold,
        ..SoftOptions::default()
    };
    // Few vectors: so that no windows are made, and vectors stay in order.
    let mut centers = Centers::new(centroids, dim, 0, &options, 0);
    // In their own order, so that the lowest index comes first.
    centers.values = centroids.to_vec();
    centers.first = 0;
    let columns = || Columns::new(group.vectors(), dim);
    visit(
        group,
        indices,
        0,
        columns,
        |x, vectors, (out, origin), _| {
            x.load(group, group.values, vectors.clone());
            x.scale(group, vectors.clone(), true);
            x.pad(vectors.len());
            let out = &mut out[vectors.start - origin..vectors.end - origin];
            nearest_chunk(&centers, x, out);
        },
    );
}

dispatch! {
    fn nearest_chunk<R: Real>(centers: &Centers<R>, x: &Columns<R>, indices: &mut [u8]) = nearest_body
}

#[inline(always)]
fn nearest_body<R: Real>(centers: &Centers<R>, x: &Columns<R>, indices: &mut [u8]) {
    let dim = centers.dim;
    for (at, indices) in (0..).step_by(TILE).zip(indices.chunks_mut(TILE)) {
        let mut least = [R::INFINITY; TILE];
        let mut best = [R::ZERO; TILE];
        for (j, c) in centers.values.chunks_exact(dim).enumerate() {
            let lowered = if j == 0 { -centers.lowered } else { R::ZERO };
            let d = distance(lowered, c, x, at);
            let number = R::from_f64(j as f64);
            for l in 0..TILE {
                let nearer = d[l] < least[l];
                least[l] = if nearer { d[l] } else { least[l] };
                best[l] = if nearer { number } else { best[l] };
            }
        }
        for (index, best) in indices.iter_mut().zip(best) {
            *index = best.to_f64() as u8;
        }
    }
}
