//! Layer-wise palettization: against the twin, against all answers there are, and where the answer is known.

mod naive;

use std::sync::atomic::AtomicBool;

use super::{Kind, Noise};
use crate::{
    LayerwiseAlgorithm, LayerwiseError, LayerwiseOptions, LayerwiseProblem, LayerwiseTables,
    Precision, ValueHistogram, Weights, layerwise, layerwise_indices,
};

/// A layer to be palettized.
struct Layer {
    weights: Vec<f32>,
    columns: usize,
    moments: Vec<Vec<f32>>,
}

impl Layer {
    /// Normal weights, and inputs that go together more or less, of very different sizes.
    fn random(noise: &mut Noise, rows: usize, columns: usize, matrices: usize) -> Self {
        let samples = 2 * columns + 8;
        Layer {
            weights: noise.values(Kind::Normal, rows * columns),
            columns,
            moments: (0..matrices)
                .map(|_| moments(noise, columns, samples))
                .collect(),
        }
    }

    fn fit(&self, options: &LayerwiseOptions<'_>) -> LayerwiseTables {
        let moments = self.matrices();
        let found = layerwise(&self.problem(&moments), options).unwrap();
        self.check(options, &found);
        found
    }

    fn matrices(&self) -> Vec<&[f32]> {
        self.moments.iter().map(|h| &h[..]).collect()
    }

    fn problem<'a>(&'a self, moments: &'a [&'a [f32]]) -> LayerwiseProblem<'a> {
        LayerwiseProblem {
            weights: &self.weights,
            columns: self.columns,
            moments,
            start_weights: None,
        }
    }

    /// What must be true of any answer.
    fn check(&self, options: &LayerwiseOptions<'_>, found: &LayerwiseTables) {
        let (n, k) = (self.columns, 1 << options.nbits);
        let rows = self.weights.len() / n;
        let per_table = options.rows_per_table.min(rows);
        assert_eq!(found.luts.len(), rows.div_ceil(per_table) * k);
        assert_eq!(found.indices.len(), rows * n);
        assert!(found.luts.iter().all(|x| x.is_finite()));
        assert!(found.luts.chunks(k).all(|lut| lut.is_sorted()));
        assert!(found.indices.iter().all(|&index| usize::from(index) < k));
        assert!(
            found.objective.is_sorted_by(|a, b| a >= b),
            "{:?}",
            found.objective
        );
        let cost = self.cost(options, found);
        let last = found.objective.last().unwrap();
        let start = found.objective[0];
        assert!(
            (cost - last).abs() <= 1e-9 * cost + 1e-13 * start,
            "{cost} {last}"
        );
    }

    /// The objective from scratch.
    fn cost(&self, options: &LayerwiseOptions<'_>, found: &LayerwiseTables) -> f64 {
        let (n, k) = (self.columns, 1 << options.nbits);
        let rows = self.weights.len() / n;
        let moments = self.matrices();
        let problem = self.problem(&moments);
        let mut total = 0.0;
        let per_matrix = rows.div_ceil(moments.len());
        for row in 0..rows {
            let h = naive::damped(&problem, row, found.damping[row / per_matrix]);
            let scale = found.scales.as_ref().map_or(1.0, |s| f64::from(s[row]));
            let lut = &found.luts[row / options.rows_per_table.min(rows) * k..][..k];
            let error = |i: usize| {
                let at = row * n + i;
                scale * f64::from(lut[usize::from(found.indices[at])]) - f64::from(self.weights[at])
            };
            total += naive::energy(&h, &(0..n).map(error).collect::<Vec<_>>());
        }
        total
    }
}

/// Second moments of some samples.
fn moments(noise: &mut Noise, columns: usize, samples: usize) -> Vec<f32> {
    let sizes: Vec<f64> = (0..columns).map(|_| noise.normal().exp()).collect();
    let mut h = vec![0.0; columns * columns];
    for _ in 0..samples {
        let common = noise.normal();
        let x: Vec<f64> = sizes
            .iter()
            .map(|s| s * (noise.normal() + common))
            .collect();
        for i in 0..columns {
            for j in 0..columns {
                h[i * columns + j] += x[i] * x[j] / samples as f64;
            }
        }
    }
    h.iter().map(|&x| x as f32).collect()
}

fn identity(columns: usize) -> Vec<f32> {
    (0..columns * columns)
        .map(|i| f32::from(u8::from(i % (columns + 1) == 0)))
        .collect()
}

fn options(nbits: u32, rows_per_table: usize, row_scale: bool) -> LayerwiseOptions<'static> {
    LayerwiseOptions {
        nbits,
        rows_per_table,
        row_scale,
        ..LayerwiseOptions::default()
    }
}

#[test]
fn agrees_with_the_twin() {
    let mut noise = Noise(51);
    for nbits in [1, 2, 3, 4] {
        for (rows_per_table, matrices) in [
            (1, 1),
            (1, 3),
            (4, 1),
            (4, 3),
            (5, 2),
            (usize::MAX, 1),
            (usize::MAX, 3),
        ] {
            for row_scale in [false, true] {
                for algorithm in [LayerwiseAlgorithm::Lnq, LayerwiseAlgorithm::Gptq] {
                    let layer = Layer::random(&mut noise, 9, 24, matrices);
                    let options = LayerwiseOptions {
                        algorithm,
                        ..options(nbits, rows_per_table, row_scale)
                    };
                    let found = layer.fit(&options);
                    let moments = layer.matrices();
                    let wanted = naive::layerwise(&layer.problem(&moments), &options);
                    assert_eq!(found.objective.len(), wanted.len());
                    for (found, wanted) in found.objective.iter().zip(&wanted) {
                        assert!(
                            (found - wanted).abs() <= 1e-5 * wanted + 1e-12,
                            "{nbits} {rows_per_table} {matrices} {row_scale} {found} {wanted}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn wide_tables_agree_with_the_twin() {
    let mut noise = Noise(52);
    for (nbits, rows) in [(6, 6), (8, 8)] {
        let layer = Layer::random(&mut noise, rows, 70, 1);
        let options = options(nbits, usize::MAX, nbits == 6);
        let found = layer.fit(&options);
        let moments = layer.matrices();
        let wanted = naive::layerwise(&layer.problem(&moments), &options);
        for (found, wanted) in found.objective.iter().zip(&wanted) {
            assert!(
                (found - wanted).abs() <= 1e-5 * wanted,
                "{nbits} {found} {wanted}"
            );
        }
    }
}

/// The least cost there is, over all indices with the best table for each.
fn brute(layer: &Layer, damping: f64) -> f64 {
    let n = layer.columns;
    let moments = layer.matrices();
    let problem = layer.problem(&moments);
    let rows = layer.weights.len() / n;
    let mut best = f64::INFINITY;
    for number in 0..1_usize << (rows * n) {
        let (mut a, mut y, mut rest) = (vec![vec![0.0; 2]; 2], vec![0.0; 2], 0.0);
        for row in 0..rows {
            let h = naive::damped(&problem, row, damping);
            for i in 0..n {
                let code = |i: usize| number >> (row * n + i) & 1;
                let w = |i: usize| f64::from(layer.weights[row * n + i]);
                for j in 0..n {
                    a[code(i)][code(j)] += h[i][j];
                    y[code(i)] += h[i][j] * w(j);
                    rest += w(i) * h[i][j] * w(j);
                }
            }
        }
        // An entry without a weight may be anything.
        for (i, row) in a.iter_mut().enumerate() {
            if row[i] == 0.0 {
                row[i] = 1.0;
            }
        }
        let c = naive::solve(a, y.clone());
        best = best.min(rest - c[0] * y[0] - c[1] * y[1]);
    }
    best
}

#[test]
fn is_near_the_best_there_is() {
    let mut noise = Noise(53);
    let (mut same, mut sum) = (0, 0.0);
    const CASES: usize = 200;
    for case in 0..CASES {
        let (rows, columns) = [(1, 4), (1, 6), (2, 3), (2, 5)][case % 4];
        let layer = Layer::random(&mut noise, rows, columns, 1);
        let options = LayerwiseOptions {
            rounds: 4,
            ..options(1, usize::MAX, false)
        };
        let found = layer.fit(&options);
        let (cost, best) = (
            *found.objective.last().unwrap(),
            brute(&layer, options.damping),
        );
        assert!(cost >= best * (1.0 - 1e-6), "{cost} {best}");
        same += usize::from(cost <= best * (1.0 + 1e-5));
        sum += (cost / best).ln();
    }
    let mean = (sum / CASES as f64).exp();
    println!("the best in {same} of {CASES}, {mean} times the best in the mean");
    assert!(same >= CASES / 2, "{same}");
    assert!(mean < 1.5, "{mean}");
}

#[test]
fn with_identity_it_is_exact_k_means() {
    let mut noise = Noise(54);
    for (rows, columns, nbits, rows_per_table) in
        [(1, 40, 2, 1), (6, 30, 3, 3), (5, 100, 4, 5), (3, 300, 6, 1)]
    {
        let layer = Layer {
            moments: vec![identity(columns)],
            ..Layer::random(&mut noise, rows, columns, 0)
        };
        let options = LayerwiseOptions {
            damping: 0.0,
            ..options(nbits, rows_per_table, false)
        };
        let found = layer.fit(&options);
        let groups = layer.weights.chunks(rows_per_table * columns);
        let best: f64 = groups
            .map(|group| {
                ValueHistogram::new(group, Weights::Equal, Precision::Exact)
                    .cluster(1 << nbits)
                    .cost
            })
            .sum();
        let cost = found.objective.last().unwrap();
        assert!((cost - best).abs() <= 3e-6 * best, "{cost} {best}");
    }
}

#[test]
fn odd_shapes() {
    let mut noise = Noise(55);
    for columns in [1, 2, 63, 64, 65, 128, 129] {
        for rows in [1, 3, 17] {
            for rows_per_table in [1, 2, usize::MAX] {
                let layer = Layer::random(&mut noise, rows, columns, 1);
                let found = layer.fit(&options(2, rows_per_table, rows_per_table > 1));
                assert!(found.objective.last() <= found.objective.first());
            }
        }
    }
}

#[test]
fn odd_values() {
    let mut noise = Noise(56);
    let ordinary = || Layer::random(&mut Noise(57), 6, 40, 1);
    let mut layers = vec![
        Layer {
            weights: vec![0.0; 240],
            ..ordinary()
        },
        Layer {
            weights: vec![0.3; 240],
            ..ordinary()
        },
        // Each row constant.
        Layer {
            weights: (0..240).map(|i| (i / 40) as f32 - 2.0).collect(),
            ..ordinary()
        },
        // Two values.
        Layer {
            weights: (0..240).map(|i| [0.1, -0.7][i % 2]).collect(),
            ..ordinary()
        },
        Layer {
            moments: vec![vec![0.0; 1600]],
            ..ordinary()
        },
        // Fewer samples than columns.
        Layer {
            moments: vec![moments(&mut noise, 40, 7)],
            ..ordinary()
        },
        Layer {
            moments: vec![moments(&mut noise, 40, 1)],
            ..ordinary()
        },
        // Very small, very large.
        Layer {
            moments: vec![ordinary().moments[0].iter().map(|x| x * 1e-30).collect()],
            ..ordinary()
        },
        Layer {
            moments: vec![ordinary().moments[0].iter().map(|x| x * 1e30).collect()],
            ..ordinary()
        },
        Layer {
            weights: ordinary().weights.iter().map(|x| x * 1e-30).collect(),
            ..ordinary()
        },
    ];
    let mut dead = ordinary();
    for i in 0..40 {
        for j in [3, 4, 17, 39] {
            dead.moments[0][i * 40 + j] = 0.0;
            dead.moments[0][j * 40 + i] = 0.0;
        }
    }
    layers.push(dead);
    for (at, layer) in layers.iter().enumerate() {
        for rows_per_table in [1, 4, usize::MAX] {
            for row_scale in [false, true] {
                for damping in [0.0, 1e-4, 0.1] {
                    let options = LayerwiseOptions {
                        damping,
                        ..options(2, rows_per_table, row_scale)
                    };
                    let found = layer.fit(&options);
                    let exact = at < 2 || (at == 2 && (rows_per_table < 5 || row_scale)) || at == 3;
                    if exact && !row_scale {
                        assert!(
                            *found.objective.last().unwrap() < 1e-9,
                            "{at} {:?}",
                            found.objective
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn falls_below_k_means_and_feedback() {
    let mut noise = Noise(58);
    let mut report = Vec::new();
    for (rows, columns) in [(8, 96), (20, 130)] {
        let layer = Layer::random(&mut noise, rows, columns, 1);
        for nbits in [1, 2, 3, 4] {
            for rows_per_table in [1, 8, usize::MAX] {
                for row_scale in [false, true] {
                    let lnq = options(nbits, rows_per_table, row_scale);
                    let gptq = LayerwiseOptions {
                        algorithm: LayerwiseAlgorithm::Gptq,
                        ..lnq
                    };
                    let (lnq, gptq) = (layer.fit(&lnq).objective, layer.fit(&gptq).objective);
                    let (start, lnq, gptq) = (lnq[0], lnq[lnq.len() - 1], gptq[gptq.len() - 1]);
                    assert!(lnq < start && gptq < start);
                    report.push(format!("{rows} × {columns}, {nbits} bits, {rows_per_table} rows a table, scales {row_scale}: {:.3} {:.3}", gptq / start, lnq / start));
                }
            }
        }
    }
    println!("{}", report.join("\n"));
}

/// Everything there is, as bits.
pub(super) fn everything(out: &mut Vec<u64>) {
    let layer = Layer::random(&mut Noise(60), 90, 130, 2);
    for (nbits, rows_per_table) in [(3, 1), (2, 8), (5, usize::MAX)] {
        let found = layer.fit(&options(nbits, rows_per_table, rows_per_table > 1));
        out.extend(found.objective.iter().map(|x| x.to_bits()));
        let floats = found.luts.iter().chain(found.scales.iter().flatten());
        out.extend(floats.map(|x| u64::from(x.to_bits())));
        out.extend(found.indices.iter().map(|&index| u64::from(index)));
        let mut coarse = found;
        for entry in &mut coarse.luts {
            *entry = (*entry * 8.0).round() / 8.0;
        }
        let moments = layer.matrices();
        let with = options(nbits, rows_per_table, rows_per_table > 1);
        layerwise_indices(&layer.problem(&moments), &with, &mut coarse).unwrap();
        let energy = coarse.energy;
        out.push(energy.to_bits());
        out.extend(coarse.objective.iter().map(|x| x.to_bits()));
        out.extend(coarse.indices.iter().map(|&index| u64::from(index)));
    }
}

#[test]
fn start_weights_count() {
    let layer = Layer::random(&mut Noise(61), 2, 50, 1);
    let start: Vec<f32> = (0..100).map(|i| 1.0 + (i % 7) as f32).collect();
    let moments = layer.matrices();
    let problem = LayerwiseProblem {
        start_weights: Some(&start),
        ..layer.problem(&moments)
    };
    let options = options(2, 1, true);
    let found = layerwise(&problem, &options).unwrap();
    layer.check(&options, &found);
    let wanted = naive::layerwise(&problem, &options);
    for (found, wanted) in found.objective.iter().zip(wanted) {
        assert!((found - wanted).abs() <= 1e-5 * wanted);
    }
}

#[test]
fn rounded_tables_keep_their_entries_and_get_better_indices() {
    let mut noise = Noise(63);
    for (rows, columns, matrices, rows_per_table) in [
        (9, 24, 1, 1),
        (9, 24, 3, 4),
        (70, 70, 2, usize::MAX),
        (5, 1, 1, 2),
        (33, 130, 1, 1),
    ] {
        for row_scale in [false, true] {
            let layer = Layer::random(&mut noise, rows, columns, matrices);
            let options = options(3, rows_per_table, row_scale);
            let mut tables = layer.fit(&options);
            let most = tables.luts.iter().fold(0_f32, |a, b| a.max(b.abs()));
            for entry in &mut tables.luts {
                *entry = (*entry * 12.0 / most).round() * most / 12.0;
            }
            let moments = layer.matrices();
            let problem = layer.problem(&moments);
            let before = layer.cost(&options, &tables);
            let mut measured = tables.clone();
            let still = LayerwiseOptions {
                sweeps: 0,
                ..options
            };
            layerwise_indices(&problem, &still, &mut measured).unwrap();
            let energy = measured.energy;
            assert!((energy - tables.energy).abs() <= 1e-12 * energy);
            assert_eq!(measured.indices, tables.indices);
            let found = measured.objective.last().unwrap();
            assert!((found - before).abs() <= 1e-9 * energy, "{found} {before}");

            let (luts, scales) = (tables.luts.clone(), tables.scales.clone());
            layerwise_indices(&problem, &options, &mut tables).unwrap();
            let again = tables.energy;
            assert_eq!(again.to_bits(), energy.to_bits());
            assert_eq!((&tables.luts, &tables.scales), (&luts, &scales));
            let (after, found) = (
                layer.cost(&options, &tables),
                tables.objective.last().unwrap(),
            );
            assert!((found - after).abs() <= 1e-9 * energy, "{found} {after}");
            assert!(after <= before * (1.0 + 1e-12), "{after} {before}");
            assert!(columns == 1 || after < 0.99 * before, "{after} {before}");

            let mut zeros = LayerwiseTables {
                luts: vec![0.0; tables.luts.len()],
                ..tables
            };
            layerwise_indices(&problem, &still, &mut zeros).unwrap();
            let nothing = zeros.objective.last().unwrap();
            assert!((nothing - energy).abs() <= 1e-12 * energy);
        }
    }
}

#[test]
fn tables_of_another_layer_are_refused() {
    let layer = Layer::random(&mut Noise(64), 3, 5, 1);
    let moments = layer.matrices();
    let problem = layer.problem(&moments);
    let options = options(2, 2, true);
    let tables = layer.fit(&options);
    let error = |change: fn(&mut LayerwiseTables)| {
        let mut changed = tables.clone();
        change(&mut changed);
        layerwise_indices(&problem, &options, &mut changed)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(|t| t.luts.truncate(7)),
        "number of entries: expected 8, found 7"
    );
    assert_eq!(
        error(|t| t.indices.push(0)),
        "number of indices: expected 15, found 16"
    );
    assert_eq!(
        error(|t| t.scales = Some(vec![1.0])),
        "number of scales: expected 3, found 1"
    );
    assert_eq!(
        error(|t| t.damping.clear()),
        "number of dampings: expected 1, found 0"
    );
    assert_eq!(
        error(|t| t.luts[3] = f32::NAN),
        "entries and scales are not all finite"
    );
    assert_eq!(
        error(|t| t.indices[14] = 4),
        "number of entries, for the largest index: expected 5, found 4"
    );
}

#[test]
fn refusals() {
    let layer = Layer::random(&mut Noise(62), 3, 5, 1);
    let matrices = layer.matrices();
    let problem = layer.problem(&matrices);
    let with = LayerwiseOptions::default();
    let error = |problem: LayerwiseProblem<'_>, options: LayerwiseOptions<'_>| {
        layerwise(&problem, &options).unwrap_err()
    };
    assert_eq!(
        error(problem, LayerwiseOptions { nbits: 0, ..with }),
        LayerwiseError::Bits(0)
    );
    assert_eq!(
        error(problem, LayerwiseOptions { nbits: 9, ..with }),
        LayerwiseError::Bits(9)
    );
    assert_eq!(
        error(
            problem,
            LayerwiseOptions {
                damping: -1.0,
                ..with
            }
        ),
        LayerwiseError::Damping(-1.0)
    );
    let shape = |problem: LayerwiseProblem<'_>| match error(problem, with) {
        LayerwiseError::Shape { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(
        shape(LayerwiseProblem {
            columns: 0,
            ..problem
        }),
        "columns"
    );
    assert_eq!(
        shape(LayerwiseProblem {
            weights: &[],
            ..problem
        }),
        "weights"
    );
    assert_eq!(
        shape(LayerwiseProblem {
            weights: &layer.weights[1..],
            ..problem
        }),
        "weights"
    );
    assert_eq!(
        shape(LayerwiseProblem {
            moments: &[],
            ..problem
        }),
        "matrices of second moments"
    );
    let four = [matrices[0]; 4];
    assert_eq!(
        shape(LayerwiseProblem {
            moments: &four,
            ..problem
        }),
        "matrices of second moments"
    );
    let short = [&matrices[0][1..]];
    assert_eq!(
        shape(LayerwiseProblem {
            moments: &short,
            ..problem
        }),
        "second moments"
    );
    assert_eq!(
        shape(LayerwiseProblem {
            start_weights: Some(&[1.0]),
            ..problem
        }),
        "start weights"
    );
    let weights = [f32::NAN; 15];
    assert_eq!(
        error(
            LayerwiseProblem {
                weights: &weights,
                ..problem
            },
            with
        ),
        LayerwiseError::NotFinite("weights")
    );
    let infinite = vec![f32::INFINITY; 25];
    assert_eq!(
        error(
            LayerwiseProblem {
                moments: &[&infinite],
                ..problem
            },
            with
        ),
        LayerwiseError::NotFinite("second moments")
    );
    let wild: Vec<f32> = (0..25)
        .map(|i| if i % 6 == 0 { 1.0 } else { 1e6 })
        .collect();
    assert!(matches!(
        error(
            LayerwiseProblem {
                moments: &[&wild],
                ..problem
            },
            with
        ),
        LayerwiseError::Indefinite { matrix: 0, .. }
    ));
    // Not positive definite, but it can be helped.
    let slightly: Vec<f32> = (0..25)
        .map(|i| if i % 6 == 0 { 1.0 } else { 1.1 })
        .collect();
    let helped = layerwise(
        &LayerwiseProblem {
            moments: &[&slightly],
            ..problem
        },
        &with,
    )
    .unwrap();
    assert!(helped.damping[0] > with.damping);
    let stop = AtomicBool::new(true);
    assert_eq!(
        error(
            problem,
            LayerwiseOptions {
                stop: Some(&stop),
                ..with
            }
        ),
        LayerwiseError::Stopped
    );
}
