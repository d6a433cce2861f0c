//! How many bits an index takes: the widths Core ML has an index type for.

use std::fmt;
use std::str::FromStr;

use crate::SpecError;
use crate::spec::alternatives;

/// The width of an index into a lookup table: `uint1` to `uint8`, without 5 and 7, which Core ML lacks.
///
/// ```
/// use palettizer_palette::Nbits;
///
/// let nbits = Nbits::try_from(3)?;
/// assert_eq!((nbits.bits(), nbits.entries()), (3, 8));
/// assert_eq!("6".parse::<Nbits>()?, Nbits::B6);
/// assert_eq!(
///     Nbits::try_from(5).unwrap_err().to_string(),
///     "nbits is 5; expected 1, 2, 3, 4, 6 or 8"
/// );
/// # Ok::<(), palettizer_palette::SpecError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nbits {
    /// 1 bit, 2 entries.
    B1,
    /// 2 bits, 4 entries.
    B2,
    /// 3 bits, 8 entries.
    B3,
    /// 4 bits, 16 entries.
    B4,
    /// 6 bits, 64 entries.
    B6,
    /// 8 bits, 256 entries.
    B8,
}

impl Nbits {
    /// Every width, ascending.
    pub const ALL: [Nbits; 6] = [
        Nbits::B1,
        Nbits::B2,
        Nbits::B3,
        Nbits::B4,
        Nbits::B6,
        Nbits::B8,
    ];

    /// Bits of one index.
    pub fn bits(self) -> u32 {
        match self {
            Nbits::B1 => 1,
            Nbits::B2 => 2,
            Nbits::B3 => 3,
            Nbits::B4 => 4,
            Nbits::B6 => 6,
            Nbits::B8 => 8,
        }
    }

    /// Entries of the lookup table: 2^bits.
    pub fn entries(self) -> usize {
        1 << self.bits()
    }

    /// The smallest width whose table holds `distinct` entries; `None` above 256.
    ///
    /// ```
    /// use palettizer_palette::Nbits;
    ///
    /// assert_eq!(Nbits::holding(17), Some(Nbits::B6));
    /// assert_eq!(Nbits::holding(257), None);
    /// ```
    pub fn holding(distinct: usize) -> Option<Nbits> {
        Nbits::ALL.into_iter().find(|n| n.entries() >= distinct)
    }
}

impl TryFrom<u8> for Nbits {
    type Error = SpecError;

    fn try_from(bits: u8) -> Result<Self, SpecError> {
        let mut all = Nbits::ALL.into_iter();
        all.find(|nbits| nbits.bits() == u32::from(bits))
            .ok_or_else(|| SpecError::new("nbits", bits, alternatives(Nbits::ALL)))
    }
}

impl FromStr for Nbits {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bits = text.trim().parse::<u8>().ok();
        bits.and_then(|bits| Nbits::try_from(bits).ok())
            .ok_or_else(|| SpecError::new("nbits", text, alternatives(Nbits::ALL)))
    }
}

impl fmt::Display for Nbits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bits().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_no_other() {
        let allowed: Vec<u8> = (0..=255).filter(|&b| Nbits::try_from(b).is_ok()).collect();
        assert_eq!(allowed, [1, 2, 3, 4, 6, 8]);
        for n in Nbits::ALL {
            assert_eq!(n.to_string().parse(), Ok(n));
            assert_eq!(Nbits::holding(n.entries()), Some(n));
        }
        assert_eq!(Nbits::holding(0), Some(Nbits::B1));
        for text in ["", "5", "-1", "four", "256", "1000"] {
            let error = text.parse::<Nbits>().unwrap_err();
            assert_eq!(error.found, text);
        }
    }
}
