//! How a constant is compressed already: its operations, and of a palette its bits, tables, groups and vectors.

use crate::program::mil::{Param, element_count, known_tensor, param};
use crate::proto::{DataType, Operation};
use serde::Serialize;

/// How a constant is compressed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Compression {
    /// The constexpr ops that make it, in order.
    pub ops: Vec<String>,
    /// The element type of what is stored for each element: `uint4` indices, `int8` data.
    pub stored_dtype: Option<String>,
    /// Its palette; `null` if it has none.
    pub palette: Option<PaletteInfo>,
}

/// How a weight is palettized.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PaletteInfo {
    /// Bits of an index.
    pub nbits: u32,
    /// The number of lookup tables.
    pub luts: u64,
    /// Channels of a table; `null` where there is one table, or where tables differ along several axes.
    pub group_size: Option<u64>,
    /// Weights for an index.
    pub cluster_dim: u64,
    /// The element type of the tables: the weight's, `int8` or `uint8`.
    pub lut_dtype: String,
    /// Whether what is looked up is scaled afterwards, as by a scale of each output channel.
    pub per_channel_scale: bool,
}

impl PaletteInfo {
    /// The palette of a weight of the shape `shape` with tables of the shape `lut_shape`: the tables along each axis, the
    /// entries of one, and the length of an entry; or the entries alone. `None` if this is no shape of tables.
    ///
    /// ```
    /// use palettizer_coreml::PaletteInfo;
    ///
    /// let info = PaletteInfo::of_tables(&[8, 1, 16, 2], &[32, 64], "fp16", false);
    /// let info = info.ok_or("no tables")?;
    /// assert_eq!((info.nbits, info.luts), (4, 8));
    /// assert_eq!((info.group_size, info.cluster_dim), (Some(4), 2));
    /// # Ok::<(), &str>(())
    /// ```
    pub fn of_tables(
        lut_shape: &[usize],
        shape: &[usize],
        lut_dtype: &str,
        per_channel_scale: bool,
    ) -> Option<Self> {
        let (tables, entries, vector) = match *lut_shape {
            [entries] => (&[][..], entries, 1),
            [ref tables @ .., entries, vector] => (tables, entries, vector),
            [] => return None,
        };
        let axes = tables.iter().zip(shape);
        let mut grouped = axes.filter(|&(&tables, _)| tables > 1);
        let group_size = match (grouped.next(), grouped.next()) {
            (Some((&tables, &channels)), None) => Some((channels / tables) as u64),
            _ => None,
        };
        Some(Self {
            nbits: entries.checked_ilog2()?,
            luts: element_count(tables)? as u64,
            group_size,
            cluster_dim: vector as u64,
            lut_dtype: lut_dtype.to_owned(),
            per_channel_scale,
        })
    }
}

/// The compression of a constant of the shape `shape` that `chain`, in order, makes.
pub(crate) fn compression(chain: &[&Operation], shape: &[usize]) -> Compression {
    Compression {
        ops: chain.iter().map(|op| op.r#type.clone()).collect(),
        stored_dtype: stored_dtype(chain).map(|dtype| dtype.name().to_owned()),
        palette: palette(chain, shape),
    }
}

/// The element type of the parameter with the most elements.
fn stored_dtype(chain: &[&Operation]) -> Option<DataType> {
    // A mask has as many elements as the data, but says nothing of the values.
    let masks = ["mask", "indices_mask", "data_mask"];
    let mut largest: Option<(usize, DataType)> = None;
    for op in chain {
        let names = op.attributes.keys().chain(op.inputs.keys());
        for name in names.filter(|name| !masks.contains(&name.as_str())) {
            let Some(Param::Value(value)) = param(op, name) else {
                continue;
            };
            let Some((dtype, shape)) = known_tensor(value.r#type.as_ref()) else {
                continue;
            };
            let elements = element_count(&shape).unwrap_or(0);
            if largest.is_none_or(|(most, _)| elements > most) {
                largest = Some((elements, dtype));
            }
        }
    }
    largest.map(|(_, dtype)| dtype)
}

fn palette(chain: &[&Operation], shape: &[usize]) -> Option<PaletteInfo> {
    let at = chain.iter().position(|op| param(op, "lut").is_some())?;
    let (before, after) = chain.split_at(at);
    let (dtype, lut_shape) = match param(after.first()?, "lut")? {
        Param::Value(value) => known_tensor(value.r#type.as_ref())?,
        // An integer table, which an operation before scales.
        Param::Name(name) => {
            let makes = |op: &&&Operation| op.outputs.iter().any(|output| output.name == name);
            match param(before.iter().find(makes)?, "data")? {
                Param::Value(data) => known_tensor(data.r#type.as_ref())?,
                Param::Name(_) => return None,
            }
        }
    };
    let scaled = after.iter().any(|op| param(op, "scale").is_some());
    PaletteInfo::of_tables(&lut_shape, shape, dtype.name(), scaled)
}
