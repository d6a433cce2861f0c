//! What the entries of a lookup table are stored as.

use super::names;

names! {
    /// What the entries of a lookup table are stored as. Integers are symmetric, and `uint8` has the zero point 127.
    ///
    /// ```
    /// use palettizer_palette::LutDtype;
    ///
    /// assert_eq!("uint8".parse::<LutDtype>()?, LutDtype::Uint8);
    /// # Ok::<(), palettizer_palette::SpecError>(())
    /// ```
    LutDtype as "lut_dtype" {
        /// The weight's own type
        Float = "float",
        /// 8 bits with a sign, and a scale
        Int8 = "int8",
        /// 8 bits without, a scale and a zero point
        Uint8 = "uint8",
    }
}
