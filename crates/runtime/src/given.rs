//! What a run is given, as the program declares it: arrays of its types, the floats of images, defaults of what was left out.

use crate::error::Error;
use crate::image::Image;
use crate::interface::{ArrayKind, Feature, ImageKind, Interface, Kind};
use crate::plan::{Function, Input};
use crate::session::{Named, State};
use crate::tensor::{Dtype, Elements, Tensor};
use crate::value::Value;
use std::sync::Arc;

/// The values of a function's inputs, in its order.
pub(crate) fn all(
    function: &Function,
    interface: &Interface,
    mut inputs: Named,
) -> Result<Vec<Value>, Error> {
    let mut values = Vec::new();
    for input in &function.inputs {
        values.push(one(input, interface.input(&input.name), &mut inputs)?);
    }
    let known = function.inputs.iter().filter(|input| !input.state);
    none_left(&inputs, known.map(|input| input.name.as_str()))?;
    Ok(values)
}

/// The inputs of a pipeline, with the defaults of what was left out.
pub(crate) fn of_pipeline(interface: &Interface, mut inputs: Named) -> Result<Named, Error> {
    let mut found = Named::new();
    for feature in &interface.inputs {
        match inputs.remove(&feature.name).or_else(|| default(feature)) {
            Some(value) => found.insert(feature.name.clone(), value),
            None => return Err(bad(&feature.name, "is missing")),
        };
    }
    none_left(
        &inputs,
        interface.inputs.iter().map(|one| one.name.as_str()),
    )?;
    Ok(found)
}

fn none_left<'a>(inputs: &Named, known: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    match inputs.keys().next() {
        None => Ok(()),
        Some(name) => {
            let known: Vec<&str> = known.collect();
            let known = known.join(", ");
            Err(bad(name, format!("is not one of the model's: {known}")))
        }
    }
}

fn bad(name: &str, what: impl Into<String>) -> Error {
    Error::Input {
        name: name.to_owned(),
        what: what.into(),
    }
}

/// The value that was given for an input, as the program declares it.
fn one(input: &Input, feature: Option<&Feature>, inputs: &mut Named) -> Result<Value, Error> {
    if input.state {
        return Ok(Value::State(Arc::from(input.name.as_str())));
    }
    let given = inputs.remove(&input.name);
    let given = given.or_else(|| feature.and_then(default));
    let given = given.ok_or_else(|| bad(&input.name, "is missing"))?;
    let kind = feature.map(|feature| &feature.kind);
    let tensor = match (given, kind) {
        (Value::Image(image), Some(Kind::Image(kind))) => of_image(input, kind, &image)?,
        (Value::Image(_), _) => {
            let expected = input.declared.shape_text();
            return Err(bad(
                &input.name,
                format!("is an image; the model expects an array of the shape {expected}"),
            ));
        }
        (Value::Tensor(tensor), Some(Kind::Array(kind))) => {
            let tensor = of_shape(input, tensor);
            within(input, kind, &tensor)?;
            tensor
        }
        (Value::Tensor(tensor), _) => of_shape(input, tensor),
        (other, _) => return Ok(other),
    };
    if !input.declared.allows(tensor.shape()) {
        let (found, expected) = (tensor.shape(), input.declared.shape_text());
        return Err(bad(
            &input.name,
            format!("has the shape {found:?}; the model expects {expected}"),
        ));
    }
    let dtype = input.declared.dtype.unwrap_or(tensor.dtype());
    let found = tensor.dtype();
    converted(tensor, dtype).map(Value::Tensor).ok_or_else(|| {
        bad(
            &input.name,
            format!("is of {}; the model expects {}", found.name(), dtype.name()),
        )
    })
}

/// A number alone counts as an array of one.
fn of_shape(input: &Input, tensor: Tensor) -> Tensor {
    match input.declared.shape.as_deref() {
        Some(&[one]) if tensor.rank() == 0 && one.is_none_or(|one| one == 1) => {
            let same = tensor.clone();
            tensor.reshaped(&[1]).unwrap_or(same)
        }
        _ => tensor,
    }
}

fn within(input: &Input, kind: &ArrayKind, tensor: &Tensor) -> Result<(), Error> {
    if kind.allows(tensor.shape()) {
        return Ok(());
    }
    let (found, expected) = (tensor.shape(), kind.shapes_text());
    Err(bad(
        &input.name,
        format!("has the shape {found:?}; the model expects {expected}"),
    ))
}

fn of_image(input: &Input, kind: &ImageKind, image: &Image) -> Result<Tensor, Error> {
    let (width, height) = (image.width(), image.height());
    if !kind.allows(width, height) {
        let expected = kind.sizes_text();
        return Err(bad(
            &input.name,
            format!("is an image of {width}×{height} pixels; the model expects {expected}"),
        ));
    }
    let declared = input.declared.shape.as_ref().map_or(4, Vec::len);
    let tensor = image.to_tensor(kind.color).and_then(|tensor| {
        let flat = [kind.color.channels(), height, width];
        match declared {
            3 => tensor.reshaped(&flat),
            _ => Some(tensor),
        }
    });
    tensor.ok_or_else(|| bad(&input.name, "is an image larger than any memory"))
}

/// The value of an input that was left out and may be.
fn default(feature: &Feature) -> Option<Value> {
    let value = feature.default?;
    let Kind::Array(array) = &feature.kind else {
        return None;
    };
    let dtype = array.dtype.unwrap_or(Dtype::F32);
    Tensor::filled(dtype, &array.shape, value).map(Value::Tensor)
}

/// Outputs with those as images that users are to see as such.
pub(crate) fn as_images(mut outputs: Named, interface: &Interface) -> Result<Named, Error> {
    for feature in &interface.outputs {
        let Kind::Image(kind) = &feature.kind else {
            continue;
        };
        let Some(Value::Tensor(tensor)) = outputs.get(&feature.name) else {
            continue;
        };
        let image = Image::of_tensor(tensor, kind.color).ok_or_else(|| Error::Output {
            name: feature.name.clone(),
            what: format!(
                "is a tensor of {} {:?}, which is no {} image",
                tensor.dtype().name(),
                tensor.shape(),
                kind.color.name()
            ),
        })?;
        outputs.insert(feature.name.clone(), Value::Image(Arc::new(image)));
    }
    Ok(outputs)
}

impl Function {
    /// Lets its states hold zeros.
    pub(crate) fn zeros(&self, state: &mut State) -> Result<(), Error> {
        for input in self.inputs.iter().filter(|input| input.state) {
            let shape = input.declared.shape.iter().flatten().copied();
            let shape = shape.collect::<Option<Vec<usize>>>();
            let dtype = input.declared.dtype.unwrap_or(Dtype::F16);
            let zeros = shape.and_then(|shape| Tensor::filled(dtype, &shape, 0.0));
            let zeros = zeros.ok_or_else(|| Error::Program {
                function: self.name.clone(),
                what: format!(
                    "the state \"{}\" has the shape {}, which no memory has room for",
                    input.name,
                    input.declared.shape_text()
                ),
            })?;
            state.put(&input.name, zeros);
        }
        Ok(())
    }
}

/// A tensor in the type that a program declares: numbers of one kind become those of another if nothing is lost.
pub(crate) fn converted(tensor: Tensor, dtype: Dtype) -> Option<Tensor> {
    if tensor.dtype() == dtype && !dtype.is_float() {
        return Some(tensor);
    }
    let shape = tensor.shape().to_vec();
    if dtype.is_float() {
        let floats = match tensor.elements() {
            // a tensor that calls itself fp16 may not have been rounded yet
            Elements::Floats(_) => return Some(tensor.with_float_type(dtype, true)),
            Elements::Ints(values) => values.iter().map(|&value| value as f32).collect::<Vec<_>>(),
            Elements::Bools(values) => values
                .iter()
                .map(|&value| f32::from(u8::from(value)))
                .collect(),
            Elements::Texts(_) => return None,
        };
        return Some(Tensor::new(dtype, &shape, floats)?.with_float_type(dtype, true));
    }
    let (least, largest) = dtype.int_range();
    let whole = |value: f64| {
        let fits = value.fract() == 0.0 && (least as f64..=largest as f64).contains(&value);
        fits.then_some(value as i32)
    };
    match (tensor.elements(), dtype) {
        (Elements::Ints(values), Dtype::Bool) => Tensor::new(
            dtype,
            &shape,
            values.iter().map(|&value| value != 0).collect::<Vec<_>>(),
        ),
        (Elements::Ints(values), _) if dtype.is_int() => {
            let values = values
                .iter()
                .map(|&value| whole(f64::from(value)))
                .collect::<Option<Vec<_>>>();
            Tensor::new(dtype, &shape, values?)
        }
        (Elements::Floats(values), _) if dtype.is_int() => {
            let values = values
                .iter()
                .map(|&value| whole(f64::from(value)))
                .collect::<Option<Vec<_>>>();
            Tensor::new(dtype, &shape, values?)
        }
        (Elements::Bools(values), _) if dtype.is_int() => Tensor::new(
            dtype,
            &shape,
            values
                .iter()
                .map(|&value| i32::from(value))
                .collect::<Vec<_>>(),
        ),
        _ => None,
    }
}
