//! A format for the tests: named tensors of `f32` in memory. It shows what a format has to say at least.

use palettizer_palette::{Dtype, Palette};
use palettizer_pipeline::config::OptimizationConfig;
use palettizer_pipeline::{Error, Format, Known, Plan, Planned, Source, User, Values, Weight};
use std::borrow::Cow;

/// A tensor, and what uses it.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
    pub(crate) users: &'static [(&'static str, &'static str)],
}

/// Tensors; those of the same values share their data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tensors(pub(crate) Vec<Tensor>);

impl Tensors {
    /// One more tensor, of values that no other has.
    pub(crate) fn with(mut self, name: &'static str, shape: &[usize], users: Users) -> Self {
        let (elements, seed) = (shape.iter().product::<usize>(), self.0.len() as f32);
        let shape = shape.to_vec();
        let values = (0..elements).map(|at| ((at as f32) * 0.37 + seed).sin());
        let values = values.collect();
        self.0.push(Tensor {
            name,
            shape,
            values,
            users,
        });
        self
    }

    /// One more, with the data of the last.
    pub(crate) fn again(mut self, name: &'static str) -> Self {
        let last = self.0.last().cloned();
        self.0.extend(last.map(|last| Tensor { name, ..last }));
        self
    }
}

pub(crate) type Users = &'static [(&'static str, &'static str)];

impl Format for Tensors {
    type Place = usize;
    type Error = Error;
    const REPORTS_SMALL: bool = false;

    fn known(&self) -> Known<'_> {
        let mut known = Known::default();
        for tensor in &self.0 {
            known.names.insert(tensor.name);
            for (name, op_type) in tensor.users {
                known.names.insert(name);
                known.types.insert(op_type);
            }
        }
        known
    }

    fn weights(&self, _config: &OptimizationConfig) -> Result<Vec<Weight<usize>>, Error> {
        let weight = |(place, tensor): (usize, &Tensor)| Weight {
            names: vec![tensor.name.to_owned()],
            users: Some(tensor.users.iter().copied().map(user).collect()),
            shape: tensor.shape.clone(),
            dtype: "fp32",
            bytes: tensor.values.len() as u64 * 4,
            output_axis: Some(0),
            data: self
                .0
                .iter()
                .position(|other| other.values == tensor.values),
            role: None,
            source: match tensor.shape.len() {
                1 => Err("one-dimensional".to_owned()),
                _ => Ok(Source {
                    dtype: Dtype::F32,
                    masked: false,
                }),
            },
            place,
        };
        Ok(self.0.iter().enumerate().map(weight).collect())
    }

    fn same_place(&self, _a: &usize, _b: &usize) -> bool {
        true
    }

    fn values<'v>(&'v self, weight: &'v Weight<usize>) -> Result<Values<'v>, Error> {
        let values = self.0[weight.place].values.iter();
        Ok(Values {
            bytes: Cow::Owned(values.flat_map(|value| value.to_le_bytes()).collect()),
            mask: None,
        })
    }

    fn other_bytes(&self, plan: &Plan<usize>) -> Result<u64, Error> {
        let kept = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_none());
        Ok(kept.map(|planned| planned.weight.bytes).sum())
    }

    fn palette_bytes(&self, _planned: &Planned<usize>, palette: &Palette) -> Result<u64, Error> {
        Ok(palette.stored_bytes() as u64)
    }

    fn stored_len(&self) -> u64 {
        self.0
            .iter()
            .map(|tensor| tensor.values.len() as u64 * 4)
            .sum()
    }

    fn finish(
        &self,
        _weight: &Weight<usize>,
        _values: &Values<'_>,
        _palette: Option<&mut Palette>,
    ) -> Result<(), Error> {
        Ok(())
    }
}

fn user((name, op_type): (&str, &str)) -> User {
    User {
        name: name.to_owned(),
        op_type: op_type.to_owned(),
    }
}
