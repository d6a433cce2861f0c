//! How a constant is compressed already: its operations, and of a palette its bits, tables, groups and vectors.

use crate::program::mil::{Param, element_count, param};
use crate::proto::{DataType, Operation};
use palettizer_pipeline::PaletteInfo;
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

impl Compression {
    /// What ops make, of elements of `stored_dtype`, with a palette if there is one.
    ///
    /// ```
    /// let made = palettizer_coreml::Compression::new(vec!["lut_to_dense".to_owned()], Some("uint4".to_owned()), None);
    /// assert_eq!(made.ops, ["lut_to_dense"]);
    /// ```
    pub fn new(
        ops: Vec<String>,
        stored_dtype: Option<String>,
        palette: Option<PaletteInfo>,
    ) -> Self {
        Self {
            ops,
            stored_dtype,
            palette,
        }
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
            let Some((dtype, shape)) = value.known_tensor() else {
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
        Param::Value(value) => value.known_tensor()?,
        // An integer table, which an operation before scales.
        Param::Name(name) => {
            let makes = |op: &&&Operation| op.outputs.iter().any(|output| output.name == name);
            match param(before.iter().find(makes)?, "data")? {
                Param::Value(data) => data.known_tensor()?,
                Param::Name(_) => return None,
            }
        }
    };
    let scaled = after.iter().any(|op| param(op, "scale").is_some());
    PaletteInfo::of_tables(&lut_shape, shape, dtype.name(), scaled)
}
