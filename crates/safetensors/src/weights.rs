//! Which weights a checkpoint has: as the pipeline asks, planned and read by their places in the shards.

use crate::Error;
use crate::checkpoint::{Item, Kind, Opened};
use crate::compact::Role;
use crate::header::Entry;
use crate::prices::palette_bytes;
use palettizer_palette::{Layout, Palette, PaletteSpec, Refusal};
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::{Format, Known, Plan, Planned, Source, Values, Weight};
use std::borrow::Cow;

/// Weights of checkpoints have their output channels on the first axis.
const OUTPUT_AXIS: usize = 0;

/// The place of a weight: its number among the items of the checkpoint.
pub(crate) type Place = usize;

impl Format for Opened {
    type Place = Place;
    type Error = Error;
    const REPORTS_SMALL: bool = true;

    fn known(&self) -> Known<'_> {
        Known {
            names: self.items.iter().map(|item| item.name.as_str()).collect(),
            ..Known::default()
        }
    }

    fn weights(&self, config: &OptimizationConfig) -> Result<Vec<Weight<Place>>, Error> {
        suited(config)?;
        let items = self.items.iter().enumerate();
        Ok(items
            .map(|(place, item)| self.weight(place, item))
            .collect())
    }

    fn accepts(
        &self,
        weight: &Weight<Place>,
        _spec: &PaletteSpec,
        layout: Result<Layout, Refusal>,
    ) -> Result<Result<(), Refusal>, Error> {
        if layout.is_ok() {
            self.parts_have_names(weight.name())?;
        }
        Ok(layout.map(drop))
    }

    fn values<'v>(&'v self, weight: &'v Weight<Place>) -> Result<Values<'v>, Error> {
        let (item, entry) = self.dense(weight.place)?;
        Ok(Values {
            bytes: Cow::Borrowed(self.shards[item.shard].data(entry)),
            mask: None,
        })
    }

    fn other_bytes(&self, plan: &Plan<Place>) -> Result<u64, Error> {
        self.bytes_without(plan)
    }

    fn palette_bytes(&self, planned: &Planned<Place>, palette: &Palette) -> Result<u64, Error> {
        let (item, _) = self.dense(planned.weight.place)?;
        Ok(palette_bytes(&item.name, palette, self.len()))
    }

    fn stored_len(&self) -> u64 {
        self.len()
    }

    fn bytes_beside(&self, plan: &Plan<Place>) -> Result<u64, Error> {
        self.bytes_of_index(plan)
    }

    fn finish(
        &self,
        weight: &Weight<Place>,
        _values: &Values<'_>,
        _palette: Option<&mut Palette>,
    ) -> Result<(), Error> {
        let (item, entry) = self.dense(weight.place)?;
        self.shards[item.shard].release(entry);
        Ok(())
    }
}

impl Opened {
    fn weight(&self, place: Place, item: &Item) -> Weight<Place> {
        let (shape, element, bytes) = self.extent(item);
        let source = match (&item.kind, element.palette_dtype(), shape.len()) {
            (Kind::Palette(stored), ..) => {
                Err(format!("already palettized ({} bits)", stored.nbits))
            }
            (Kind::Dense(_), None, _) => Err(format!(
                "{} is no type of a weight: expected fp16, bf16 or fp32",
                element.shown()
            )),
            (Kind::Dense(_), Some(_), 0) => Err("a scalar".to_owned()),
            (Kind::Dense(_), Some(_), 1) => Err("one-dimensional".to_owned()),
            (Kind::Dense(_), Some(dtype), _) => Ok(Source {
                dtype,
                masked: false,
            }),
        };
        Weight {
            names: vec![item.name.clone()],
            users: None,
            shape: shape.to_vec(),
            dtype: element.shown(),
            bytes,
            output_axis: Some(OUTPUT_AXIS),
            data: None,
            role: None,
            source,
            place,
        }
    }

    /// The tensor of a weight that can be palettized.
    pub(crate) fn dense(&self, place: Place) -> Result<(&Item, &Entry), Error> {
        let item = self.items.get(place);
        let dense = item.and_then(|item| Some((item, self.entry(item)?)));
        dense.ok_or_else(|| Error::UnknownTensor {
            path: self.path.clone(),
            name: item.map_or_else(String::new, |item| item.name.clone()),
        })
    }

    /// The names of a weight's parts must be free.
    fn parts_have_names(&self, weight: &str) -> Result<(), Error> {
        let mut names = Role::ALL.into_iter().map(|role| role.of(weight));
        match names.find(|name| self.item(name).is_some()) {
            None => Ok(()),
            Some(taken) => Err(Error::NameTaken {
                weight: weight.to_owned(),
                taken,
            }),
        }
    }
}

/// Refuses what a checkpoint cannot have.
fn suited(config: &OptimizationConfig) -> Result<(), Error> {
    let unsuited = |what: String, advice| Err(Error::Unsuited { what, advice });
    if let Some(op_type) = config.op_types().keys().next() {
        return unsuited(
            format!("op type \"{op_type}\""),
            "it has tensors and no ops; configure tensors by their names, or by patterns of them",
        );
    }
    if config.minimum_deployment_target().is_some() {
        return unsuited(
            "a minimum deployment target".to_owned(),
            "only Core ML programs have one",
        );
    }
    if config.joint_compression() {
        return unsuited(
            "joint compression".to_owned(),
            "only Core ML programs store pruned or quantized weights that can be palettized too",
        );
    }
    Ok(())
}
