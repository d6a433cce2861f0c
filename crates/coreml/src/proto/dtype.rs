//! The element types of MIL tensors, under their numbers in `MILSpec.DataType`; weight files have others.

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
        self.row().0
    }

    /// The type's name as coremltools writes it: `fp16`, `uint4`, ….
    ///
    /// ```
    /// use palettizer_coreml::proto::DataType;
    /// assert_eq!(DataType::BFloat16.name(), "bf16");
    /// ```
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type's number in a weight file, which is another than here; `None` for one that no weight file holds.
    pub fn blob_number(self) -> Option<u32> {
        self.row().2
    }

    /// The type with this number in a weight file, if there is one.
    ///
    /// ```
    /// use palettizer_coreml::proto::DataType;
    /// assert_eq!(DataType::from_blob_number(12), Some(DataType::UInt3));
    /// assert_eq!(DataType::from_blob_number(0), None);
    /// ```
    pub fn from_blob_number(number: u32) -> Option<DataType> {
        let mut all = Self::ALL.into_iter();
        all.find(|dtype| dtype.blob_number() == Some(number))
    }

    /// Bits, name, and number in a weight file.
    fn row(self) -> (Option<u32>, &'static str, Option<u32>) {
        use DataType::*;
        match self {
            Bool => (Some(8), "bool", None),
            String => (None, "string", None),
            Float16 => (Some(16), "fp16", Some(1)),
            Float32 => (Some(32), "fp32", Some(2)),
            Float64 => (Some(64), "fp64", None),
            BFloat16 => (Some(16), "bf16", Some(5)),
            Int8 => (Some(8), "int8", Some(4)),
            Int16 => (Some(16), "int16", Some(6)),
            Int32 => (Some(32), "int32", Some(14)),
            Int64 => (Some(64), "int64", None),
            Int4 => (Some(4), "int4", Some(8)),
            UInt8 => (Some(8), "uint8", Some(3)),
            UInt16 => (Some(16), "uint16", Some(7)),
            UInt32 => (Some(32), "uint32", Some(15)),
            UInt64 => (Some(64), "uint64", None),
            UInt4 => (Some(4), "uint4", Some(11)),
            UInt2 => (Some(2), "uint2", Some(10)),
            UInt1 => (Some(1), "uint1", Some(9)),
            UInt6 => (Some(6), "uint6", Some(13)),
            UInt3 => (Some(3), "uint3", Some(12)),
            Float8E4M3FN => (Some(8), "fp8e4m3fn", Some(16)),
            Float8E5M2 => (Some(8), "fp8e5m2", Some(17)),
        }
    }
}
