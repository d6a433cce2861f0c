//! The element types of MIL tensors, under their numbers in `MILSpec.DataType`.

/// An element type of a MIL tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DataType {
    Bool = 1,
    String = 2,
    Float16 = 10,
    Float32 = 11,
    Float64 = 12,
    BFloat16 = 13,
    Int8 = 21,
    Int16 = 22,
    Int32 = 23,
    Int64 = 24,
    Int4 = 25,
    UInt8 = 31,
    UInt16 = 32,
    UInt32 = 33,
    UInt64 = 34,
    UInt4 = 35,
    UInt2 = 36,
    UInt1 = 37,
    UInt6 = 38,
    UInt3 = 39,
    Float8E4M3FN = 40,
    Float8E5M2 = 41,
}

impl DataType {
    /// Every type that we know.
    pub const ALL: [DataType; 22] = {
        use DataType::*;
        [
            Bool,
            String,
            Float16,
            Float32,
            Float64,
            BFloat16,
            Int8,
            Int16,
            Int32,
            Int64,
            Int4,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            UInt4,
            UInt2,
            UInt1,
            UInt6,
            UInt3,
            Float8E4M3FN,
            Float8E5M2,
        ]
    };

    /// The type with this number in a file, if we know it.
    ///
    /// ```
    /// use palettizer_coreml::proto::DataType;
    /// assert_eq!(DataType::from_number(10), Some(DataType::Float16));
    /// assert_eq!(DataType::from_number(99), None);
    /// ```
    pub fn from_number(number: i32) -> Option<DataType> {
        Self::ALL.into_iter().find(|dtype| *dtype as i32 == number)
    }

    /// Bits that one element takes in a weight file; `None` for strings.
    ///
    /// ```
    /// use palettizer_coreml::proto::DataType;
    /// assert_eq!(DataType::UInt3.bits(), Some(3));
    /// ```
    pub fn bits(self) -> Option<u32> {
        use DataType::*;
        Some(match self {
            String => return None,
            UInt1 => 1,
            UInt2 => 2,
            UInt3 => 3,
            Int4 | UInt4 => 4,
            UInt6 => 6,
            Bool | Int8 | UInt8 | Float8E4M3FN | Float8E5M2 => 8,
            Float16 | BFloat16 | Int16 | UInt16 => 16,
            Float32 | Int32 | UInt32 => 32,
            Float64 | Int64 | UInt64 => 64,
        })
    }

    /// The type's name as coremltools writes it: `fp16`, `uint4`, ….
    ///
    /// ```
    /// use palettizer_coreml::proto::DataType;
    /// assert_eq!(DataType::BFloat16.name(), "bf16");
    /// ```
    pub fn name(self) -> &'static str {
        use DataType::*;
        match self {
            Bool => "bool",
            String => "string",
            Float16 => "fp16",
            Float32 => "fp32",
            Float64 => "fp64",
            BFloat16 => "bf16",
            Int8 => "int8",
            Int16 => "int16",
            Int32 => "int32",
            Int64 => "int64",
            Int4 => "int4",
            UInt8 => "uint8",
            UInt16 => "uint16",
            UInt32 => "uint32",
            UInt64 => "uint64",
            UInt4 => "uint4",
            UInt2 => "uint2",
            UInt1 => "uint1",
            UInt6 => "uint6",
            UInt3 => "uint3",
            Float8E4M3FN => "fp8e4m3fn",
            Float8E5M2 => "fp8e5m2",
        }
    }
}
