//! The element types of safetensors files.

use palettizer_palette::Dtype;

/// The type of a tensor's elements, in the order in which the safetensors library writes tensors, last to first.
///
/// ```
/// use palettizer_safetensors::ElementType;
///
/// let element = ElementType::from_name("BF16").ok_or("no such type")?;
/// assert_eq!(element.bits(), 16);
/// assert!(element.palette_dtype().is_some());
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say what they are")]
pub enum ElementType {
    Bool,
    F4,
    F6E2M3,
    F6E3M2,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    F8E8M0,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

use ElementType as E;

/// Each type with its name in a file, the name that users see, and its bits.
const TABLE: [(ElementType, &str, &str, usize); 22] = [
    (E::Bool, "BOOL", "bool", 8),
    (E::F4, "F4", "fp4", 4),
    (E::F6E2M3, "F6_E2M3", "fp6_e2m3", 6),
    (E::F6E3M2, "F6_E3M2", "fp6_e3m2", 6),
    (E::U8, "U8", "uint8", 8),
    (E::I8, "I8", "int8", 8),
    (E::F8E5M2, "F8_E5M2", "fp8_e5m2", 8),
    (E::F8E4M3, "F8_E4M3", "fp8_e4m3", 8),
    (E::F8E8M0, "F8_E8M0", "fp8_e8m0", 8),
    (E::F8E4M3Fnuz, "F8_E4M3FNUZ", "fp8_e4m3fnuz", 8),
    (E::F8E5M2Fnuz, "F8_E5M2FNUZ", "fp8_e5m2fnuz", 8),
    (E::I16, "I16", "int16", 16),
    (E::U16, "U16", "uint16", 16),
    (E::F16, "F16", "fp16", 16),
    (E::BF16, "BF16", "bf16", 16),
    (E::I32, "I32", "int32", 32),
    (E::U32, "U32", "uint32", 32),
    (E::F32, "F32", "fp32", 32),
    (E::C64, "C64", "complex64", 64),
    (E::F64, "F64", "fp64", 64),
    (E::I64, "I64", "int64", 64),
    (E::U64, "U64", "uint64", 64),
];

impl ElementType {
    fn row(self) -> &'static (ElementType, &'static str, &'static str, usize) {
        // The table is in the order of the enum, which a test holds it to.
        &TABLE[self as usize]
    }

    /// The type of this name in a file, such as `BF16`.
    pub fn from_name(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|row| row.1 == name)?;
        Some(row.0)
    }

    /// The name in a file, such as `BF16`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The name that users see, such as `bf16`.
    pub fn shown(self) -> &'static str {
        self.row().2
    }

    /// Bits of an element.
    pub fn bits(self) -> usize {
        self.row().3
    }

    /// Bytes of a tensor of this shape; `None` if they are too many to count, or no whole number.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let bits = shape
            .iter()
            .try_fold(self.bits(), |bits, &dim| bits.checked_mul(dim))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// The type as the palettizer knows it, if it is one of a weight that can be palettized.
    pub fn palette_dtype(self) -> Option<Dtype> {
        match self {
            E::F16 => Some(Dtype::F16),
            E::BF16 => Some(Dtype::BF16),
            E::F32 => Some(Dtype::F32),
            _ => None,
        }
    }
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => E::F16,
            Dtype::BF16 => E::BF16,
            Dtype::F32 => E::F32,
            Dtype::I8 => E::I8,
            Dtype::U8 => E::U8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, at);
            assert_eq!(ElementType::from_name(row.1), Some(row.0));
            assert_eq!(row.0.name(), row.1);
        }
        assert_eq!(ElementType::from_name("f16"), None);
    }

    #[test]
    fn bytes_are_counted() {
        let table: [(ElementType, &[usize], Option<usize>); 7] = [
            (E::F32, &[2, 3], Some(24)),
            (E::F16, &[], Some(2)),
            (E::F64, &[0, usize::MAX], Some(0)),
            (E::F4, &[2, 3], Some(3)),
            (E::F4, &[3], None),
            (E::F6E2M3, &[4], Some(3)),
            (E::U8, &[usize::MAX, 2], None),
        ];
        for (element, shape, bytes) in table {
            assert_eq!(element.bytes(shape), bytes, "{element:?} {shape:?}");
        }
    }
}
