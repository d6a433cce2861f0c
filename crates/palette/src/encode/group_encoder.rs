//! All groups of one weight: each gathered, given its table, and measured.
//!
//! With a per-channel scale the error is measured again, on the products: see `products`.

use palettizer_kernels::Element;
use rayon::prelude::*;

use super::elements::{Elements, Gathered};
use super::table::{GroupTable, TableRequest};
use super::{products, scalar, vector};
use crate::{Context, LutGroup, Mode, PaletteSpec, Refusal};

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
        let mut parts = Vec::with_capacity(counts.len());
        let mut left = indices;
        for &count in counts {
            let (part, rest) = left.split_at_mut(count);
            parts.push(part);
            left = rest;
        }
        let tables: Vec<Result<GroupTable, Refusal>> = parts
            .into_par_iter()
            .enumerate()
            .map_init(Gathered::default, |gathered, (group, indices)| {
                self.table(group, gathered, indices)
            })
            .collect();
        // The first refusal in the order of the groups, whichever was found first.
        tables.into_iter().collect()
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
        let request = TableRequest {
            spec: self.spec,
            storage: elements.storage,
            exact: !scaled || unique,
        };
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
