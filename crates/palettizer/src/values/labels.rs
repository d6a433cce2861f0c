//! Labels in a file.

use super::{ValuesError, npy};
use crate::Error;
use crate::runtime::Tensor;
use palettizer_pipeline::mapped_file::MappedFile;
use std::path::Path;

/// The classes in a file: an `.npy` file of integers, or a text file with one on each line.
///
/// # Errors
/// [`ValuesError::File`] if it holds something else.
pub fn labels(path: impl AsRef<Path>) -> Result<Vec<usize>, Error> {
    let path = path.as_ref();
    let file = MappedFile::open(path)?;
    let found = match path.extension().is_some_and(|extension| extension == "npy") {
        true => npy::parse(file.as_slice()).and_then(|tensor| of_tensor(&tensor)),
        false => std::str::from_utf8(file.as_slice())
            .map_err(|_| "it is neither an .npy file nor text".to_owned())
            .and_then(of_text),
    };
    file.unchanged()?;
    found.map_err(|what| {
        ValuesError::File {
            path: path.to_owned(),
            what,
        }
        .into()
    })
}

fn of_tensor(tensor: &Tensor) -> Result<Vec<usize>, String> {
    let found = || {
        format!(
            "it holds {}; labels are integers from 0",
            tensor.dtype().name()
        )
    };
    let ints = tensor.ints().ok_or_else(found)?.iter();
    let labels = ints.map(|&label| {
        usize::try_from(label).map_err(|_| format!("a label is {label}; they begin with 0"))
    });
    labels.collect()
}

fn of_text(text: &str) -> Result<Vec<usize>, String> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let label = |(at, line): (usize, &str)| {
        let shown: String = line.chars().take(40).collect();
        line.trim().parse().map_err(|_| {
            format!(
                "line {} is {shown:?}; expected a class, an integer from 0",
                at + 1
            )
        })
    };
    lines.map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Dtype;

    #[test]
    fn labels_are_integers_from_0() {
        assert_eq!(of_text("3\n0\n\n 12 \n"), Ok(vec![3, 0, 12]));
        assert!(of_text("3\n-1").unwrap_err().contains("line 2"));
        let tensor = Tensor::new(Dtype::I32, &[2], vec![1, 2]).unwrap();
        assert_eq!(of_tensor(&tensor), Ok(vec![1, 2]));
        assert!(of_tensor(&Tensor::scalar(1.0)).is_err());
    }
}
