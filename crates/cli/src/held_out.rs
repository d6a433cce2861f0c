//! The digits that the demo's model was not trained on, and how many of them a model reads right.
//!
//! 360 of scikit-learn's images, the held-out part of `scripts/demo_model.py`. They are from the test set of E. Alpaydin and C. Kaynak, Optical
//! Recognition of Handwritten Digits, UCI Machine Learning Repository, doi 10.24432/C50P49, licensed under CC BY 4.0.

use std::path::{Path, PathBuf};

use palettizer::coreml::Model;
use palettizer::runtime::{Dtype, Named, Session, Tensor, Value};
use palettizer::values::{self, Samples};
use palettizer::{SaveOptions, StagedOutput};
use rayon::prelude::*;

use crate::failure::Failure;

/// Of each digit the label, then its pixels from 0 to 16, row by row.
const DIGITS: &[u8] = include_bytes!("../demo/held-out.bin");
const SIDE: usize = 8;
/// What is ink, and nothing else.
const BLACKEST: f32 = 16.0;
/// What the model calls its input, and its output.
const IMAGE: &str = "image";
const PROBABILITIES: &str = "probabilities";

/// A digit that somebody wrote.
struct Digit {
    label: u8,
    pixels: &'static [u8],
}

fn digits() -> impl ExactSizeIterator<Item = Digit> {
    let rows = DIGITS.as_chunks::<{ 1 + SIDE * SIDE }>().0.iter();
    rows.map(|row| Digit {
        label: row[0],
        pixels: &row[1..],
    })
}

impl Digit {
    /// It as the model takes it: 0 is paper, 1 is ink.
    fn inputs(&self) -> Named {
        let ink: Vec<f32> = self
            .pixels
            .iter()
            .map(|&pixel| f32::from(pixel) / BLACKEST)
            .collect();
        let image = Tensor::new(Dtype::F32, &[1, 1, SIDE, SIDE], ink);
        let image = image.map(|image| (IMAGE.to_owned(), image.into()));
        image.into_iter().collect()
    }
}

/// How many there are.
pub(crate) fn count() -> usize {
    digits().len()
}

/// All of them, to compare models on.
pub(crate) fn samples() -> Samples {
    Samples::given(digits().map(|digit| digit.inputs()))
}

/// How many of them a model reads right.
pub(crate) fn read_right(model: &Model) -> Result<usize, Failure> {
    let session = Session::new(model)?.keep_constants(true);
    let all: Vec<Digit> = digits().collect();
    let right = all.par_iter().map(|digit| {
        let outputs = session.run(digit.inputs())?;
        let read = outputs.get(PROBABILITIES).and_then(most_likely);
        Ok(usize::from(read == Some(usize::from(digit.label))))
    });
    right.sum()
}

/// The first of the largest elements.
fn most_likely(probabilities: &Value) -> Option<usize> {
    let probabilities = probabilities.tensor()?.floats()?;
    let most = probabilities
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    probabilities.iter().position(|&p| p == most)
}

/// Writes the images, as a model's inputs, and their labels, one a line, into a folder.
pub(crate) fn save(folder: &Path, options: SaveOptions) -> Result<(), Failure> {
    let [images, labels] = places(folder);
    let inputs: Vec<Named> = digits().map(|digit| digit.inputs()).collect();
    let stacked = values::stacked(&inputs);
    let stacked = stacked.map_err(|what| Failure::about(images.display(), what))?;
    values::write(images, &stacked, options)?;
    let lines: String = digits().map(|digit| format!("{}\n", digit.label)).collect();
    StagedOutput::file(&labels, options)?.commit_bytes(lines.as_bytes())?;
    Ok(())
}

/// The file of images, and that of labels.
fn places(folder: &Path) -> [PathBuf; 2] {
    ["held-out.npz", "held-out-labels.txt"].map(|name| folder.join(name))
}
