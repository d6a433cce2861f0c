//! The protobuf messages of a Core ML model, as far as palettization looks into them.
//!
//! Written by hand from the published specification (package `CoreML.Specification`, and its
//! `MILSpec`); nothing is generated, so nothing needs `protoc`. A field that we have no use for is
//! not declared: it stays in its message's `unknown` bytes and is written back as it was read.
//! Members of a `oneof` are plain optional fields here; a well-formed file sets one of them.

mod dtype;
mod measure;
#[cfg(test)]
mod tests;
pub mod view;
mod wire;

pub use dtype::DataType;
pub(crate) use measure::measure;
use wire::{field_encode, field_len, field_measure, field_merge, field_type, messages};

messages! {
    /// A model: one of about 40 kinds, of which ML Programs and pipelines are looked into.
    Model {
        /// The specification version: 6 for iOS15 to 10 for iOS26.
        1 => specification_version: int32,
        /// A pipeline that ends in a classifier.
        200 => pipeline_classifier: (TypedPipeline),
        /// A pipeline that ends in a regressor.
        201 => pipeline_regressor: (TypedPipeline),
        /// A pipeline.
        202 => pipeline: (Pipeline),
        /// An ML Program.
        502 => ml_program: (Program),
    }

    /// Models that run one after the other.
    Pipeline {
        /// The models, in order.
        1 => models: [(Model)],
        /// Their names.
        2 => names: [string],
    }

    /// A `PipelineClassifier` or `PipelineRegressor`.
    TypedPipeline {
        /// The pipeline within.
        1 => pipeline: (Pipeline),
    }

    /// An ML Program: functions by name.
    Program {
        /// The version of the format.
        1 => version: int64,
        /// The functions.
        2 => functions: {Function},
    }

    /// A function: inputs, and a block for each opset that it is specialised for.
    Function {
        /// The inputs.
        1 => inputs: [(NamedValueType)],
        /// The opset in use: a key of `block_specializations`, such as `CoreML7`.
        2 => opset: string,
        /// The blocks, by opset.
        3 => block_specializations: {Block},
    }

    /// A list of operations.
    Block {
        /// The block's inputs (of a loop body, say).
        1 => inputs: [(NamedValueType)],
        /// The names of the values that the block gives.
        2 => outputs: [string],
        /// The operations, in order.
        3 => operations: [(Operation)],
    }

    /// One operation.
    Operation {
        /// The operation's type, such as `conv`.
        1 => r#type: string,
        /// The inputs, by parameter name.
        2 => inputs: {Argument},
        /// The outputs.
        3 => outputs: [(NamedValueType)],
        /// Nested blocks (of `cond` and `while_loop`).
        4 => blocks: [(Block)],
        /// The attributes; `name` is the operation's own name, `val` the value of a `const`.
        5 => attributes: {Value},
    }

    /// What is bound to a parameter: one value, or several for a variadic one.
    Argument {
        /// The bindings.
        1 => arguments: [(Binding)],
    }

    /// The name of a value, or a value in place.
    Binding {
        /// The name of a value that an operation or a block input gives.
        1 => name: string,
        /// A value in place.
        2 => value: (Value),
    }

    /// A name and a type.
    NamedValueType {
        /// The name.
        1 => name: string,
        /// The type.
        2 => r#type: (ValueType),
    }

    /// A type. Lists, tuples, dictionaries and states stay in `unknown`.
    ValueType {
        /// A tensor type.
        1 => tensor_type: (TensorType),
    }

    /// A tensor's element type and shape.
    TensorType {
        /// The element type: a [`DataType`] number.
        1 => data_type: int32,
        /// The rank.
        2 => rank: int64,
        /// The dimensions.
        3 => dimensions: [(Dimension)],
    }

    /// One dimension. An unknown one stays in `unknown`.
    Dimension {
        /// A known size.
        1 => constant: (ConstantDimension),
    }

    /// A known size.
    ConstantDimension {
        /// The size.
        1 => size: uint64,
    }

    /// A constant value: in place, or in a weight file.
    Value {
        /// The type.
        2 => r#type: (ValueType),
        /// The value, in place.
        3 => immediate: (ImmediateValue),
        /// Where in a weight file the value is.
        5 => blob_file: (BlobFileValue),
    }

    /// A value in place. Tuples, lists and dictionaries stay in `unknown`.
    ImmediateValue {
        /// A tensor.
        1 => tensor: (TensorValue),
    }

    /// A place in a weight file.
    BlobFileValue {
        /// The file, such as `@model_path/weights/weight.bin`.
        1 => file_name: string,
        /// The offset of the blob's metadata record.
        2 => offset: uint64,
    }

    /// A tensor's elements, in one of seven lists.
    TensorValue {
        /// fp32 elements.
        1 => floats: (RepeatedFloats),
        /// int32 elements.
        2 => ints: (RepeatedInts),
        /// Booleans.
        3 => bools: (RepeatedBools),
        /// Strings.
        4 => strings: (RepeatedStrings),
        /// int64 elements.
        5 => long_ints: (RepeatedLongInts),
        /// fp64 elements.
        6 => doubles: (RepeatedDoubles),
        /// Elements of any other type, little-endian; fp16 is here.
        7 => bytes: (RepeatedBytes),
    }

    /// fp32 elements.
    RepeatedFloats {
        /// The elements.
        1 => values: [float],
    }

    /// int32 elements.
    RepeatedInts {
        /// The elements.
        1 => values: [int32],
    }

    /// Booleans.
    RepeatedBools {
        /// The elements.
        1 => values: [bool],
    }

    /// Strings.
    RepeatedStrings {
        /// The elements.
        1 => values: [string],
    }

    /// int64 elements.
    RepeatedLongInts {
        /// The elements.
        1 => values: [int64],
    }

    /// fp64 elements.
    RepeatedDoubles {
        /// The elements.
        1 => values: [double],
    }

    /// Little-endian elements.
    RepeatedBytes {
        /// The elements.
        1 => values: bytes,
    }
}
