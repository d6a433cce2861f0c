//! The element types of a weight file, under their numbers there (not those of `MILSpec.DataType`).

use crate::proto::DataType;

/// The element type of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum BlobDtype {
    Float16 = 1,
    Float32 = 2,
    UInt8 = 3,
    Int8 = 4,
    BFloat16 = 5,
    Int16 = 6,
    UInt16 = 7,
    Int4 = 8,
    UInt1 = 9,
    UInt2 = 10,
    UInt4 = 11,
    UInt3 = 12,
    UInt6 = 13,
    Int32 = 14,
    UInt32 = 15,
    Float8E4M3FN = 16,
    Float8E5M2 = 17,
}

impl BlobDtype {
    /// Every type that the format has.
    pub const ALL: [BlobDtype; 17] = {
        use BlobDtype::*;
        [
            Float16,
            Float32,
            UInt8,
            Int8,
            BFloat16,
            Int16,
            UInt16,
            Int4,
            UInt1,
            UInt2,
            UInt4,
            UInt3,
            UInt6,
            Int32,
            UInt32,
            Float8E4M3FN,
            Float8E5M2,
        ]
    };

    /// The type's number in a weight file.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The type with this number in a weight file, if there is one.
    ///
    /// ```
    /// use palettizer_coreml::blob::BlobDtype;
    /// assert_eq!(BlobDtype::from_number(12), Some(BlobDtype::UInt3));
    /// assert_eq!(BlobDtype::from_number(0), None);
    /// ```
    pub fn from_number(number: u32) -> Option<BlobDtype> {
        Self::ALL.into_iter().find(|dtype| dtype.number() == number)
    }

    /// The type as the program names it.
    ///
    /// ```
    /// use palettizer_coreml::{blob::BlobDtype, proto::DataType};
    /// assert_eq!(BlobDtype::UInt6.data_type(), DataType::UInt6);
    /// ```
    pub fn data_type(self) -> DataType {
        match self {
            BlobDtype::Float16 => DataType::Float16,
            BlobDtype::Float32 => DataType::Float32,
            BlobDtype::UInt8 => DataType::UInt8,
            BlobDtype::Int8 => DataType::Int8,
            BlobDtype::BFloat16 => DataType::BFloat16,
            BlobDtype::Int16 => DataType::Int16,
            BlobDtype::UInt16 => DataType::UInt16,
            BlobDtype::Int4 => DataType::Int4,
            BlobDtype::UInt1 => DataType::UInt1,
            BlobDtype::UInt2 => DataType::UInt2,
            BlobDtype::UInt4 => DataType::UInt4,
            BlobDtype::UInt3 => DataType::UInt3,
            BlobDtype::UInt6 => DataType::UInt6,
            BlobDtype::Int32 => DataType::Int32,
            BlobDtype::UInt32 => DataType::UInt32,
            BlobDtype::Float8E4M3FN => DataType::Float8E4M3FN,
            BlobDtype::Float8E5M2 => DataType::Float8E5M2,
        }
    }

    /// The blob type of a type of the program; `None` for one that a weight file cannot hold.
    ///
    /// ```
    /// use palettizer_coreml::{blob::BlobDtype, proto::DataType};
    /// assert_eq!(BlobDtype::from_data_type(DataType::Float16), Some(BlobDtype::Float16));
    /// assert_eq!(BlobDtype::from_data_type(DataType::String), None);
    /// ```
    pub fn from_data_type(data_type: DataType) -> Option<BlobDtype> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.data_type() == data_type)
    }

    /// Bits of one element.
    ///
    /// ```
    /// use palettizer_coreml::blob::BlobDtype;
    /// assert_eq!(BlobDtype::UInt3.bits(), 3);
    /// assert_eq!(BlobDtype::Float16.bits(), 16);
    /// ```
    pub fn bits(self) -> u32 {
        match self {
            BlobDtype::UInt1 => 1,
            BlobDtype::UInt2 => 2,
            BlobDtype::UInt3 => 3,
            BlobDtype::Int4 | BlobDtype::UInt4 => 4,
            BlobDtype::UInt6 => 6,
            BlobDtype::UInt8
            | BlobDtype::Int8
            | BlobDtype::Float8E4M3FN
            | BlobDtype::Float8E5M2 => 8,
            BlobDtype::Float16 | BlobDtype::BFloat16 | BlobDtype::Int16 | BlobDtype::UInt16 => 16,
            BlobDtype::Float32 | BlobDtype::Int32 | BlobDtype::UInt32 => 32,
        }
    }

    /// The type's name as coremltools writes it: `fp16`, `uint4`, ….
    pub fn name(self) -> &'static str {
        self.data_type().name()
    }

    /// Whether elements are packed several to a byte, so that a blob may end in unused bits.
    pub(super) fn is_packed(self) -> bool {
        self.bits() < 8
    }

    /// The elements that `len` bytes hold with `unused` bits left over; `None` if that cannot be.
    pub(super) fn elements(self, len: u64, unused: u64) -> Option<u64> {
        if unused >= 8 {
            return None;
        }
        // In u128 no size overflows.
        let used = (u128::from(len) * 8).checked_sub(u128::from(unused))?;
        let width = u128::from(self.bits());
        if used % width != 0 {
            return None;
        }
        u64::try_from(used / width).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_agree_with_the_programs() {
        for dtype in BlobDtype::ALL {
            assert_eq!(dtype.data_type().bits(), Some(dtype.bits()), "{dtype:?}");
            assert_eq!(BlobDtype::from_data_type(dtype.data_type()), Some(dtype));
            assert_eq!(BlobDtype::from_number(dtype.number()), Some(dtype));
        }
    }

    #[test]
    fn elements_need_whole_ones_and_less_than_a_byte_unused() {
        assert_eq!(BlobDtype::UInt3.elements(2, 1), Some(5));
        assert_eq!(BlobDtype::UInt3.elements(2, 0), None);
        assert_eq!(BlobDtype::UInt1.elements(2, 8), None);
        assert_eq!(BlobDtype::Float32.elements(13, 0), None);
        assert_eq!(BlobDtype::UInt1.elements(u64::MAX, 0), None);
    }
}
