//! coremltools' own arithmetic, as written down by `testdata/make_golden.py`.
#![allow(clippy::unwrap_used)]

mod naive;

use std::collections::HashMap;

use bytemuck::Pod;
use half::f16;
use palettizer_palette::decode::{self, Affine, Float, Source};
use palettizer_palette::{Dtype, Granularity, Mode, Nbits, PaletteSpec, Tensor, palettize};

#[derive(Clone, Debug)]
struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    fn parse(text: &str) -> Option<Array> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let dtype = Dtype::ALL.into_iter().find(|d| d.name() == name)?;
        let shape = match parts.next()? {
            "-" => Vec::new(),
            dims => dims.split('x').map(|d| d.parse().unwrap()).collect(),
        };
        let hex = parts.next()?;
        let bytes = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        Some(Array {
            dtype,
            shape,
            bytes,
        })
    }

    fn to<T: Pod>(&self) -> Vec<T> {
        bytemuck::pod_collect_to_vec(&self.bytes)
    }
}

struct Case {
    op: String,
    arrays: HashMap<String, Array>,
    words: HashMap<String, String>,
}

fn cases(text: &str) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split(' ');
            let op = fields.next().unwrap().to_owned();
            let (mut arrays, mut words) = (HashMap::new(), HashMap::new());
            for (key, value) in fields.map(|field| field.split_once('=').unwrap()) {
                match Array::parse(value) {
                    Some(array) => drop(arrays.insert(key.to_owned(), array)),
                    None => drop(words.insert(key.to_owned(), value.to_owned())),
                }
            }
            Case { op, arrays, words }
        })
        .collect()
}

fn bytes<T: Pod>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Calls a generic function with the arrays' element types.
macro_rules! with {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            Dtype::F16 => {
                type $t = f16;
                $body
            }
            Dtype::F32 => {
                type $t = f32;
                $body
            }
            Dtype::I8 => {
                type $t = i8;
                $body
            }
            _ => {
                type $t = u8;
                $body
            }
        }
    };
}

fn shift_scale<D: Source + Pod, S: Float + Pod>(case: &Case) -> Vec<u8> {
    let (data, scale) = (&case.arrays["data"], &case.arrays["scale"]);
    let (values, factors) = (data.to::<D>(), scale.to::<S>());
    let run = |offset: Option<&Array>| -> Vec<u8> {
        let Some(offset) = offset else {
            let out =
                decode::shift_scale(&values, &data.shape, &factors, &scale.shape, None::<&[D]>);
            return bytes(&out.unwrap());
        };
        with!(offset.dtype, O => {
            let offset = offset.to::<O>();
            let out = decode::shift_scale(&values, &data.shape, &factors, &scale.shape, Some(&offset));
            bytes(&out.unwrap())
        })
    };
    run(case.arrays.get("offset"))
}

fn affine<D: Source + Pod, S: Float + Pod, Z: Source + Pod>(case: &Case) -> Vec<u8> {
    let data = &case.arrays["data"];
    let params = Affine {
        scale: &case.arrays["scale"].to::<S>(),
        zero_point: &case.arrays["zero"].to::<Z>(),
        axis: case.words["axis"].parse().unwrap(),
    };
    bytes(&decode::affine_dequantize(&data.to::<D>(), &data.shape, &params).unwrap())
}

#[test]
fn dense_forms_bit_for_bit() {
    let cases = cases(include_str!("../testdata/dense.txt"));
    assert!(cases.len() > 100);
    for (number, case) in cases.iter().enumerate() {
        let axis = case.words.get("axis").and_then(|axis| axis.parse().ok());
        let out = &case.arrays["out"];
        let found = match case.op.as_str() {
            "lut" => {
                let (indices, lut) = (&case.arrays["indices"], &case.arrays["lut"]);
                with!(lut.dtype, T => {
                    let shape = decode::dense_shape(&indices.shape, &lut.shape, axis).unwrap();
                    assert_eq!(shape, out.shape);
                    let entries = lut.to::<T>();
                    bytes(&decode::lut_to_dense(&indices.bytes, &indices.shape, &entries, &lut.shape, axis).unwrap())
                })
            }
            "lut_sparse" => {
                let (indices, lut) = (&case.arrays["indices"], &case.arrays["lut"]);
                let (mask, shape) = (&case.arrays["mask"].bytes, &case.arrays["shape"].shape[1..]);
                with!(lut.dtype, T => {
                    let entries = lut.to::<T>();
                    let sparse =
                        decode::lut_to_sparse(mask, shape, &indices.bytes, &entries, &lut.shape, axis).unwrap();
                    assert_eq!(sparse.mask, case.arrays["out_mask"].bytes);
                    bytes(&sparse.values)
                })
            }
            "shift_scale" => {
                let scale = case.arrays["scale"].dtype;
                with!(case.arrays["data"].dtype, D => match scale {
                    Dtype::F16 => shift_scale::<D, f16>(case),
                    _ => shift_scale::<D, f32>(case),
                })
            }
            _ => {
                let scale = case.arrays["scale"].dtype;
                let data = case.arrays["data"].dtype;
                with!(case.arrays["zero"].dtype, Z => match (data, scale) {
                    (Dtype::I8, Dtype::F16) => affine::<i8, f16, Z>(case),
                    (Dtype::I8, _) => affine::<i8, f32, Z>(case),
                    (_, Dtype::F16) => affine::<u8, f16, Z>(case),
                    (_, _) => affine::<u8, f32, Z>(case),
                })
            }
        };
        assert_eq!(found, out.bytes, "line {} {}", number + 2, case.op);
    }
}

#[test]
fn never_farther_from_the_weight_than_the_peer() {
    for case in cases(include_str!("../testdata/peer.txt")) {
        let (weight, out) = (&case.arrays["weight"], &case.arrays["out"]);
        let nbits = case.words["nbits"].parse::<Nbits>();
        let mode = match case.op.as_str() {
            "kmeans" => Mode::Kmeans(nbits.unwrap()),
            "uniform" => Mode::Uniform(nbits.unwrap()),
            _ => Mode::Unique,
        };
        let group_size = case.words["group"].parse().unwrap();
        let granularity = match group_size {
            0 => Granularity::PerTensor,
            _ => Granularity::PerGroupedChannel {
                group_size,
                channel_axis: Some(case.words["axis"].parse().unwrap()),
            },
        };
        let spec = PaletteSpec::new(mode).with_granularity(granularity);
        let tensor = Tensor::new(weight.dtype, &weight.shape, &weight.bytes).unwrap();
        let palette = palettize(&tensor, &spec, &naive::on(Some(0))).unwrap();
        assert_eq!(palette.lut_shape, case.arrays["lut"].shape);
        let peer: f64 = (0..tensor.len())
            .map(|at| {
                naive::read(weight.dtype, &weight.bytes, at)
                    - naive::read(weight.dtype, &out.bytes, at)
            })
            .map(|lost| lost * lost)
            .sum();
        let ours = palette.error.squared_error;
        // Evenly spaced entries differ in their last bit: the peer computes them in half precision.
        let slack = if case.op == "uniform" { 1e-2 } else { 1e-6 };
        assert!(ours <= peer * (1.0 + slack), "{} {ours} {peer}", case.op);
        if case.op == "unique" {
            assert_eq!(palette.decompress(), out.bytes);
        }
    }
}
