//! What must be true of a model before anything is done with it.
//!
//! Every function has the block of its opset, every name is defined before it is used, every constant's data has
//! the type and size that the program says, and no two blobs overlap. Only the records of the blobs are read,
//! not their data.

use crate::Error;
use crate::opset::OpsetError;
use crate::package::Package;
use crate::program::constant::Constant;
use crate::program::graph::Graph;
use crate::program::mil::op_name;
use crate::program::walk::{functions, operations, values};
use crate::proto::{Model, NamedValueType, Operation, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Checks `spec` and the blobs that it refers to.
///
/// # Errors
/// [`OpsetError::NoBlock`], [`Error::UndefinedName`], [`BlobError::Size`], [`Error::BadValue`],
/// [`BlobError::Overlap`], and what reading the records may give.
pub(crate) fn check(package: &Package, spec: &Model) -> Result<(), Error> {
    for (name, function) in functions(spec) {
        if !function.block_specializations.contains_key(&function.opset) {
            return Err(Error::Opset(OpsetError::NoBlock {
                function: name.clone(),
                opset: function.opset.clone(),
            }));
        }
    }
    Graph::build(spec)?;
    let mut offsets: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for op in operations(spec) {
        check_shape(op)?;
        for value in values(op) {
            let Some(place) = &value.blob_file else {
                continue;
            };
            // Of a type that we do not know there is nothing to check.
            if value.known_tensor().is_some() {
                Constant::read(package, op_name(op), value)?;
            }
            let file = offsets.entry(&place.file_name).or_default();
            file.insert(place.offset);
        }
    }
    for (name, offsets) in offsets {
        let offsets: Vec<u64> = offsets.into_iter().collect();
        package.weight_file(name)?.check_overlaps(&offsets)?;
    }
    Ok(())
}

/// A `const` gives what its value is.
fn check_shape(op: &Operation) -> Result<(), Error> {
    if op.r#type != "const" {
        return Ok(());
    }
    let value = op.attributes.get("val").and_then(Value::known_tensor);
    let output = op.outputs.first().and_then(NamedValueType::known_tensor);
    match (value, output) {
        (Some((_, value)), Some((_, output))) if value != output => {
            let what = format!("its value has the shape {value:?}, its output {output:?}");
            Err(Error::bad_value(op_name(op), what))
        }
        _ => Ok(()),
    }
}
