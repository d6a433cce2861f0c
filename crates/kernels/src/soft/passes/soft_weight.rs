//! The pass that makes the soft weight, A·C.

use super::chunk;
use super::tiles::{Met, Pass, PerCluster, accumulators, floored};
use crate::soft::centers::Centers;
use crate::soft::chunk::{TILE, visit};
use crate::soft::options::SoftGroup;
use crate::soft::real::{Real, SoftElement};
use crate::soft::scratch::{Needs, Scratch};

/// A·C for the centroids after the last step.
pub(in crate::soft) fn soft_weight<E: SoftElement>(
    group: &SoftGroup<'_, E>,
    centers: &Centers<E::Real>,
    centroids: &[E::Real],
    out: &mut [E],
) {
    let pass = SoftWeight(PerCluster::new(centers, centroids));
    let scratch = || Scratch::new(group.vectors(), centers, pass.needs(centers));
    visit(group, out, 0, scratch, |scratch, vectors, place, sums| {
        chunk(&pass, group, None, centers, scratch, &vectors, sums);
        scratch.y.scale(group, vectors.clone(), false);
        scratch.y.store(group, vectors, place);
    });
}

struct SoftWeight<R>(PerCluster<R>);

impl<R: Real> Pass<R> for SoftWeight<R> {
    fn needs(&self, _: &Centers<R>) -> Needs {
        Needs {
            y: true,
            ..Needs::default()
        }
    }

    #[inline(always)]
    fn tile<const D: usize>(&self, centers: &Centers<R>, scratch: &mut Scratch<R>, tile: Met<R>) {
        let SoftWeight(after) = self;
        let dim = if D == 0 { centers.dim } else { D };
        let Met {
            at,
            range,
            attended,
            ..
        } = tile;
        let Scratch {
            y,
            rows,
            coordinates,
            ..
        } = scratch;
        let mut registers = [[R::ZERO; TILE]; 4];
        let rest = after.outside(centers, &range);
        let w = accumulators::<R, D>(&mut registers, coordinates, rest);
        for (row, j) in rows.iter().zip(range) {
            let a = floored(row, &attended.inverse, centers.floor);
            for (w, &c) in w.iter_mut().zip(&after.values[j * dim..(j + 1) * dim]) {
                for l in 0..TILE {
                    w[l] += a[l] * c;
                }
            }
        }
        for (e, w) in w.iter().enumerate() {
            y.set(e, at, *w);
        }
    }
}
