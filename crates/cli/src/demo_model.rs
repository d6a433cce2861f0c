//! A small model that comes with the command, to try things on.
//!
//! A convolutional network that reads handwritten digits: 8×8 grey images of scikit-learn's collection, five
//! fp16 weights, an ML Program for iOS18. `scripts/demo_model.py` trained and converted it. What it was not trained on is in `held_out`.

use std::collections::BTreeMap;

use palettizer::coreml::{Error, Model};

const PROGRAM: &[u8] =
    include_bytes!("../demo/digits.mlpackage/Data/com.apple.CoreML/model.mlmodel");
const WEIGHTS: &[u8] =
    include_bytes!("../demo/digits.mlpackage/Data/com.apple.CoreML/weights/weight.bin");
/// The weight file's name in the program.
const WEIGHT_FILE: &str = "@model_path/weights/weight.bin";

/// The digits model.
///
/// ```
/// let model = palettizer_cli::demo_model()?;
/// let largest = model.weights(30_000)?;
/// assert_eq!(largest[0].shape, [64, 64, 3, 3]);
/// # Ok::<(), palettizer::coreml::Error>(())
/// ```
///
/// # Errors
/// None, unless the crate was built from a damaged file.
pub fn demo_model() -> Result<Model, Error> {
    let weights = BTreeMap::from([(WEIGHT_FILE.to_owned(), WEIGHTS.to_vec())]);
    Model::from_parts(PROGRAM, weights)
}
