//! How the values of a weight are distributed, before and after.

use palettizer::coreml::proto::DataType;
use palettizer::safetensors::Content;
use palettizer::{Dtype, Model, Report};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Bars of a histogram.
const BINS: usize = 96;

/// Centroids that are drawn at most: those of one table.
const CENTROIDS: usize = 256;

/// Elements that are counted at most; of a larger weight, one in so many is.
const COUNTED: usize = 1 << 22;

/// The distribution of a weight's values.
#[derive(Serialize)]
pub(crate) struct Shape {
    /// The least value.
    low: f32,
    /// The largest.
    high: f32,
    /// How many values each bar has before.
    before: Vec<u32>,
    /// And after.
    after: Vec<u32>,
    /// The entries of the first table, if they can be told.
    centroids: Vec<f32>,
    /// What is to be known of it.
    note: String,
}

/// The distribution of each palettized weight, by its name; one that cannot be read has none.
pub(crate) fn shapes(report: &Report, before: &Model, after: &Model) -> BTreeMap<String, Shape> {
    let rows = report.weights.iter();
    let rows = rows.filter_map(|row| Some((row, row.figures()?)));
    let renamed = renamed(after);
    let found = rows.filter_map(|(row, figures)| {
        let new = row
            .op_names
            .iter()
            .find_map(|op| renamed.get(&(op.clone(), row.shape.clone())));
        let (old, new) = (
            values(before, &row.name)?,
            values(after, new.unwrap_or(&row.name))?,
        );
        Some((row.name.clone(), shape(&old, &new, figures.luts)?))
    });
    found.collect()
}

/// What the weights of a Core ML model are called, by an op that uses them and their shape: a palettized weight has another name
/// than it had before.
fn renamed(model: &Model) -> BTreeMap<(String, Vec<usize>), String> {
    let Model::CoreMl(model) = model else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for weight in model.weights(0).unwrap_or_default() {
        for consumer in weight.consumers {
            found
                .entry((consumer.name, weight.shape.clone()))
                .or_insert_with(|| weight.name.clone());
        }
    }
    found
}

fn shape(before: &[f32], after: &[f32], luts: usize) -> Option<Shape> {
    if before.len() != after.len() {
        return None;
    }
    let step = before.len().div_ceil(COUNTED).max(1);
    let both = || before.iter().chain(after).step_by(step).copied();
    let (low, high) = both().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if !(low.is_finite() && high.is_finite()) {
        return None;
    }
    let width = (f64::from(high) - f64::from(low)).max(f64::MIN_POSITIVE);
    let count = |values: &[f32]| {
        let mut bars = vec![0u32; BINS];
        for &value in values.iter().step_by(step) {
            let at = (f64::from(value) - f64::from(low)) / width * BINS as f64;
            bars[(at as usize).min(BINS - 1)] += 1;
        }
        bars
    };
    let centroids = centroids(&after[..after.len() / luts.max(1)]);
    let mut note = match (centroids.is_empty(), luts) {
        (true, _) => {
            "Its entries are scaled or no table of their own, so no centroids are drawn.".to_owned()
        }
        (false, 1) => "It has one table.".to_owned(),
        (false, luts) => format!("The centroids are those of the first of its {luts} tables."),
    };
    if step > 1 {
        note.push_str(&format!(" One value in {step} is counted."));
    }
    Some(Shape {
        low,
        high,
        before: count(before),
        after: count(after),
        centroids,
        note,
    })
}

/// The different values, in order; none if there are more than a table has.
fn centroids(values: &[f32]) -> Vec<f32> {
    let mut found = BTreeSet::new();
    for &value in values {
        // zeros of both signs are one
        found.insert((value + 0.0).to_bits());
        if found.len() > CENTROIDS {
            return Vec::new();
        }
    }
    let mut found: Vec<f32> = found.into_iter().map(f32::from_bits).collect();
    found.sort_by(f32::total_cmp);
    found
}

/// The values of a weight; `None` if they are no floats, or cannot be read.
fn values(model: &Model, name: &str) -> Option<Vec<f32>> {
    match model {
        Model::CoreMl(model) => {
            let values = model.weight_values(name).ok()?;
            let dtype = DataType::ALL
                .into_iter()
                .find(|dtype| dtype.name() == values.dtype)?;
            let dtype = match dtype {
                DataType::Float16 => Dtype::F16,
                DataType::BFloat16 => Dtype::BF16,
                DataType::Float32 => Dtype::F32,
                _ => return None,
            };
            Some(floats(dtype, &values.bytes))
        }
        Model::CoreAi(program) => program.weight_values(name).ok(),
        Model::Checkpoint(checkpoint) => match checkpoint.get(name).ok()? {
            Content::Dense(tensor) => Some(floats(tensor.element.palette_dtype()?, tensor.bytes)),
            Content::Palette(palette) => Some(floats(palette.dtype, &palette.decompress())),
        },
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let halves = |convert: fn([u8; 2]) -> f32| {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|&word| convert(word))
            .collect()
    };
    match dtype {
        Dtype::F16 => halves(|word| half::f16::from_le_bytes(word).to_f32()),
        Dtype::BF16 => halves(|word| half::bf16::from_le_bytes(word).to_f32()),
        Dtype::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&word| f32::from_le_bytes(word))
            .collect(),
        _ => Vec::new(),
    }
}
