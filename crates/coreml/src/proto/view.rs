//! Parts of a model that are only looked at, never written: its description, and types and values other than tensors.
//!
//! The messages in [`proto`](super) leave these fields in `unknown`, so that they are written back as they were read. Here
//! those bytes are read once more.

use super::{ConstantDimension, Model, Value, ValueType};
use super::{ImmediateValue, measure, wire};
use super::{field_encode, field_len, field_measure, field_merge, field_type, messages};
use prost::{DecodeError, Message};

messages! {
    /// The part of a model that describes it.
    ModelView {
        /// The description.
        2 => description: (ModelDescription),
    }

    /// What users of a model see.
    ModelDescription {
        /// The inputs, of a model without functions of its own.
        1 => inputs: [(FeatureDescription)],
        /// The outputs.
        10 => outputs: [(FeatureDescription)],
        /// The output that is the predicted class.
        11 => predicted_feature: string,
        /// The output that holds the probabilities of classes.
        12 => predicted_probabilities: string,
        /// The states.
        13 => states: [(FeatureDescription)],
        /// The functions, of a model that has several.
        20 => functions: [(FunctionDescription)],
        /// The function that runs when none is named.
        21 => default_function: string,
    }

    /// What users of one function see.
    FunctionDescription {
        /// The name.
        1 => name: string,
        /// The inputs.
        2 => inputs: [(FeatureDescription)],
        /// The outputs.
        3 => outputs: [(FeatureDescription)],
        /// The output that is the predicted class.
        4 => predicted_feature: string,
        /// The output that holds the probabilities of classes.
        5 => predicted_probabilities: string,
        /// The states.
        6 => states: [(FeatureDescription)],
    }

    /// An input, output or state.
    FeatureDescription {
        /// The name.
        1 => name: string,
        /// What it is for.
        2 => short_description: string,
        /// Its kind.
        3 => r#type: (FeatureType),
    }

    /// The kind of an input or output. Others than these stay in `unknown`.
    FeatureType {
        /// An integer.
        1 => int64: (PlainFeature),
        /// A number.
        2 => double: (PlainFeature),
        /// A string.
        3 => string: (PlainFeature),
        /// An image.
        4 => image: (ImageFeature),
        /// An array.
        5 => array: (ArrayFeature),
        /// A dictionary from classes to numbers.
        6 => dictionary: (PlainFeature),
        /// Integers or strings.
        7 => sequence: (PlainFeature),
        /// A state.
        8 => state: (StateFeature),
        /// Whether it may be left out.
        1000 => is_optional: bool,
    }

    /// A kind of which nothing more is looked at.
    PlainFeature {}

    /// An image.
    ImageFeature {
        /// Its width in pixels, or the default of several.
        1 => width: int64,
        /// Its height.
        2 => height: int64,
        /// 10 for gray, 20 for RGB, 30 for BGR, 40 for gray in fp16.
        3 => color_space: int32,
        /// The sizes that it may have.
        21 => enumerated_sizes: (EnumeratedSizes),
        /// The bounds of its size.
        31 => size_range: (ImageSizeRange),
    }

    /// Sizes to choose from.
    EnumeratedSizes {
        /// The sizes.
        1 => sizes: [(ImageSize)],
    }

    /// A size in pixels.
    ImageSize {
        /// The width.
        1 => width: uint64,
        /// The height.
        2 => height: uint64,
    }

    /// Bounds of a size.
    ImageSizeRange {
        /// Those of the width.
        1 => width: (SizeRange),
        /// Those of the height.
        2 => height: (SizeRange),
    }

    /// An array.
    ArrayFeature {
        /// Its shape, or the default of several.
        1 => shape: [int64],
        /// 65568 for fp32, 65552 fp16, 65600 fp64, 131104 int32, 131080 int8.
        2 => data_type: int32,
        /// The shapes that it may have.
        21 => enumerated_shapes: (EnumeratedShapes),
        /// The bounds of its dimensions.
        31 => shape_range: (ShapeRange),
        /// The value of all elements where the input is left out, of an int array.
        41 => int_default: int32,
        /// The same, of an fp32 or fp16 array.
        51 => float_default: float,
        /// The same, of an fp64 array.
        61 => double_default: double,
    }

    /// Shapes to choose from.
    EnumeratedShapes {
        /// The shapes.
        1 => shapes: [(Shape)],
    }

    /// A shape.
    Shape {
        /// The dimensions.
        1 => shape: [int64],
    }

    /// Bounds of a shape.
    ShapeRange {
        /// For each dimension.
        1 => sizes: [(SizeRange)],
    }

    /// Bounds of a dimension.
    SizeRange {
        /// The least.
        1 => lower_bound: uint64,
        /// The largest; negative if there is none.
        2 => upper_bound: int64,
    }

    /// A state.
    StateFeature {
        /// The array that it holds.
        1 => array: (ArrayFeature),
    }

    /// A type other than a tensor's.
    TypeView {
        /// A list.
        2 => list: (ListType),
        /// A state.
        5 => state: (StateType),
    }

    /// A list's type.
    ListType {
        /// Its elements' type.
        1 => element: (ValueType),
        /// Its length, if it is known.
        2 => length: (LengthView),
    }

    /// A known length.
    LengthView {
        /// The length.
        1 => constant: (ConstantDimension),
    }

    /// A state's type.
    StateType {
        /// The type of what it holds.
        1 => wrapped: (ValueType),
    }

    /// A value in place other than a tensor.
    ImmediateView {
        /// A tuple.
        2 => tuple: (Values),
        /// A list.
        3 => list: (Values),
    }

    /// Several values.
    Values {
        /// The values.
        1 => values: [(Value)],
    }
}

/// What users of a model see.
///
/// # Errors
/// The bytes are no such message.
pub fn description(model: &Model) -> Result<ModelDescription, DecodeError> {
    let view = ModelView::decode(model.unknown.as_slice())?;
    Ok(view.description.unwrap_or_default())
}

/// A type, if it is a list's or a state's.
///
/// # Errors
/// The bytes are no such message.
pub fn type_view(value_type: &ValueType) -> Result<TypeView, DecodeError> {
    TypeView::decode(value_type.unknown.as_slice())
}

/// The items of a value in place that is a list or a tuple; `None` for another.
///
/// # Errors
/// The bytes are no such message.
pub fn items(value: &ImmediateValue) -> Result<Option<Vec<Value>>, DecodeError> {
    let view = ImmediateView::decode(value.unknown.as_slice())?;
    Ok(view.list.or(view.tuple).map(|values| values.values))
}
