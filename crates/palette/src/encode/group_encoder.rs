//! All groups of one weight: each gathered, given its table, and measured.
//!
//! With a per-channel scale the error is measured again, on the products: see `products`.

use palettizer_kernels::Element;
use rayon::prelude::*;

use super::elements::{Elements, Gathered};
use super::table::{GroupTable, TableRequest};
use super::{products, scalar, vector};
use crate::{Context, LutGroup, Mode, Nbits, PaletteSpec, Refusal};

/// What finds the tables of a weight's groups.
pub(crate) struct GroupEncoder<'a, T> {
    pub(crate) elements: Elements<'a, T>,
    pub(crate) context: &'a Context<'a>,
    pub(crate) spec: &'a PaletteSpec,
}

impl<T: Element> GroupEncoder<'_, T> {
    /// The tables of all groups; their indices, group after group.
    pub(crate) fn tables(
        &self,
        counts: &[usize],
        indices: &mut [u8],
    ) -> Result<Vec<GroupTable>, Refusal> {
        let tables: Vec<Result<GroupTable, Refusal>> = parts(counts, indices)
            .into_par_iter()
            .enumerate()
            .map_init(Gathered::default, |gathered, (group, indices)| {
                self.table(group, gathered, indices)
            })
            .collect();
        // The first refusal in the order of the groups, whichever was found first.
        tables.into_iter().collect()
    }

    /// The tables of all groups by k-means of their scalars, without a scale; indices and errors [later](Self::assign).
    pub(crate) fn fit(&self, nbits: Nbits) -> Result<Vec<GroupTable>, Refusal> {
        let request = self.request();
        let tables: Vec<Result<GroupTable, Refusal>> = (0..self.elements.groups.count)
            .into_par_iter()
            .map_init(Gathered::default, |gathered, group| {
                self.context.go_on()?;
                let (values, weights) = self.elements.scalars(group, gathered);
                scalar::fit(values, weights, nbits, &request, self.context)
            })
            .collect();
        tables.into_iter().collect()
    }

    /// The indices into tables that were [fitted](Self::fit), group after group, and the errors.
    pub(crate) fn assign(&self, tables: &mut [GroupTable], counts: &[usize], indices: &mut [u8]) {
        parts(counts, indices)
            .into_par_iter()
            .zip(tables)
            .enumerate()
            .for_each_init(Gathered::default, |gathered, (group, (indices, table))| {
                let (values, _) = self.elements.scalars(group, gathered);
                scalar::assign(values, table, indices);
            });
    }

    fn request(&self) -> TableRequest<'_> {
        TableRequest {
            spec: self.spec,
            storage: self.elements.storage,
            exact: self.elements.channels.is_none() || matches!(self.spec.mode(), Mode::Unique),
        }
    }

    fn table(
        &self,
        group: usize,
        gathered: &mut Gathered<T>,
        indices: &mut [u8],
    ) -> Result<GroupTable, Refusal> {
        self.context.go_on()?;
        let elements = &self.elements;
        let scaled = elements.channels.is_some();
        let unique = matches!(self.spec.mode(), Mode::Unique);
        let request = self.request();
        let mut table = if let Mode::Custom(function) = self.spec.mode() {
            elements.gather_singles(group, gathered, None);
            let described = LutGroup {
                shape: &elements.groups.shape,
                channel_axis: elements.groups.channel_axis,
                dtype: elements.rounding.0,
            };
            let ranges = elements.groups.ranges(group).flatten().enumerate();
            let kept = ranges.filter(|(_, at)| elements.keeps(*at));
            let kept = kept.map(|(offset, _)| offset);
            let values = &gathered.singles;
            scalar::custom(values, &described, function, request.storage, kept, indices)?
        } else if elements.groups.dim > 1 {
            elements.gather_vectors(group, gathered);
            if scaled && unique {
                elements.round(gathered);
            }
            let (values, weights) = gathered.vectors();
            vector::table(values, weights, &request, self.context, group, indices)?
        } else if let Some(channels) = &elements.channels {
            elements.gather_singles(group, gathered, elements.mask);
            if unique {
                elements.round(gathered);
            }
            let weights = elements.scaled_weights(channels, group, gathered);
            scalar::table(&gathered.singles, weights, &request, self.context, indices)?
        } else {
            let (values, weights) = elements.scalars(group, gathered);
            scalar::table(values, weights, &request, self.context, indices)?
        };
        if let Some(channels) = &elements.channels {
            products::finish(elements, channels, group, &mut table, indices);
        }
        Ok(table)
    }
}

/// The indices of each group.
fn parts<'a>(counts: &[usize], indices: &'a mut [u8]) -> Vec<&'a mut [u8]> {
    let mut left = indices;
    let part = |&count: &usize| {
        let (part, rest) = std::mem::take(&mut left).split_at_mut(count);
        left = rest;
        part
    };
    counts.iter().map(part).collect()
}
