//! The memory that one thread works in, and how a chunk comes into it and out again.

use std::ops::Range;

use super::centers::Centers;
use super::chunk::{Columns, TILE};
use super::options::SoftGroup;
use super::real::{Real, SoftElement};
use super::tile::{Partial, Tile, flush};
use super::window::Inside;

/// Memory of one thread.
pub(super) struct Scratch<R> {
    pub(super) x: Columns<R>,
    pub(super) g: Columns<R>,
    pub(super) y: Columns<R>,
    pub(super) rows: Vec<Tile<R>>,
    pub(super) more: Vec<Tile<R>>,
    pub(super) coordinates: Vec<Tile<R>>,
    pub(super) partial: Vec<Partial<R>>,
    pub(super) order: Vec<u16>,
    pub(super) moved: Vec<R>,
    pub(super) inside: Vec<Inside>,
}

/// What of the scratch a pass needs.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    /// What the gradient of the output is.
    pub(super) g: bool,
    /// Room for a result.
    pub(super) y: bool,
    /// A second number for each vector and cluster of a tile.
    pub(super) more: bool,
    /// Sums over vectors.
    pub(super) slots: usize,
    /// Sums of each cluster, the first of the slots, that clusters outside of a tile's run have a part in, at the floor.
    pub(super) inside: usize,
}

impl<R: Real> Scratch<R> {
    pub(super) fn new(vectors: usize, centers: &Centers<R>, needs: Needs) -> Self {
        let columns = |wanted| Columns::new(if wanted { vectors } else { 0 }, centers.dim);
        let rows = |wanted| vec![[R::ZERO; TILE]; if wanted { centers.k } else { 0 }];
        Scratch {
            x: columns(true),
            g: columns(needs.g),
            y: columns(needs.y),
            rows: rows(true),
            more: rows(needs.more),
            coordinates: vec![[R::ZERO; TILE]; centers.dim],
            partial: vec![[R::ZERO; TILE / 2]; needs.slots],
            order: Vec::new(),
            moved: Vec::new(),
            inside: (0..needs.inside).map(|_| Inside::new(centers.k)).collect(),
        }
    }

    /// Brings the vectors of a chunk, and what the gradient of the output is there, if that is given.
    pub(super) fn load<E: SoftElement<Real = R>>(
        &mut self,
        group: &SoftGroup<'_, E>,
        grad: Option<&[E]>,
        centers: &Centers<R>,
        vectors: &Range<usize>,
    ) {
        self.x.load(group, group.values, vectors.clone());
        self.x.scale(group, vectors.clone(), true);
        if let Some(windows) = &centers.windows {
            windows.sort(&self.x.values[..vectors.len()], &mut self.order);
            gather(&mut self.x.values, &self.order, &mut self.moved);
        }
        self.x.pad(vectors.len());
        if let Some(grad) = grad {
            self.g.load(group, grad, vectors.clone());
            self.g.scale(group, vectors.clone(), false);
            if centers.windows.is_some() {
                gather(&mut self.g.values, &self.order, &mut self.moved);
            }
            self.g.pad(vectors.len());
        }
    }

    /// Brings the result, if there is one, back into the order of the vectors.
    pub(super) fn restore(&mut self) {
        let len = self.order.len().min(self.y.values.len());
        self.moved.clear();
        self.moved.extend_from_slice(&self.y.values[..len]);
        for (&to, &value) in self.order.iter().zip(&self.moved) {
            self.y.values[usize::from(to)] = value;
        }
    }

    /// Moves the sums over to 64 bits.
    pub(super) fn flush(&mut self, centers: &Centers<R>, sums: &mut [f64]) {
        flush(&mut self.partial, sums);
        if centers.windows.is_some() {
            for (inside, sums) in self.inside.iter_mut().zip(sums.chunks_mut(centers.k)) {
                inside.flush(centers.floor.to_f64(), sums);
            }
        }
    }
}

/// Puts the first values in an order.
fn gather<R: Real>(values: &mut [R], order: &[u16], moved: &mut Vec<R>) {
    moved.clear();
    moved.extend(order.iter().map(|&from| values[usize::from(from)]));
    values[..moved.len()].copy_from_slice(moved);
}
