//! What a format has to say: which weights a model has, and their values. All else is asked and decided here.

use crate::FormatError;
use crate::config::{OptimizationConfig, Role};
use crate::planned::{Plan, Planned};
use palettizer_palette::{Dtype, Layout, Palette, PaletteSpec, Refusal};
use std::borrow::Cow;
use std::collections::HashSet;

/// A model of some format, as far as palettizing it goes.
///
/// The tests of this crate run on a format of a few dozen lines, which shows what one needs at least:
/// `tests/format/mod.rs`.
pub trait Format: Sync {
    /// Where a weight stands in the model.
    type Place: Send + Sync;
    /// What can go wrong.
    type Error: FormatError;

    /// Whether weights that are too small to be palettized are rows of the report all the same.
    const REPORTS_SMALL: bool;

    /// Every name and every type that an entry of the configuration can mean, of whatever size and kind.
    fn known(&self) -> Known<'_>;

    /// Every weight in the order of the model, those that cannot be palettized included.
    ///
    /// # Errors
    /// What the configuration asks and the format cannot have.
    fn weights(&self, config: &OptimizationConfig)
    -> Result<Vec<Weight<Self::Place>>, Self::Error>;

    /// The format's word on a weight that is to be palettized by `spec`, whose tables would lie as `layout` says.
    ///
    /// # Errors
    /// The outer error ends the run; the inner one leaves the weight as it is.
    fn accepts(
        &self,
        weight: &Weight<Self::Place>,
        spec: &PaletteSpec,
        layout: Result<Layout, Refusal>,
    ) -> Result<Result<(), Refusal>, Self::Error> {
        let _ = (weight, spec);
        Ok(layout.map(drop))
    }

    /// Whether one palette can stand in two places that share their data and their configuration.
    fn same_place(&self, a: &Self::Place, b: &Self::Place) -> bool {
        let _ = (a, b);
        false
    }

    /// The values of a weight.
    ///
    /// # Errors
    /// What reading gives.
    fn values<'v>(&'v self, weight: &'v Weight<Self::Place>) -> Result<Values<'v>, Self::Error>;

    /// Bytes that the output takes beside the palettes of a plan: what [`palette_bytes`](Format::palette_bytes) says of each
    /// comes on top.
    ///
    /// # Errors
    /// What reading gives.
    fn other_bytes(&self, plan: &Plan<Self::Place>) -> Result<u64, Self::Error>;

    /// Bytes that a palette takes in the output, with all that is written because of it, in the places of all weights that
    /// go with this one. It may be a few bytes more, never less.
    ///
    /// # Errors
    /// What cannot be written.
    fn palette_bytes(
        &self,
        planned: &Planned<Self::Place>,
        palette: &Palette,
    ) -> Result<u64, Self::Error>;

    /// Bytes of the model as it is.
    fn stored_len(&self) -> u64;

    /// Bytes of files beside, which reports do not count and a folder has all the same.
    ///
    /// # Errors
    /// What reading gives.
    fn bytes_beside(&self, plan: &Plan<Self::Place>) -> Result<u64, Self::Error> {
        let _ = plan;
        Ok(0)
    }

    /// How often an element of a weight is multiplied in a run, with all weights that go with it, as far as that is known.
    fn uses(&self, planned: &Planned<Self::Place>) -> f64 {
        let _ = planned;
        1.0
    }

    /// The palette is made: corrects its figures where values are not what they seem, and gives the memory of the values
    /// back.
    ///
    /// # Errors
    /// What reading gives.
    fn finish(
        &self,
        weight: &Weight<Self::Place>,
        values: &Values<'_>,
        palette: Option<&mut Palette>,
    ) -> Result<(), Self::Error>;
}

/// The names and types that there are in a model.
#[derive(Debug, Default)]
pub struct Known<'m> {
    /// Names of weights and of what uses them.
    pub names: HashSet<&'m str>,
    /// Types of what uses them.
    pub types: HashSet<&'m str>,
}

/// One weight of a model.
#[derive(Debug)]
pub struct Weight<P> {
    /// What it is called, the name for messages first.
    pub names: Vec<String>,
    /// What uses it; `None` in a format that does not know. Then its own name stands for its user's.
    pub users: Option<Vec<User>>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type, for the report.
    pub dtype: &'static str,
    /// Bytes that it takes now.
    pub bytes: u64,
    /// The axis of its output channels.
    pub output_axis: Option<usize>,
    /// Weights of the same number lie in the same data.
    pub data: Option<usize>,
    /// What it is to the model, where that is asked for (with a preset).
    pub role: Option<Role>,
    /// What it is palettized from, or why it is no weight that could be, whatever the configuration says.
    pub source: Result<Source, String>,
    /// Where it stands.
    pub place: P,
}

/// What a weight is palettized from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The type of its values.
    pub dtype: Dtype,
    /// Whether it is pruned: only the values that a mask keeps are palettized.
    pub masked: bool,
}

/// Something that uses a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its type, such as `linear`.
    pub op_type: String,
}

/// The values of a weight: little-endian, row-major.
#[derive(Debug)]
pub struct Values<'a> {
    /// Those of the whole shape; zeros where a mask keeps none.
    pub bytes: Cow<'a, [u8]>,
    /// Of a pruned weight, a bit for each element, from the least significant bit: whether it is kept.
    pub mask: Option<Cow<'a, [u8]>>,
}

impl<P> Weight<P> {
    /// The name for messages and for the report.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The number of elements; the largest number if it is larger.
    pub fn elements(&self) -> usize {
        let product = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        product.unwrap_or(usize::MAX)
    }
}
