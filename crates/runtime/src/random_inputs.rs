//! Random inputs of a function, for a look at it without data.

use crate::error::Error;
use crate::image::{Image, Pixels};
use crate::interface::{Feature, ImageKind, Interface, Kind};
use crate::pipeline::{Program, Stage};
use crate::plan::{Function, Id, Op, Source};
use crate::session::{Named, Session};
use crate::tensor::{Dtype, Elements, Tensor, element_count};
use crate::value::Value;
use palettizer_kernels::Random;
use std::collections::HashMap;
use std::sync::Arc;

/// Operations whose output has the integers of their input `x`.
const SAME: [&str; 7] = [
    "cast",
    "expand_dims",
    "identity",
    "reshape",
    "slice_by_index",
    "squeeze",
    "transpose",
];

impl Session {
    /// Inputs of a function, the main one if none is named, in their default shapes: floats are normal, integers smaller than any
    /// table has rows that they index, or else 0 and 1, and pixels are any. What may be left out is. Equal seeds and numbers give equal
    /// inputs.
    ///
    /// # Errors
    /// [`Error::NoFunction`]; [`Error::Input`] for one that is neither an array nor an image, or larger than any memory.
    pub fn random_inputs(
        &self,
        function: Option<&str>,
        seed: u64,
        number: u64,
    ) -> Result<Named, Error> {
        let interface = self.interface(function)?;
        let bounds = match &self.root {
            Stage::Program(program) => index_bounds(program.function(function)?),
            Stage::Pipeline(pipeline) => {
                let programs = pipeline.stages.iter().filter_map(|stage| match stage {
                    Stage::Program(program) => program.function(None).ok(),
                    Stage::Pipeline(_) => None,
                });
                let mut all = HashMap::new();
                for (name, bound) in programs.flat_map(index_bounds) {
                    let least: &mut usize = all.entry(name).or_insert(bound);
                    *least = bound.min(*least);
                }
                all
            }
        };
        random(interface, &self.shapes(function)?, &bounds, seed, number)
    }

    /// The declared shapes of a program's inputs.
    fn shapes(&self, function: Option<&str>) -> Result<HashMap<&str, Vec<usize>>, Error> {
        let Stage::Program(program) = &self.root else {
            return Ok(HashMap::new());
        };
        let inputs = Program::function(program, function)?.inputs.iter();
        Ok(inputs
            .map(|input| (input.name.as_str(), input.declared.least_shape()))
            .collect())
    }
}

fn random(
    interface: &Interface,
    shapes: &HashMap<&str, Vec<usize>>,
    bounds: &HashMap<String, usize>,
    seed: u64,
    number: u64,
) -> Result<Named, Error> {
    let mut inputs = Named::new();
    for (at, feature) in interface.inputs.iter().enumerate() {
        if feature.default.is_some() {
            continue;
        }
        let mut random = Random::stream(Random::stream(seed, number).bits(), at as u64);
        let bound = bounds.get(&feature.name).copied();
        let made = value(
            feature,
            shapes.get(feature.name.as_str()),
            bound,
            &mut random,
        );
        let value = made.ok_or_else(|| Error::Input {
            name: feature.name.clone(),
            what: "is neither an array nor an image of a size that memory has room for".to_owned(),
        })?;
        inputs.insert(feature.name.clone(), value);
    }
    Ok(inputs)
}

fn value(
    feature: &Feature,
    declared: Option<&Vec<usize>>,
    bound: Option<usize>,
    random: &mut Random,
) -> Option<Value> {
    let array = match &feature.kind {
        Kind::Image(image) => return picture(image, random),
        Kind::Array(array) => array,
        _ => return None,
    };
    let shape = match array.shape.is_empty() {
        true => declared.unwrap_or(&array.shape),
        false => &array.shape,
    };
    let count = element_count(shape)?;
    let dtype = array.dtype.unwrap_or(Dtype::F32);
    let mut made = Vec::new();
    made.try_reserve_exact(count).ok()?;
    let elements: Elements = if dtype.is_float() {
        made.extend((0..count).map(|_| random.normal() as f32));
        made.into()
    } else {
        let bound = bound.unwrap_or(2).min(i32::MAX as usize) as u64;
        (0..count)
            .map(|_| random.below(bound) as i32)
            .collect::<Vec<_>>()
            .into()
    };
    Tensor::new(dtype, shape, elements).map(Value::Tensor)
}

fn picture(kind: &ImageKind, random: &mut Random) -> Option<Value> {
    let count = element_count(&[kind.height, kind.width, kind.color.channels()])?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).ok()?;
    bytes.extend((0..count).map(|_| random.below(256) as u8));
    let pixels = match kind.color.channels() {
        1 => Pixels::Gray(bytes),
        _ => Pixels::Rgb(bytes),
    };
    let image = Image::new(kind.width, kind.height, pixels)?;
    Some(Value::Image(Arc::new(image)))
}

/// For each input of integers that index constants, the least number of rows among these.
fn index_bounds(function: &Function) -> HashMap<String, usize> {
    let inputs = function
        .inputs
        .iter()
        .map(|input| (input.id, input.name.as_str()));
    let mut from: HashMap<Id, &str> = inputs.collect();
    let mut bounds = HashMap::new();
    for op in &function.body.ops {
        let traced = |param: &str| match argument(op, param) {
            Some(Source::Value(id)) => from.get(&id).copied(),
            _ => None,
        };
        if let (true, Some(name), [output]) = (
            SAME.contains(&op.def.name),
            traced("x"),
            op.outputs.as_slice(),
        ) {
            from.insert(output.id, name);
        } else if let (true, Some(name)) = (op.def.name.starts_with("gather"), traced("indices"))
            && let Some(rows) = rows(function, op)
        {
            let least: &mut usize = bounds.entry(name.to_owned()).or_insert(rows);
            *least = rows.min(*least);
        }
    }
    bounds
}

/// The rows of the constant that an operation gathers from, along its axis.
fn rows(function: &Function, op: &Op) -> Option<usize> {
    let Some(Source::Constant(table)) = argument(op, "x") else {
        return None;
    };
    let shape = function.constants.get(table)?.shape()?;
    let axis = match argument(op, "axis") {
        Some(Source::Constant(axis)) => *function
            .constants
            .get(axis)?
            .small()?
            .tensor()?
            .ints()?
            .first()?,
        _ => 0,
    };
    let axis = usize::try_from(axis)
        .ok()
        .or_else(|| shape.len().checked_sub(axis.unsigned_abs() as usize))?;
    shape.get(axis).copied().filter(|&rows| rows > 0)
}

fn argument(op: &Op, param: &str) -> Option<Source> {
    let found = op.args.iter().find(|(name, _)| name == param);
    found.and_then(|(_, sources)| sources.first()).copied()
}
