//! How far the palette of a quantized weight is off, in units of the weight: integers are all alike, but each counts with
//! the scale of its block.

use crate::Error;
use crate::decompress::constexpr::{Dense, shift_scaled};
use crate::decompress::numbers::{Numbers, each_type};
use crate::package::Package;
use crate::program::mil::op_name;
use crate::proto::{DataType, Operation};
use palettizer_palette::{ErrorFigures, Palette};

/// The figures of `palette`, which was made of the integers `before` in the data of `op`.
///
/// # Errors
/// Those of the op's parameters.
pub(super) fn error(
    package: &Package,
    op: &Operation,
    dtype: DataType,
    before: &[u8],
    palette: &Palette,
) -> Result<ErrorFigures, Error> {
    #[expect(clippy::useless_conversion, reason = "one of the types is f32")]
    let weight = |bytes: &[u8]| -> Result<Vec<f32>, Error> {
        let bad = |what: String| Error::bad_value(op_name(op), what);
        let numbers = Numbers::read(dtype, bytes, bytes.len())
            .map_err(|_| bad(format!("no memory for its {} elements", bytes.len())))?;
        let numbers =
            numbers.ok_or_else(|| bad(format!("{} is no type of quantized data", dtype.name())))?;
        let shape = palette.shape.clone();
        let scaled = shift_scaled(package, op, Dense { shape, numbers })?;
        Ok(each_type!(&scaled, values => values.iter().map(|&value| f32::from(value)).collect()))
    };
    let mut figures = ErrorFigures {
        squared_error: 0.0,
        energy: 0.0,
        ..palette.error
    };
    let (before, after) = (weight(before)?, weight(&palette.decompress())?);
    for (before, after) in before.into_iter().zip(after) {
        let (before, after) = (f64::from(before), f64::from(after));
        if before.is_finite() {
            figures.squared_error += (before - after) * (before - after);
            figures.energy += before * before;
        }
    }
    Ok(figures)
}
