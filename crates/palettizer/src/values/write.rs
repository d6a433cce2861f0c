//! What a model gives, in files.

use super::{ValuesError, npy, npz, picture, tensors};
use crate::runtime::{Dtype, Image, Label, Named, Pixels, Tensor, Value};
use crate::{Error, SaveOptions, StagedOutput};
use palettizer_pipeline::Error as PipelineError;
use std::io::Cursor;
use std::path::Path;

/// Writes values to an `.npz`, `.npy`, `.safetensors` or `.png` file, by the end of its name.
///
/// Images become arrays of bytes, \[height, width\] or \[height, width, 3\]. A dictionary becomes two arrays: its numbers under its own
/// name, and its classes as `NAME.classes`. An `.npy` file has room for one array, and a `.png` for one image.
///
/// # Errors
/// [`ValuesError`] if the values do not fit the file, and what writing may give. Then there is no new file.
pub fn write(path: impl AsRef<Path>, values: &Named, options: SaveOptions) -> Result<(), Error> {
    let path = path.as_ref();
    let wrong = |what: String| ValuesError::File {
        path: path.to_owned(),
        what,
    };
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let bytes = match extension.as_str() {
        "npz" => {
            let arrays = arrays(values);
            let mut bytes = Cursor::new(Vec::new());
            let borrowed = arrays.iter().map(|(name, tensor)| (name.as_str(), tensor));
            npz::write(&mut bytes, borrowed).map_err(|source| PipelineError::Io {
                path: path.to_owned(),
                source,
            })?;
            bytes.into_inner()
        }
        "npy" => match arrays(values).as_slice() {
            [(_, tensor)] => npy::encode(tensor),
            several => {
                return Err(wrong(format!(
                    "an .npy file has room for one array, and there are {}; write an .npz file",
                    several.len()
                ))
                .into());
            }
        },
        "safetensors" => {
            let arrays = arrays(values);
            let borrowed = arrays.iter().map(|(name, tensor)| (name.as_str(), tensor));
            tensors::write(path, borrowed, options)?.map_err(wrong)?;
            return Ok(());
        }
        "png" => {
            let images: Vec<&Image> = values
                .values()
                .filter_map(|value| match value {
                    Value::Image(image) => Some(&**image),
                    _ => None,
                })
                .collect();
            match images.as_slice() {
                [image] => picture::encode(image).map_err(wrong)?,
                several => return Err(wrong(format!("a .png file has room for one image, and there are {} among the outputs; write an .npz file", several.len())).into()),
            }
        }
        _ => {
            return Err(ValuesError::Kind {
                path: path.to_owned(),
                folders: false,
            }
            .into());
        }
    };
    StagedOutput::file(path, options)?.commit_bytes(&bytes)?;
    Ok(())
}

/// Whether values can be written to a file of this name.
///
/// # Errors
/// [`ValuesError::Kind`].
pub fn writable(path: impl AsRef<Path>) -> Result<(), ValuesError> {
    let path = path.as_ref();
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    match ["npz", "npy", "safetensors", "png"].contains(&extension.as_str()) {
        true => Ok(()),
        false => Err(ValuesError::Kind {
            path: path.to_owned(),
            folders: false,
        }),
    }
}

/// Values as arrays.
pub(crate) fn arrays(values: &Named) -> Vec<(String, Tensor)> {
    let mut found = Vec::new();
    for (name, value) in values {
        match value {
            Value::Tensor(tensor) => found.push((name.clone(), tensor.clone())),
            Value::Image(image) => {
                found.extend(of_image(image).map(|tensor| (name.clone(), tensor)))
            }
            Value::Dictionary(entries) => {
                let numbers: Vec<f32> = entries.iter().map(|(_, number)| *number).collect();
                let classes: Vec<String> = entries
                    .iter()
                    .map(|(label, _)| match label {
                        Label::Text(text) => text.clone(),
                        Label::Int(number) => number.to_string(),
                    })
                    .collect();
                let shape = [numbers.len()];
                found.extend(
                    Tensor::new(Dtype::F32, &shape, numbers).map(|tensor| (name.clone(), tensor)),
                );
                let classes = Tensor::new(Dtype::Text, &shape, classes);
                found.extend(classes.map(|tensor| (format!("{name}.classes"), tensor)));
            }
            Value::List(items) => {
                let items = items.iter().enumerate();
                found.extend(
                    items.filter_map(|(at, item)| Some((format!("{name}.{at}"), item.clone()?))),
                );
            }
            _ => {}
        }
    }
    found
}

fn of_image(image: &Image) -> Option<Tensor> {
    let (height, width) = (image.height(), image.width());
    let ints = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|&byte| i32::from(byte))
            .collect::<Vec<_>>()
    };
    match image.pixels() {
        Pixels::Gray(bytes) => Tensor::new(Dtype::U8, &[height, width], ints(bytes)),
        Pixels::Rgb(bytes) => Tensor::new(Dtype::U8, &[height, width, 3], ints(bytes)),
        Pixels::GrayF16(values) => Tensor::new(Dtype::F16, &[height, width], values.clone()),
    }
}
