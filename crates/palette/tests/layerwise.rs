//! Weights fitted to the inputs of their layer, against sums that are written down as they are defined.
#![allow(clippy::unwrap_used)]

mod naive;

use palettizer_palette::{
    Context, Dtype, FittedTables, Granularity, Layerwise, LayerwiseAlgorithm, LayerwiseSettings,
    LutDtype, Mode, MomentsShape, Nbits, Palette, PaletteSpec, Refusal, Tensor, assemble,
    palettize,
};

/// A weight with what its inputs look like.
struct Layer {
    dtype: Dtype,
    shape: Vec<usize>,
    axis: usize,
    bytes: Vec<u8>,
    moments: Vec<f32>,
    divided: MomentsShape,
}

impl Layer {
    /// Inputs that go together more or less, of different sizes.
    fn new(dtype: Dtype, shape: &[usize], axis: usize, row_runs: usize, blocks: usize) -> Self {
        let elements: usize = shape.iter().product();
        let columns = elements / shape[axis] / blocks;
        let mut next = naive::random(elements as u64 + 7 * row_runs as u64);
        let mut moments = Vec::new();
        for _ in 0..row_runs * blocks {
            let sizes: Vec<f64> = (0..columns).map(|_| (3.0 * next()).exp()).collect();
            let mut h = vec![0.0; columns * columns];
            for _ in 0..columns + 8 {
                let common = next() - 0.5;
                let x: Vec<f64> = sizes.iter().map(|s| s * (next() - 0.5 + common)).collect();
                for i in 0..columns {
                    for j in 0..columns {
                        h[i * columns + j] += x[i] * x[j];
                    }
                }
            }
            moments.extend(h.iter().map(|&x| x as f32));
        }
        Layer {
            dtype,
            shape: shape.to_vec(),
            axis,
            bytes: naive::weight(dtype, elements, columns, 11),
            moments,
            divided: MomentsShape {
                row_runs,
                blocks,
                columns,
            },
        }
    }

    fn tensor(&self) -> Tensor<'_> {
        Tensor::new(self.dtype, &self.shape, &self.bytes).unwrap()
    }

    fn context(&self, settings: LayerwiseSettings) -> Context<'_> {
        Context {
            layerwise: Some(Layerwise {
                moments: &self.moments,
                shape: self.divided,
                settings,
            }),
            ..naive::on(Some(self.axis))
        }
    }

    fn fit(&self, spec: &PaletteSpec) -> Palette {
        palettize(&self.tensor(), spec, &self.context(settings())).unwrap()
    }

    /// Σ (w − ŵ)ᵀ H (w − ŵ) of any reconstruction, with the damped H; with zeros, the energy.
    fn cost(&self, found: impl Fn(usize) -> f64) -> f64 {
        let rows = self.shape[self.axis];
        let inner: usize = self.shape[self.axis + 1..].iter().product();
        let MomentsShape {
            row_runs,
            blocks,
            columns,
        } = self.divided;
        let each = rows.div_ceil(row_runs);
        let mut total = 0.0;
        for row in 0..rows {
            // Its elements in the order of the weight.
            let own =
                (0..self.bytes.len() / self.dtype.size()).filter(|at| at / inner % rows == row);
            let errors: Vec<f64> = own
                .map(|at| found(at) - naive::read(self.dtype, &self.bytes, at))
                .collect();
            for block in 0..blocks {
                let start = (row / each * blocks + block) * columns * columns;
                let h = &self.moments[start..start + columns * columns];
                let diagonal = (0..columns).map(|i| f64::from(h[i * columns + i]));
                let mean = diagonal.sum::<f64>() / columns as f64;
                let e = &errors[block * columns..(block + 1) * columns];
                for i in 0..columns {
                    for j in 0..columns {
                        let mut value = f64::from(h[i * columns + j]);
                        if i == j {
                            value = value.max(1e-6 * mean) + settings().damping * mean;
                        }
                        total += e[i] * value * e[j];
                    }
                }
            }
        }
        total
    }

    /// What must be true of any palette; its cost.
    fn check(&self, palette: &Palette) -> f64 {
        let fit = palette.fit.as_ref().unwrap();
        let cost = self.cost(|at| naive::element(palette, at));
        let energy = self.cost(|_| 0.0);
        assert!(
            (fit.energy - energy).abs() <= 1e-9 * energy,
            "{} {energy}",
            fit.energy
        );
        assert!(
            (fit.output_error() - cost).abs() <= 1e-9 * energy,
            "{} {cost} {energy}",
            fit.output_error()
        );
        let (_, fitted) = fit.objective.split_last().unwrap();
        assert!(fitted.is_sorted_by(|a, b| a >= b), "{:?}", fit.objective);
        let mut error = 0.0;
        let dense = palette.decompress();
        for at in 0..palette.error.elements {
            let (w, q) = (
                naive::read(self.dtype, &self.bytes, at),
                naive::element(palette, at),
            );
            assert_eq!(naive::read(self.dtype, &dense, at), q);
            error += (w - q).powi(2);
        }
        assert!((palette.error.squared_error - error).abs() <= 1e-9 * palette.error.energy);
        cost
    }
}

fn settings() -> LayerwiseSettings {
    LayerwiseSettings {
        damping: 0.05,
        ..LayerwiseSettings::default()
    }
}

fn spec(nbits: Nbits, group: usize) -> PaletteSpec {
    let spec = PaletteSpec::new(Mode::Kmeans(nbits));
    match group {
        0 => spec,
        group_size => spec.with_granularity(Granularity::PerGroupedChannel {
            group_size,
            channel_axis: None,
        }),
    }
}

#[test]
fn every_form_keeps_outputs_better_than_k_means() {
    // (shape, output axis, runs of rows, blocks)
    let layers: [(&[usize], usize, usize, usize); 8] = [
        (&[12, 40], 0, 1, 1),
        (&[12, 40], 0, 3, 1),
        (&[40, 12], 1, 1, 1),
        (&[12, 5, 3, 2], 0, 4, 1),
        (&[6, 12, 3, 2], 1, 1, 1),
        (&[6, 12, 3, 2], 1, 1, 3),
        (&[8, 12, 5], 1, 2, 2),
        (&[12, 1, 3, 3], 0, 12, 1),
    ];
    let mut worse = 0;
    let mut cases = 0;
    for (shape, axis, row_runs, blocks) in layers {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let layer = Layer::new(dtype, shape, axis, row_runs, blocks);
            for (nbits, group) in [
                (Nbits::B2, 0),
                (Nbits::B3, 4),
                (Nbits::B2, 1),
                (Nbits::B1, 6),
            ] {
                if blocks > 1 && row_runs > 1 && group > 0 {
                    continue;
                }
                for (scale, lut_dtype, fold, half) in [
                    (false, LutDtype::Float, false, false),
                    (false, LutDtype::Int8, false, true),
                    (true, LutDtype::Float, false, false),
                    (true, LutDtype::Float, false, true),
                    (true, LutDtype::Uint8, false, false),
                    (true, LutDtype::Int8, true, true),
                ] {
                    if scale && blocks > 1 {
                        continue;
                    }
                    let spec = spec(nbits, group)
                        .with_per_channel_scale(scale)
                        .with_lut_dtype(lut_dtype)
                        .with_fold_scale(fold)
                        .with_half_scales(half);
                    let palette = layer.fit(&spec);
                    let cost = layer.check(&palette);
                    let plain = palettize(&layer.tensor(), &spec, &naive::on(Some(axis))).unwrap();
                    assert_eq!(plain.lut_shape, palette.lut_shape);
                    assert_eq!(plain.stored_bytes(), palette.stored_bytes());
                    let before = layer.cost(|at| naive::element(&plain, at));
                    cases += 1;
                    worse += usize::from(cost > 0.9 * before);
                    // A start with scales of its own may end elsewhere, but not far off.
                    assert!(
                        cost <= 1.3 * before,
                        "{shape:?} {dtype:?} {spec:?} {cost} {before}"
                    );
                }
            }
        }
    }
    assert!(worse * 20 < cases, "{worse} of {cases}");
}

#[test]
fn the_kernel_applied_by_hand() {
    // Without rounding, scales or a permutation, what the kernel gives is what comes out.
    use palettizer_palette::{Lut, pack};
    let layer = Layer::new(Dtype::F32, &[6, 30], 0, 2, 1);
    let palette = layer.fit(&spec(Nbits::B3, 2));
    let weights: Vec<f32> = bytes_as(&layer.bytes);
    let moments: Vec<&[f32]> = layer.moments.chunks(900).collect();
    let problem = palettizer_kernels::LayerwiseProblem {
        weights: &weights,
        columns: 30,
        moments: &moments,
        start_weights: None,
    };
    let options = palettizer_kernels::LayerwiseOptions {
        nbits: 3,
        rows_per_table: 2,
        damping: 0.05,
        ..palettizer_kernels::LayerwiseOptions::default()
    };
    let wanted = palettizer_kernels::layerwise(&problem, &options).unwrap();
    let bytes: Vec<u8> = wanted.luts.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(palette.lut, Lut::Float(bytes));
    let mut packed = Vec::new();
    pack(&wanted.indices, 3, &mut packed);
    assert_eq!(palette.indices, packed);
    let objective = &palette.fit.unwrap().objective;
    assert_eq!(objective[..objective.len() - 1], wanted.objective);

    // The same on another axis, which is the same matrix.
    let turned: Vec<f32> = (0..180).map(|at| weights[at % 6 * 30 + at / 6]).collect();
    let bytes: Vec<u8> = turned.iter().flat_map(|x| x.to_le_bytes()).collect();
    let other = Layer {
        shape: vec![30, 6],
        axis: 1,
        bytes,
        ..layer
    };
    let palette = other.fit(&spec(Nbits::B3, 2));
    let indices: Vec<u8> = (0..180)
        .map(|at| wanted.indices[at % 6 * 30 + at / 6])
        .collect();
    let mut packed = Vec::new();
    pack(&indices, 3, &mut packed);
    assert_eq!(palette.indices, packed);
}

fn bytes_as(bytes: &[u8]) -> Vec<f32> {
    let four = bytes.chunks_exact(4);
    four.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[test]
fn few_values_are_kept() {
    let mut layer = Layer::new(Dtype::F16, &[4, 12], 0, 1, 1);
    // A row of zeros, a row of three values, a row with what no mean can be taken of, an ordinary one.
    let mut values = vec![0.0; 48];
    for (at, value) in values.iter_mut().enumerate().skip(12) {
        *value = match at / 12 {
            1 => [0.5, -1.0, 0.25][at % 3],
            2 => [f64::NAN, f64::INFINITY, -2.0][at % 3],
            _ => (at as f64).sin(),
        };
    }
    layer.bytes = naive::encode(Dtype::F16, &values);
    let palette = layer.fit(&spec(Nbits::B2, 1));
    let dense = palette.decompress();
    assert_eq!(dense[..72], layer.bytes[..72]);
    assert_ne!(dense[72..], layer.bytes[72..]);
    let fit = palette.fit.unwrap();
    assert!(fit.energy > fit.output_error() && fit.output_error() > 0.0);

    let refused = |spec: PaletteSpec| {
        palettize(&layer.tensor(), &spec, &layer.context(settings()))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(spec(Nbits::B2, 2)),
        "8 of 24 values are NaN or infinite"
    );
    assert_eq!(
        refused(spec(Nbits::B2, 1).with_lut_dtype(LutDtype::Int8)),
        "8 of 12 values are NaN or infinite"
    );
    assert_eq!(
        refused(spec(Nbits::B2, 1).with_per_channel_scale(true)),
        "8 of 48 values are NaN or infinite"
    );
}

#[test]
fn all_zero_and_constant_weights() {
    for value in [0.0, 3.0, -1e-7, 60000.0] {
        for dtype in [Dtype::F32, Dtype::F16] {
            let mut layer = Layer::new(dtype, &[4, 9], 0, 1, 1);
            layer.bytes = naive::encode(dtype, &[value; 36]);
            for (scale, lut_dtype, fold) in [
                (false, LutDtype::Float, false),
                (true, LutDtype::Float, false),
                (false, LutDtype::Int8, false),
                (true, LutDtype::Int8, true),
            ] {
                if fold && value.abs() < 1e-6 && dtype == Dtype::F16 {
                    // Its scale would be smaller than there is a number for.
                    continue;
                }
                let spec = spec(Nbits::B2, 2)
                    .with_per_channel_scale(scale)
                    .with_lut_dtype(lut_dtype)
                    .with_fold_scale(fold);
                let palette = layer.fit(&spec);
                for at in 0..36 {
                    let (w, q) = (
                        naive::read(dtype, &layer.bytes, at),
                        naive::element(&palette, at),
                    );
                    // Next to nothing is next to nothing: scales are not subnormal.
                    let near = (w - q).abs() <= 2e-3 * w.abs() + 1e-7;
                    assert!(near, "{w} {q} {spec:?}");
                }
            }
        }
    }
}

#[test]
fn start_weights_and_algorithms_count() {
    let layer = Layer::new(Dtype::F32, &[8, 30], 0, 1, 1);
    let weights: Vec<f32> = (0..240).map(|at| 1.0 + (at % 5) as f32).collect();
    let tensor = layer.tensor();
    let lnq = layer.fit(&spec(Nbits::B2, 1));
    let with = |context: Context<'_>| palettize(&tensor, &spec(Nbits::B2, 1), &context).unwrap();
    let weighted = with(Context {
        sensitivity: Some(&weights),
        ..layer.context(settings())
    });
    layer.check(&weighted);
    assert_ne!(weighted, lnq);
    let gptq = with(layer.context(LayerwiseSettings {
        algorithm: LayerwiseAlgorithm::Gptq,
        ..settings()
    }));
    layer.check(&gptq);
    let steps = |palette: &Palette| palette.fit.as_ref().unwrap().objective.len();
    assert_eq!((steps(&lnq), steps(&gptq)), (6, 4));
    let few = with(layer.context(LayerwiseSettings {
        rounds: 1,
        ..settings()
    }));
    assert_eq!(steps(&few), 5);
    let short = Context {
        sensitivity: Some(&weights[1..]),
        ..layer.context(settings())
    };
    let refusal = palettize(&tensor, &spec(Nbits::B2, 1), &short).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::SensitivityLength {
            elements: 240,
            found: 239
        }
    );
}

#[test]
fn threads_make_no_difference() {
    let layers = [
        Layer::new(Dtype::F16, &[70, 90], 0, 2, 1),
        Layer::new(Dtype::F32, &[12, 24, 7], 1, 1, 4),
    ];
    for layer in &layers {
        let scale = layer.divided.blocks == 1;
        let spec = spec(Nbits::B3, 0)
            .with_per_channel_scale(scale)
            .with_lut_dtype(LutDtype::Int8);
        let all: Vec<Palette> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| layer.fit(&spec))
            })
            .collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn tables_of_others_are_rounded_and_improved() {
    for (dtype, lut_dtype, scale) in [
        (Dtype::F32, LutDtype::Float, false),
        (Dtype::BF16, LutDtype::Float, true),
        (Dtype::F16, LutDtype::Int8, false),
        (Dtype::F32, LutDtype::Uint8, true),
    ] {
        let layer = Layer::new(dtype, &[24, 10], 1, 1, 1);
        let spec = spec(Nbits::B2, 5)
            .with_lut_dtype(lut_dtype)
            .with_per_channel_scale(scale);
        let luts = [0.4, -1.1, 0.1, 1.9, 0.0, 0.5, -0.6, 1.3];
        let indices: Vec<u8> = (0..240).map(|at| (at * 7 % 4) as u8).collect();
        let scales: Vec<f32> = (0..10).map(|row| 0.3 + row as f32 / 7.0).collect();
        let fitted = FittedTables {
            luts: &luts,
            indices: &indices,
            scales: scale.then_some(&scales),
        };
        let tensor = layer.tensor();
        let plain = assemble(&tensor, &spec, &naive::on(Some(1)), fitted).unwrap();
        assert_eq!(plain.fit, None);
        for (at, &index) in indices.iter().enumerate() {
            let row = at % 10;
            let lut = &luts[row / 5 * 4..][..4];
            let wanted = f64::from(lut[usize::from(index)])
                * if scale { f64::from(scales[row]) } else { 1.0 };
            let found = naive::element(&plain, at);
            let step = if lut_dtype == LutDtype::Float {
                0.012
            } else {
                0.03
            };
            assert!(
                (found - wanted).abs() <= step,
                "{dtype:?} {lut_dtype:?} {found} {wanted}"
            );
        }
        let improved = assemble(&tensor, &spec, &layer.context(settings()), fitted).unwrap();
        assert_eq!(improved.lut, plain.lut);
        let cost = layer.check(&improved);
        let before = layer.cost(|at| naive::element(&plain, at));
        assert!(cost < before);

        let error = |fitted| {
            assemble(&tensor, &spec, &naive::on(Some(1)), fitted)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(FittedTables {
                luts: &luts[1..],
                ..fitted
            }),
            "luts must hold 8 numbers, found 7"
        );
        assert_eq!(
            error(FittedTables {
                indices: &[4; 240],
                ..fitted
            }),
            "layer-wise fitting has the index 4 into 4 entries"
        );
        assert_eq!(
            error(FittedTables {
                indices: &[0; 9],
                ..fitted
            }),
            "indices must hold 240 numbers, found 9"
        );
        let other = if scale { None } else { Some(&scales[..]) };
        assert!(
            error(FittedTables {
                scales: other,
                ..fitted
            })
            .starts_with("scales must hold")
        );
        let bad = [f32::NAN; 8];
        assert!(
            error(FittedTables {
                luts: &bad,
                ..fitted
            })
            .contains("has the entry NaN")
        );
        if scale {
            let zeros = [0.0; 10];
            assert!(
                error(FittedTables {
                    scales: Some(&zeros),
                    ..fitted
                })
                .contains("has the scale 0")
            );
        }
    }
}

#[test]
fn what_does_not_suit_is_refused() {
    let layer = Layer::new(Dtype::F32, &[8, 30], 0, 1, 1);
    let refused = |spec: PaletteSpec, context: Context<'_>| {
        palettize(&layer.tensor(), &spec, &context)
            .unwrap_err()
            .to_string()
    };
    let context = layer.context(settings());
    let plain = || spec(Nbits::B2, 0);
    let inputs = context.layerwise.unwrap();
    let shaped = |row_runs, blocks, columns| Context {
        layerwise: Some(Layerwise {
            shape: MomentsShape {
                row_runs,
                blocks,
                columns,
            },
            ..inputs
        }),
        ..context
    };
    let damped = |damping| Context {
        layerwise: Some(Layerwise {
            settings: LayerwiseSettings {
                damping,
                ..settings()
            },
            ..inputs
        }),
        ..context
    };
    let bad = vec![f32::NAN; 900];
    let nan = Context {
        layerwise: Some(Layerwise {
            moments: &bad,
            ..inputs
        }),
        ..context
    };
    let mask = [0xff; 30];
    let cases = [
        (
            refused(PaletteSpec::new(Mode::Uniform(Nbits::B2)), context),
            "layer-wise fitting needs mode kmeans, found uniform",
        ),
        (
            refused(plain().with_cluster_dim(2), context),
            "layer-wise fitting needs cluster_dim 1, found 2",
        ),
        (
            refused(
                plain().with_granularity(Granularity::PerGroupedChannel {
                    group_size: 10,
                    channel_axis: Some(1),
                }),
                context,
            ),
            "layer-wise fitting needs groups along the axis 0 of the output channels, found axis 1",
        ),
        (
            refused(
                plain(),
                Context {
                    mask: Some(&mask),
                    ..context
                },
            ),
            "layer-wise fitting cannot keep the zeros of a pruned weight",
        ),
        (
            refused(
                plain(),
                Context {
                    output_axis: None,
                    ..context
                },
            ),
            "layer-wise fitting needs an output channel axis, and the consumers do not agree on one",
        ),
        (
            refused(plain(), shaped(1, 1, 8)),
            "layer-wise fitting needs second moments of 30 inputs for the shape [8, 30] with output axis 0, found 8",
        ),
        (
            refused(plain(), shaped(5, 1, 30)),
            "layer-wise fitting cannot divide 8 output channels among 5 matrices of second moments",
        ),
        (
            refused(plain().with_per_channel_scale(true), shaped(1, 2, 15)),
            "layer-wise fitting with a per-channel scale needs one block of second moments, found 2",
        ),
        (
            refused(spec(Nbits::B2, 2), shaped(2, 2, 15)),
            "layer-wise fitting with 2 blocks and 2 runs of rows needs one table for the tensor and equal runs",
        ),
        (
            refused(plain(), shaped(2, 1, 30)),
            "second moments must hold 1800 numbers, found 900",
        ),
        (
            refused(plain(), damped(-1.0)),
            "layer-wise fitting failed: a damping of -1; it is zero or more, and finite",
        ),
        (
            refused(plain(), nan),
            "layer-wise fitting failed: second moments are not all finite",
        ),
    ];
    for (found, wanted) in cases {
        assert_eq!(found, wanted);
    }
    let stop = std::sync::atomic::AtomicBool::new(true);
    let stopped = Context {
        stop: Some(&stop),
        ..context
    };
    assert_eq!(
        palettize(&layer.tensor(), &plain(), &stopped),
        Err(Refusal::Stopped)
    );
}
