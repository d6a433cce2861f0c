//! Tensors in safetensors files.

use super::stored::Stored;
use crate::runtime::Tensor;
use crate::safetensors::{Checkpoint, Content, DenseTensor, ElementType};
use crate::{Error, SaveOptions};
use std::collections::BTreeMap;
use std::path::Path;

/// The types in the format, and what they are; those of 8-bit floats and of less are none that models take.
const STORED: [(ElementType, Stored); 13] = [
    (ElementType::Bool, Stored::Bool),
    (ElementType::I8, Stored::I8),
    (ElementType::U8, Stored::U8),
    (ElementType::I16, Stored::I16),
    (ElementType::U16, Stored::U16),
    (ElementType::I32, Stored::I32),
    (ElementType::U32, Stored::U32),
    (ElementType::I64, Stored::I64),
    (ElementType::U64, Stored::U64),
    (ElementType::F16, Stored::F16),
    (ElementType::BF16, Stored::Bf16),
    (ElementType::F32, Stored::F32),
    (ElementType::F64, Stored::F64),
];

/// The tensors of a file or of a folder of shards, by name; or what is wrong with one, in words.
pub(crate) fn read(path: &Path) -> Result<Result<BTreeMap<String, Tensor>, String>, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let mut found = BTreeMap::new();
    for name in checkpoint.names() {
        let Content::Dense(tensor) = checkpoint.get(name)? else {
            return Ok(Err(format!(
                "\"{name}\" is a palettized weight; expected the values of an input"
            )));
        };
        match tensor_of(&tensor) {
            Ok(tensor) => found.insert(name.to_owned(), tensor),
            Err(what) => return Ok(Err(format!("\"{name}\": {what}"))),
        };
    }
    Ok(Ok(found))
}

fn tensor_of(tensor: &DenseTensor<'_>) -> Result<Tensor, String> {
    let stored = STORED
        .iter()
        .find(|(element, _)| *element == tensor.element);
    let (_, stored) =
        stored.ok_or_else(|| format!("is of {}, which no model takes", tensor.element.shown()))?;
    let (dtype, elements) = stored.read(tensor.bytes, false)?;
    Tensor::new(dtype, &tensor.shape, elements)
        .ok_or_else(|| "has other elements than its shape says".to_owned())
}

/// Writes tensors to a file, or says which of them holds strings.
pub(crate) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    options: SaveOptions,
) -> Result<Result<(), String>, Error> {
    let mut made = Vec::new();
    for (name, tensor) in tensors {
        let Some((stored, bytes)) = Stored::of(tensor) else {
            return Ok(Err(format!(
                "\"{name}\" holds strings, which a safetensors file cannot have; write an .npz file"
            )));
        };
        let element = STORED.iter().find(|(_, known)| *known == stored);
        let element = element.map_or(ElementType::U8, |(element, _)| *element);
        made.push((name, element, tensor.shape().to_vec(), bytes));
    }
    let contents: Vec<(&str, Content<'_>)> = made
        .iter()
        .map(|(name, element, shape, bytes)| {
            (
                *name,
                Content::Dense(DenseTensor::new(*element, shape.clone(), bytes)),
            )
        })
        .collect();
    Checkpoint::write(path, &contents, &BTreeMap::new(), options)?;
    Ok(Ok(()))
}
