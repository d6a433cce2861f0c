//! What users of a function see: its inputs, outputs and states, of which kinds, and which shapes they may have.

use crate::error::Error;
use crate::image::ColorSpace;
use crate::plan::Function;
use crate::tensor::Dtype;
use palettizer_coreml::proto::view::{
    ArrayFeature, FeatureDescription, FeatureType, ImageFeature, ModelDescription, SizeRange,
};

/// What users of a function see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// The inputs.
    pub inputs: Vec<Feature>,
    /// The outputs.
    pub outputs: Vec<Feature>,
    /// The states.
    pub states: Vec<Feature>,
    /// The output that is a classifier's answer.
    pub predicted_feature: Option<String>,
    /// The output that holds the probabilities of its classes.
    pub predicted_probabilities: Option<String>,
}

/// An input, output or state.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it is.
    pub kind: Kind,
    /// The value of all elements of an input that may be left out; `None` for one that may not.
    pub default: Option<f64>,
}

/// What a feature is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// An array.
    Array(ArrayKind),
    /// An image.
    Image(ImageKind),
    /// A state that holds an array.
    State(ArrayKind),
    /// An integer.
    Int,
    /// A number.
    Double,
    /// A string.
    Text,
    /// Numbers by class.
    Dictionary,
    /// Integers or strings.
    Sequence,
    /// A kind that is not known here.
    Unknown,
}

/// An array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArrayKind {
    /// The type of its elements, if it is one that programs compute with.
    pub dtype: Option<Dtype>,
    /// Its shape, the default one of several; empty where outputs leave it open.
    pub shape: Vec<usize>,
    /// The shapes that it may have.
    pub shapes: Shapes,
}

/// The shapes that an array may have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shapes {
    /// No other than the default.
    #[default]
    One,
    /// One of these.
    Listed(Vec<Vec<usize>>),
    /// Dimensions within these bounds.
    Within(Vec<Bounds>),
}

/// The least and the largest size of a dimension, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The least.
    pub least: usize,
    /// The largest.
    pub largest: Option<usize>,
}

/// An image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageKind {
    /// Its width in pixels, the default one of several.
    pub width: usize,
    /// Its height.
    pub height: usize,
    /// What its channels are.
    pub color: ColorSpace,
    /// The sizes that it may have.
    pub sizes: Sizes,
}

/// The sizes that an image may have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sizes {
    /// No other than the default.
    #[default]
    One,
    /// One of these, width before height.
    Listed(Vec<(usize, usize)>),
    /// Width and height within these bounds.
    Within(Bounds, Bounds),
}

impl Interface {
    /// That of a function: as the model describes it, or else as the program declares it.
    pub(crate) fn of(description: &ModelDescription, function: &Function) -> Result<Self, Error> {
        let described = description.functions.iter();
        let described = described.clone().find(|one| one.name == function.name);
        let (inputs, outputs, states, predicted, probabilities) = match described {
            Some(one) => (
                &one.inputs,
                &one.outputs,
                &one.states,
                &one.predicted_feature,
                &one.predicted_probabilities,
            ),
            None => (
                &description.inputs,
                &description.outputs,
                &description.states,
                &description.predicted_feature,
                &description.predicted_probabilities,
            ),
        };
        let mut found = Interface {
            inputs: features(inputs)?,
            outputs: features(outputs)?,
            states: features(states)?,
            predicted_feature: (!predicted.is_empty()).then(|| predicted.clone()),
            predicted_probabilities: (!probabilities.is_empty()).then(|| probabilities.clone()),
        };
        for input in &function.inputs {
            let listed = match input.state {
                true => &mut found.states,
                false => &mut found.inputs,
            };
            if !listed.iter().any(|feature| feature.name == input.name) {
                let array = ArrayKind {
                    dtype: input.declared.dtype,
                    shape: input.declared.least_shape(),
                    shapes: Shapes::One,
                };
                listed.push(Feature {
                    name: input.name.clone(),
                    description: String::new(),
                    kind: match input.state {
                        true => Kind::State(array),
                        false => Kind::Array(array),
                    },
                    default: None,
                });
            }
        }
        Ok(found)
    }

    /// That of a pipeline.
    pub(crate) fn of_pipeline(description: &ModelDescription) -> Result<Self, Error> {
        Ok(Interface {
            inputs: features(&description.inputs)?,
            outputs: features(&description.outputs)?,
            states: features(&description.states)?,
            predicted_feature: None,
            predicted_probabilities: None,
        })
    }

    /// An input.
    pub fn input(&self, name: &str) -> Option<&Feature> {
        self.inputs.iter().find(|feature| feature.name == name)
    }

    /// An output.
    pub fn output(&self, name: &str) -> Option<&Feature> {
        self.outputs.iter().find(|feature| feature.name == name)
    }
}

fn features(described: &[FeatureDescription]) -> Result<Vec<Feature>, Error> {
    described.iter().map(feature).collect()
}

fn feature(described: &FeatureDescription) -> Result<Feature, Error> {
    let nothing = FeatureType::default();
    let found = described.r#type.as_ref().unwrap_or(&nothing);
    let damaged = |what: &str| Error::Interface {
        name: described.name.clone(),
        what: what.to_owned(),
    };
    let mut default = 0.0;
    let kind = if let Some(array) = &found.array {
        default = f64::from(array.int_default) + f64::from(array.float_default);
        default += array.double_default;
        Kind::Array(array_kind(array).map_err(|what| damaged(&what))?)
    } else if let Some(image) = &found.image {
        Kind::Image(image_kind(image).map_err(|what| damaged(&what))?)
    } else if let Some(state) = &found.state {
        let array = state.array.as_ref().map(array_kind);
        let array = array.transpose().map_err(|what| damaged(&what))?;
        Kind::State(array.unwrap_or_default())
    } else if found.int64.is_some() {
        Kind::Int
    } else if found.double.is_some() {
        Kind::Double
    } else if found.string.is_some() {
        Kind::Text
    } else if found.dictionary.is_some() {
        Kind::Dictionary
    } else if found.sequence.is_some() {
        Kind::Sequence
    } else {
        Kind::Unknown
    };
    Ok(Feature {
        name: described.name.clone(),
        description: described.short_description.clone(),
        kind,
        default: found.is_optional.then_some(default),
    })
}

fn array_kind(array: &ArrayFeature) -> Result<ArrayKind, String> {
    let dtype = match array.data_type {
        65568 | 65600 => Some(Dtype::F32),
        65552 => Some(Dtype::F16),
        131_104 => Some(Dtype::I32),
        131_080 => Some(Dtype::I8),
        _ => None,
    };
    let mut shapes = Shapes::One;
    if let Some(listed) = &array.enumerated_shapes {
        let listed = listed.shapes.iter();
        let listed = listed
            .map(|one| dims(&one.shape))
            .collect::<Result<_, _>>()?;
        shapes = Shapes::Listed(listed);
    } else if let Some(range) = &array.shape_range {
        shapes = Shapes::Within(range.sizes.iter().map(bounds).collect::<Result<_, _>>()?);
    }
    Ok(ArrayKind {
        dtype,
        shape: dims(&array.shape)?,
        shapes,
    })
}

fn image_kind(image: &ImageFeature) -> Result<ImageKind, String> {
    let color = ColorSpace::of_number(image.color_space)
        .ok_or_else(|| format!("the color space {} is not known", image.color_space))?;
    let mut sizes = Sizes::One;
    if let Some(listed) = &image.enumerated_sizes {
        let size = |one: &palettizer_coreml::proto::view::ImageSize| {
            Ok::<_, String>((size(one.width)?, size(one.height)?))
        };
        sizes = Sizes::Listed(listed.sizes.iter().map(size).collect::<Result<_, _>>()?);
    } else if let Some(range) = &image.size_range {
        let one =
            |range: &Option<SizeRange>| bounds(range.as_ref().unwrap_or(&SizeRange::default()));
        sizes = Sizes::Within(one(&range.width)?, one(&range.height)?);
    }
    let pixels = |number: i64| {
        usize::try_from(number).map_err(|_| format!("an image of {number} pixels a side"))
    };
    Ok(ImageKind {
        width: pixels(image.width)?,
        height: pixels(image.height)?,
        color,
        sizes,
    })
}

fn dims(shape: &[i64]) -> Result<Vec<usize>, String> {
    let dims = shape.iter().map(|&dim| usize::try_from(dim));
    let dims: Result<Vec<usize>, _> = dims.collect();
    dims.map_err(|_| format!("the shape {shape:?} has a negative dimension"))
}

fn size(number: u64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("a size of {number}"))
}

fn bounds(range: &SizeRange) -> Result<Bounds, String> {
    // negative: no bound
    Ok(Bounds {
        least: size(range.lower_bound)?,
        largest: usize::try_from(range.upper_bound).ok(),
    })
}

impl Bounds {
    fn allow(self, size: usize) -> bool {
        size >= self.least && self.largest.is_none_or(|largest| size <= largest)
    }

    fn text(self) -> String {
        match self.largest {
            Some(largest) if largest == self.least => largest.to_string(),
            Some(largest) => format!("{} to {largest}", self.least),
            None => format!("{} or more", self.least),
        }
    }
}

impl ArrayKind {
    /// Whether it may have a shape. One that is fixed is the program's to check.
    pub fn allows(&self, shape: &[usize]) -> bool {
        match &self.shapes {
            Shapes::One => true,
            Shapes::Listed(listed) => listed.iter().any(|one| one == shape),
            Shapes::Within(bounds) => {
                bounds.len() == shape.len()
                    && bounds
                        .iter()
                        .zip(shape)
                        .all(|(bounds, &dim)| bounds.allow(dim))
            }
        }
    }

    /// The shapes in words: `[1, 1 to 128]`.
    pub fn shapes_text(&self) -> String {
        match &self.shapes {
            Shapes::One => format!("{:?}", self.shape),
            Shapes::Listed(listed) => {
                let listed = listed.iter().map(|shape| format!("{shape:?}"));
                listed.collect::<Vec<_>>().join(" or ")
            }
            Shapes::Within(bounds) => {
                let bounds = bounds.iter().map(|bounds| bounds.text());
                format!("[{}]", bounds.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl ImageKind {
    /// Whether it may be of a size.
    pub fn allows(&self, width: usize, height: usize) -> bool {
        match &self.sizes {
            Sizes::One => (width, height) == (self.width, self.height),
            Sizes::Listed(listed) => listed.contains(&(width, height)),
            Sizes::Within(across, down) => across.allow(width) && down.allow(height),
        }
    }

    /// The sizes in words: `224×224`.
    pub fn sizes_text(&self) -> String {
        match &self.sizes {
            Sizes::One => format!("{}×{}", self.width, self.height),
            Sizes::Listed(listed) => {
                let listed = listed
                    .iter()
                    .map(|(width, height)| format!("{width}×{height}"));
                listed.collect::<Vec<_>>().join(" or ")
            }
            Sizes::Within(across, down) => format!("{} × {}", across.text(), down.text()),
        }
    }
}
