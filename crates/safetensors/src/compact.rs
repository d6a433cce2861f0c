//! The compact form: a palettized weight as tensors of a safetensors file.
//!
//! | tensor | type | shape |
//! |---|---|---|
//! | `NAME.palette.indices` | U8 | one axis: the indices in row-major order, packed least-significant bits first |
//! | `NAME.palette.lut` | the weight's, or I8 or U8 | the weight's rank plus 2: groups of each axis, 2^nbits, vector length |
//! | `NAME.palette.lut_scale` | the weight's | the tables' rank: groups of each axis, 1, 1; with an integer table only |
//! | `NAME.palette.lut_offset` | the table's | as `lut_scale`; with U8 tables only |
//! | `NAME.palette.scale` | the weight's | the weight's rank: the output channels, and ones; with a per-channel scale only |
//!
//! The file's metadata have `palettizer.format`, which is `1`, and `palettizer.weights`, which is JSON: for each NAME
//! the type, the shape, the bits of an index, the shape of the indices, and the axis that vectors lie along.

use crate::Error;
use crate::element::ElementType;
use crate::header::Entry;
use crate::json::Object;
use crate::shard::Shard;
use palettizer_palette::decode;
use palettizer_palette::{ChannelScale, Dtype, Lut, Nbits, Palette};
use palettizer_pipeline::Error as PipelineError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The metadata key of the format's version.
pub(crate) const FORMAT: &str = "palettizer.format";
/// The format's version.
pub(crate) const VERSION: &str = "1";
/// The metadata key of the palettized weights.
pub(crate) const WEIGHTS: &str = "palettizer.weights";

/// A role that a tensor has in a palettized weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Indices,
    Lut,
    LutScale,
    LutOffset,
    Scale,
}

impl Role {
    pub(crate) const ALL: [Role; 5] = [
        Role::Indices,
        Role::Lut,
        Role::LutScale,
        Role::LutOffset,
        Role::Scale,
    ];

    /// The name of the tensor with this role in a weight.
    pub(crate) fn of(self, weight: &str) -> String {
        let role = match self {
            Role::Indices => "indices",
            Role::Lut => "lut",
            Role::LutScale => "lut_scale",
            Role::LutOffset => "lut_offset",
            Role::Scale => "scale",
        };
        format!("{weight}.palette.{role}")
    }
}

/// What the metadata say of a palettized weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    dtype: String,
    shape: Vec<usize>,
    nbits: u8,
    index_shape: Vec<usize>,
    vector_axis: Option<usize>,
}

impl From<&Palette> for Meta {
    fn from(palette: &Palette) -> Self {
        Meta {
            dtype: ElementType::from(palette.dtype).name().to_owned(),
            shape: palette.shape.clone(),
            nbits: palette.nbits.bits() as u8,
            index_shape: palette.index_shape.clone(),
            vector_axis: palette.vector_axis,
        }
    }
}

impl Meta {
    /// Whether it is of a weight of this shape and type.
    pub(crate) fn is_of(&self, shape: &[usize], dtype: Dtype) -> bool {
        self.shape == shape && self.dtype == ElementType::from(dtype).name()
    }
}

/// The strings of a file that are not ours.
pub(crate) fn foreign(
    metadata: &BTreeMap<String, String>,
) -> impl Iterator<Item = (String, String)> + '_ {
    let foreign = metadata
        .iter()
        .filter(|(key, _)| !key.starts_with("palettizer."));
    foreign.map(|(key, value)| (key.clone(), value.clone()))
}

/// The strings of a new file at `path` with these palettized weights, of which there may be none: ours.
pub(crate) fn metadata(
    path: &Path,
    weights: &BTreeMap<&str, Meta>,
) -> Result<Vec<(String, String)>, Error> {
    let json = serde_json::to_string(weights)
        .map_err(|error| PipelineError::writing(path, error.into()))?;
    let version = (FORMAT.to_owned(), VERSION.to_owned());
    Ok(vec![version, (WEIGHTS.to_owned(), json)])
}

/// Reads what they say of the weights.
pub(crate) fn parse_weights(json: &str) -> serde_json::Result<BTreeMap<String, Meta>> {
    serde_json::from_str::<Object<Meta>>(json).map(|object| object.0)
}

/// A palettized weight as it lies in a shard, its shapes checked.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub meta: Meta,
    pub dtype: Dtype,
    pub nbits: Nbits,
    /// Its tensors, as positions in the shard's header.
    parts: Vec<(Role, usize)>,
    pub lut_dtype: ElementType,
    pub lut_shape: Vec<usize>,
}

impl Stored {
    /// Finds a weight's tensors and checks that they are one; a text says what is wrong.
    pub(crate) fn find(
        weight: &str,
        meta: &Meta,
        tensors: &[Entry],
        at: &HashMap<&str, usize>,
    ) -> Result<Self, String> {
        if at.contains_key(weight) {
            return Err("there is a tensor of its name too".to_owned());
        }
        let dtype = ElementType::from_name(&meta.dtype)
            .and_then(ElementType::palette_dtype)
            .ok_or_else(|| format!("dtype is \"{}\", expected F16, BF16 or F32", meta.dtype))?;
        let nbits = Nbits::try_from(meta.nbits).map_err(|error| error.to_string())?;
        let place = |role: Role| at.get(role.of(weight).as_str()).map(|&at| (role, at));
        let mut stored = Self {
            meta: meta.clone(),
            dtype,
            nbits,
            parts: Role::ALL.into_iter().filter_map(place).collect(),
            lut_dtype: ElementType::from(dtype),
            lut_shape: Vec::new(),
        };
        let lut = stored.needed(Role::Lut, weight, tensors)?;
        (stored.lut_dtype, stored.lut_shape) = (lut.element, lut.shape.clone());
        stored.check_shape()?;
        stored.check_indices(weight, tensors)?;
        stored.check_tables(weight, tensors)?;
        stored.check_scale(tensors)?;
        Ok(stored)
    }

    fn part<'t>(&self, role: Role, tensors: &'t [Entry]) -> Option<&'t Entry> {
        let found = self.parts.iter().find(|(found, _)| *found == role);
        found.map(|&(_, at)| &tensors[at])
    }

    fn needed<'t>(
        &self,
        role: Role,
        weight: &str,
        tensors: &'t [Entry],
    ) -> Result<&'t Entry, String> {
        let missing = || format!("the tensor \"{}\" is missing", role.of(weight));
        self.part(role, tensors).ok_or_else(missing)
    }

    /// The shapes of indices and tables must make that of the weight, with as many entries as its bits tell apart.
    fn check_shape(&self) -> Result<(), String> {
        let Meta {
            shape, vector_axis, ..
        } = &self.meta;
        let axis = vector_axis.map(|axis| axis.try_into().unwrap_or(i64::MAX));
        let dense = decode::dense_shape(&self.meta.index_shape, &self.lut_shape, axis);
        let dense = dense.map_err(|error| error.to_string())?;
        if dense != *shape {
            return Err(format!(
                "its shape is {shape:?}, but indices and tables make {dense:?}"
            ));
        }
        let rank = shape.len();
        expect(
            "entries of a table",
            &self.lut_shape.get(rank..=rank),
            &Some([self.nbits.entries()].as_slice()),
        )
    }

    fn check_indices(&self, weight: &str, tensors: &[Entry]) -> Result<(), String> {
        let indices = self.needed(Role::Indices, weight, tensors)?;
        let count = decode::count(&self.meta.index_shape).map_err(|error| error.to_string())?;
        let packed = (count as u128 * u128::from(self.nbits.bits())).div_ceil(8) as usize;
        expect("the indices' type", &indices.element, &ElementType::U8)?;
        expect("the indices' shape", &indices.shape, &vec![packed])
    }

    /// Tables are of the weight's type, or of integers with a scale.
    fn check_tables(&self, weight: &str, tensors: &[Entry]) -> Result<(), String> {
        let own = ElementType::from(self.dtype);
        let integers = matches!(self.lut_dtype, ElementType::I8 | ElementType::U8);
        if !integers {
            expect("the tables' type", &self.lut_dtype, &own)?;
        }
        let mut of_a_table = self.lut_shape.clone();
        of_a_table[self.shape().len()..].fill(1);
        for (role, element) in [(Role::LutScale, own), (Role::LutOffset, self.lut_dtype)] {
            let Some(entry) = self.part(role, tensors) else {
                continue;
            };
            let name = role.of(weight);
            if !integers {
                return Err(format!("there is \"{name}\", but no table of integers"));
            }
            expect(&format!("the type of \"{name}\""), &entry.element, &element)?;
            let shape = format!("the shape of \"{name}\"");
            expect(&shape, &entry.shape, &of_a_table)?;
        }
        if integers {
            self.needed(Role::LutScale, weight, tensors)?;
        }
        Ok(())
    }

    fn check_scale(&self, tensors: &[Entry]) -> Result<(), String> {
        let Some(scale) = self.part(Role::Scale, tensors) else {
            return Ok(());
        };
        expect(
            "the scale's type",
            &scale.element,
            &ElementType::from(self.dtype),
        )?;
        let shape = self.shape();
        let fits = |(&factors, &dim): (&usize, &usize)| factors == 1 || factors == dim;
        match scale.shape.len() == shape.len() && scale.shape.iter().zip(shape).all(fits) {
            true => Ok(()),
            false => Err(format!(
                "the scale's shape is {:?}, expected {shape:?} with ones in places",
                scale.shape
            )),
        }
    }

    /// The shape of the dense weight.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.meta.shape
    }

    /// Bytes of the dense weight.
    pub(crate) fn dense_len(&self) -> u64 {
        // The product was checked when the tensors were found.
        let elements: usize = self.shape().iter().product();
        (elements * self.dtype.size()) as u64
    }

    /// The number of tables.
    pub(crate) fn luts(&self) -> usize {
        self.lut_shape[..self.shape().len()].iter().product()
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.parts.iter().any(|(found, _)| *found == role)
    }

    /// The tensors that it consists of, as positions in the shard's header.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().map(|&(_, at)| at)
    }

    /// Its tensors in the shard.
    pub(crate) fn entries<'s>(&self, shard: &'s Shard) -> impl Iterator<Item = &'s Entry> {
        self.positions().map(|at| &shard.header.tensors[at])
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self, shard: &Shard) -> u64 {
        self.entries(shard)
            .map(|entry| entry.range.len() as u64)
            .sum()
    }

    /// The palette, copied out of the shard. How far it is from the weight that it was made of is not known: its error
    /// figures are zero.
    pub(crate) fn palette(&self, shard: &Shard) -> Palette {
        let part = |role| self.part(role, &shard.header.tensors);
        let bytes = |role| part(role).map(|entry| shard.data(entry).to_vec());
        let shape = |role| part(role).map(|entry| entry.shape.clone());
        let lut = bytes(Role::Lut).unwrap_or_default();
        let lut = match (self.lut_dtype, bytes(Role::LutScale)) {
            (ElementType::I8 | ElementType::U8, Some(scale)) => Lut::Quantized {
                dtype: match self.lut_dtype {
                    ElementType::I8 => Dtype::I8,
                    _ => Dtype::U8,
                },
                data: lut,
                scale,
                scale_shape: shape(Role::LutScale).unwrap_or_default(),
                offset: bytes(Role::LutOffset),
            },
            _ => Lut::Float(lut),
        };
        let scale = bytes(Role::Scale).zip(shape(Role::Scale));
        let mut palette = Palette::unfilled(self.dtype, self.meta.shape.clone(), self.nbits);
        palette.index_shape = self.meta.index_shape.clone();
        palette.indices = bytes(Role::Indices).unwrap_or_default();
        palette.lut = lut;
        palette.lut_shape = self.lut_shape.clone();
        palette.vector_axis = self.meta.vector_axis;
        palette.scale = scale.map(|(bytes, shape)| ChannelScale { shape, bytes });
        palette
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: found {found:?}, expected {expected:?}")),
    }
}

/// The tensors of a palette: role, type, shape and bytes.
pub(crate) fn parts(palette: &Palette) -> Vec<(Role, ElementType, Vec<usize>, &[u8])> {
    let own = ElementType::from(palette.dtype);
    let indices = palette.indices.as_slice();
    let lut_shape = palette.lut_shape.clone();
    let mut parts = vec![(Role::Indices, ElementType::U8, vec![indices.len()], indices)];
    match &palette.lut {
        Lut::Float(bytes) => parts.push((Role::Lut, own, lut_shape, bytes)),
        Lut::Quantized {
            dtype,
            data,
            scale,
            scale_shape,
            offset,
        } => {
            let integers = ElementType::from(*dtype);
            parts.push((Role::Lut, integers, lut_shape, data));
            parts.push((Role::LutScale, own, scale_shape.clone(), scale));
            if let Some(offset) = offset {
                parts.push((Role::LutOffset, integers, scale_shape.clone(), offset));
            }
        }
    }
    if let Some(scale) = &palette.scale {
        parts.push((Role::Scale, own, scale.shape.clone(), &scale.bytes));
    }
    parts
}
