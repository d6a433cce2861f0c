//! Throughput of every kernel, on the shapes that occur in models. One thread: what is measured is work, not waiting.
//!
//! `RUSTFLAGS="--cfg portable"` builds the kernels without what is dispatched at run time: how fast another machine's compiler can
//! make them, by what it makes of them with SSE2.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use palettizer_kernels::{
    Element, LayerwiseAlgorithm, LayerwiseOptions, LayerwiseProblem, Precision, SoftGroup,
    SoftOptions, ValueHistogram, VectorOptions, Weights, assign_vectors, cluster_vectors,
    layerwise, pack, soft_backward, soft_forward, unpack,
};

const LARGE: usize = 1 << 22;

/// Standard normal values times 0.02, from a seed.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut unit = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    (0..n)
        .map(|_| {
            (0.02 * (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()) as f32
        })
        .collect()
}

fn narrowed<T: Element>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&x| T::from_f32(x)).collect()
}

/// Everything that happens to one group: count, cluster, assign, pack.
fn palettize<T: Element>(
    values: &[T],
    weights: Weights<'_>,
    k: usize,
    precision: Precision,
    indices: &mut [u8],
) -> usize {
    let histogram = ValueHistogram::new(values, weights, precision);
    let clusters = histogram.cluster(k);
    let lut: Vec<f32> = clusters
        .centroids
        .iter()
        .map(|&c| T::from_f32(c as f32).to_f32())
        .collect();
    black_box(histogram.assign(&lut, indices));
    let mut bytes = Vec::new();
    pack(indices, (k as u32).ilog2(), &mut bytes);
    bytes.len()
}

fn whole_tensors(c: &mut Criterion) {
    let wide = normal(LARGE);
    let mut indices = vec![0; LARGE];
    let mut group = c.benchmark_group("tensor");
    group
        .throughput(Throughput::Elements(LARGE as u64))
        .sample_size(10);
    let (half, brain) = (narrowed::<f16>(&wide), narrowed::<bf16>(&wide));
    for k in [2, 4, 8, 16, 64, 256] {
        group.bench_function(BenchmarkId::new("f16", k), |b| {
            b.iter(|| palettize(&half, Weights::Equal, k, Precision::Exact, &mut indices))
        });
    }
    for k in [16, 256] {
        group.bench_function(BenchmarkId::new("bf16", k), |b| {
            b.iter(|| palettize(&brain, Weights::Equal, k, Precision::Exact, &mut indices))
        });
    }
    for k in [4, 16, 64, 256] {
        for precision in [Precision::Refined, Precision::Exact] {
            let name = format!("f32 {precision:?}");
            group.bench_function(BenchmarkId::new(name, k), |b| {
                b.iter(|| palettize(&wide, Weights::Equal, k, precision, &mut indices))
            });
        }
    }
    group.finish();
}

fn many_groups(c: &mut Criterion) {
    let values = narrowed::<f16>(&normal(LARGE));
    let mut group = c.benchmark_group("groups of f16");
    group.sample_size(10);
    for (len, k) in [(960, 16), (4096, 16), (65_536, 16), (65_536, 256)] {
        let mut indices = vec![0; len];
        let some = values.len() / len / 8 * len;
        group.throughput(Throughput::Elements(some as u64));
        group.bench_function(BenchmarkId::new(format!("{len}"), k), |b| {
            b.iter(|| {
                values[..some]
                    .chunks(len)
                    .map(|v| palettize(v, Weights::Equal, k, Precision::Exact, &mut indices))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

/// Squared gradients as they are stored: spread over many orders of magnitude, a tenth of them at the floor.
fn sensitivities(n: usize) -> Vec<f32> {
    let noise = normal(2 * n);
    let gradients: Vec<f32> = noise
        .chunks_exact(2)
        .map(|z| (150.0 * z[0]).exp() * z[1] * z[1])
        .collect();
    let most = gradients.iter().copied().fold(0.0, f32::max);
    let spread = |(i, g): (usize, &f32)| {
        if i % 10 == 0 {
            1e-12
        } else {
            (g / most).max(1e-12)
        }
    };
    gradients.iter().enumerate().map(spread).collect()
}

/// How far refined clusters are from the optimum: what is proven, and what sorting all values tells.
fn gap(values: &[f32], k: usize) -> String {
    let found = ValueHistogram::new(values, Weights::Equal, Precision::Refined).cluster(k);
    let best = ValueHistogram::new(values, Weights::Equal, Precision::Exact).cluster(k);
    let borders: Vec<f64> = found
        .centroids
        .windows(2)
        .map(|pair| f64::midpoint(pair[0], pair[1]))
        .collect();
    let error = |&x: &f32| {
        let x = f64::from(x);
        (x - found.centroids[borders.partition_point(|&border| x > border)]).powi(2)
    };
    let cost: f64 = values.iter().map(error).sum();
    format!(
        "{} values, k = {k}: within {:.1e} of the optimum, proven {:.1e}",
        values.len(),
        (cost / best.cost - 1.0).max(0.0),
        found.gap
    )
}

fn groups_of_f32(c: &mut Criterion) {
    let values = normal(LARGE);
    let mut group = c.benchmark_group("groups of f32");
    group.sample_size(10);
    for (len, k) in [
        (64, 16),
        (576, 16),
        (4608, 16),
        (16_384, 16),
        (102_400, 16),
        (102_400, 256),
        (147_456, 16),
        (147_456, 256),
        (589_824, 16),
        (589_824, 256),
        (2_359_296, 16),
        (2_359_296, 256),
    ] {
        let mut indices = vec![0; len];
        println!("{}", gap(&values[..len], k));
        let some = (values.len() / 8).max(len) / len * len;
        group.throughput(Throughput::Elements(some as u64));
        group.bench_function(BenchmarkId::new(format!("{len}"), k), |b| {
            b.iter(|| {
                values[..some]
                    .chunks(len)
                    .map(|v| palettize(v, Weights::Equal, k, Precision::Refined, &mut indices))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

/// The optimum where a few values are far beyond all others.
fn heavy_tails(c: &mut Criterion) {
    const LEN: usize = 147_456;
    let noise = normal(2 * LEN);
    let cauchy: Vec<f32> = noise
        .chunks_exact(2)
        .map(|pair| pair[0] / pair[1])
        .collect();
    let mut outliers: Vec<f32> = noise[..LEN].iter().map(|x| x / 20.0).collect();
    (outliers[7], outliers[70_000]) = (60_000.0, 60_000.0);
    let mut indices = vec![0; LEN];
    let mut group = c.benchmark_group("exact");
    group
        .throughput(Throughput::Elements(LEN as u64))
        .sample_size(10);
    for (name, values) in [("cauchy", &cauchy), ("outliers", &outliers)] {
        for k in [16, 64, 256] {
            group.bench_function(BenchmarkId::new(name, k), |b| {
                b.iter(|| palettize(values, Weights::Equal, k, Precision::Exact, &mut indices))
            });
        }
    }
    group.finish();
}

fn weighted(c: &mut Criterion) {
    const LEN: usize = 768 * 3072;
    let values = normal(LEN);
    let brain = narrowed::<bf16>(&values);
    let weights = sensitivities(LEN);
    let mut indices = vec![0; LEN];
    let mut group = c.benchmark_group("weighted");
    group
        .throughput(Throughput::Elements(LEN as u64))
        .sample_size(10);
    for (name, precision) in [
        ("f32 Refined", Precision::Refined),
        ("f32 Exact", Precision::Exact),
    ] {
        group.bench_function(BenchmarkId::new(name, 16), |b| {
            b.iter(|| {
                palettize(
                    &values,
                    Weights::Each(&weights),
                    16,
                    precision,
                    &mut indices,
                )
            })
        });
    }
    for len in [4096, 11_008] {
        let rows = 32;
        group.throughput(Throughput::Elements((rows * len) as u64));
        let each = |i: usize| Weights::Each(&weights[i * len..(i + 1) * len]);
        let mut indices = vec![0; len];
        group.bench_function(BenchmarkId::new(format!("rows of f32 {len}"), 16), |b| {
            b.iter(|| {
                let rows = values.chunks_exact(len).take(rows).enumerate();
                rows.map(|(i, v)| palettize(v, each(i), 16, Precision::Exact, &mut indices))
                    .sum::<usize>()
            })
        });
        group.bench_function(BenchmarkId::new(format!("rows of bf16 {len}"), 16), |b| {
            b.iter(|| {
                let rows = brain.chunks_exact(len).take(rows).enumerate();
                rows.map(|(i, v)| palettize(v, each(i), 16, Precision::Exact, &mut indices))
                    .sum::<usize>()
            })
        });
    }
    group.finish();
}

fn pieces(c: &mut Criterion) {
    let wide = normal(LARGE);
    let half = narrowed::<f16>(&wide);
    let mut indices = vec![0; LARGE];
    let mut group = c.benchmark_group("piece");
    group
        .throughput(Throughput::Elements(LARGE as u64))
        .sample_size(10);
    group.bench_function("count f16", |b| {
        b.iter(|| ValueHistogram::new(&half, Weights::Equal, Precision::Exact).zeros())
    });
    group.bench_function("count f32", |b| {
        b.iter(|| ValueHistogram::new(&wide, Weights::Equal, Precision::Exact).zeros())
    });
    let (narrow, wide) = (
        ValueHistogram::new(&half, Weights::Equal, Precision::Exact),
        ValueHistogram::new(&wide, Weights::Equal, Precision::Exact),
    );
    for k in [16, 256] {
        let lut: Vec<f32> = narrow
            .cluster(k)
            .centroids
            .iter()
            .map(|&c| c as f32)
            .collect();
        group.bench_function(BenchmarkId::new("cluster f16", k), |b| {
            b.iter(|| narrow.cluster(k).cost)
        });
        group.bench_function(BenchmarkId::new("assign f16", k), |b| {
            b.iter(|| narrow.assign(&lut, &mut indices))
        });
        group.bench_function(BenchmarkId::new("assign f32", k), |b| {
            b.iter(|| wide.assign(&lut, &mut indices))
        });
    }
    for nbits in [1, 2, 3, 4, 6, 8] {
        let mut bytes = Vec::new();
        pack(&indices, nbits, &mut bytes);
        group.bench_function(BenchmarkId::new("pack", nbits), |b| {
            b.iter(|| {
                bytes.clear();
                pack(&indices, nbits, &mut bytes);
            });
        });
        let mut out = vec![0; LARGE];
        group.bench_function(BenchmarkId::new("unpack", nbits), |b| {
            b.iter(|| unpack(&bytes, nbits, &mut out))
        });
    }
    group.finish();
}

fn vectors(c: &mut Criterion) {
    let values = normal(LARGE);
    let mut group = c.benchmark_group("vectors");
    group.sample_size(10);
    for (dim, k) in [(2, 16), (4, 16), (2, 256), (4, 256), (8, 256)] {
        let n = (1 << 18).min(LARGE / dim);
        let values = &values[..n * dim];
        group.throughput(Throughput::Elements(n as u64));
        let name = format!("cluster {dim}");
        group.bench_function(BenchmarkId::new(name, k), |b| {
            b.iter(|| cluster_vectors(values, dim, k, None, VectorOptions::default()).cost);
        });
        let found = cluster_vectors(
            values,
            dim,
            k,
            None,
            VectorOptions {
                max_iterations: 1,
                ..VectorOptions::default()
            },
        );
        let mut indices = vec![0; n];
        let name = format!("assign {dim}");
        group.bench_function(BenchmarkId::new(name, k), |b| {
            b.iter(|| assign_vectors(values, dim, &found.centroids, &mut indices, None));
        });
    }
    group.finish();
}

/// A training step's work on one tensor: τ is coremltools' default, and one at which weights attend to few clusters.
fn soft(c: &mut Criterion) {
    let values = normal(1 << 20);
    let mut group = c.benchmark_group("soft");
    group
        .throughput(Throughput::Elements(values.len() as u64))
        .sample_size(10);
    for (dim, k, temperature) in [
        (1, 4, 1e-4),
        (1, 16, 1e-4),
        (1, 256, 1e-4),
        (1, 256, 1e-6),
        (4, 16, 1e-4),
    ] {
        let of = SoftGroup {
            values: &values,
            cols: 1024,
            dim,
            scale: None,
        };
        let start: Vec<f32> = match dim {
            1 => {
                let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Refined);
                let centroids = histogram.cluster(k).centroids;
                centroids.iter().map(|&c| c as f32).collect()
            }
            _ => values[..k * dim].to_vec(),
        };
        let options = SoftOptions {
            temperature,
            epsilon: 0.0,
            ..SoftOptions::default()
        };
        let (mut out, mut next) = (values.clone(), start.clone());
        let mut saved = vec![0.0; options.saved_len(k, dim)];
        let name = |what: &str| BenchmarkId::new(format!("{what} {dim} tau {temperature:e}"), k);
        group.bench_function(name("forward"), |b| {
            b.iter(|| soft_forward(&of, &start, &options, &mut out, &mut next, &mut saved));
        });
        let mut back = values.clone();
        group.bench_function(name("backward"), |b| {
            b.iter(|| soft_backward(&of, &saved, &options, &out, &mut back));
        });
    }
    group.finish();
}

/// Second moments of inputs that go together and are of different sizes.
fn second_moments(columns: usize) -> Vec<f32> {
    const COMMON: usize = 48;
    let noise = normal(columns * (COMMON + 1));
    let (sizes, common) = noise.split_at(columns);
    let size = |i: usize| (50.0 * sizes[i]).exp();
    let mut h = vec![0.0; columns * columns];
    for (i, row) in h.chunks_exact_mut(columns).enumerate() {
        for (j, slot) in row.iter_mut().enumerate() {
            let own = if i == j { 1.0 } else { 0.0 };
            let (a, b) = (&common[i * COMMON..], &common[j * COMMON..]);
            let shared: f32 = a.iter().zip(&b[..COMMON]).map(|(a, b)| 50.0 * a * b).sum();
            *slot = size(i) * size(j) * (own + shared);
        }
    }
    h
}

/// One layer of a small language model, 3 bits and a table for each row.
fn layers(c: &mut Criterion) {
    let mut group = c.benchmark_group("layerwise");
    group.sample_size(10);
    for (rows, columns) in [(576, 576), (1536, 576), (576, 1536)] {
        let weights = normal(rows * columns);
        let moments = second_moments(columns);
        let problem = LayerwiseProblem {
            weights: &weights,
            columns,
            moments: &[&moments],
            start_weights: None,
        };
        group.throughput(Throughput::Elements((rows * columns) as u64));
        let name = |what: &str| BenchmarkId::new(what, format!("{rows} x {columns}"));
        let mut indices = vec![0; columns];
        group.bench_function(name("k-means alone"), |b| {
            b.iter(|| {
                let rows = weights.chunks_exact(columns);
                rows.map(|row| {
                    palettize(
                        row,
                        Weights::Each(&moments[..columns]),
                        8,
                        Precision::Refined,
                        &mut indices,
                    )
                })
                .sum::<usize>()
            });
        });
        for algorithm in [LayerwiseAlgorithm::Gptq, LayerwiseAlgorithm::Lnq] {
            let options = LayerwiseOptions {
                nbits: 3,
                algorithm,
                ..LayerwiseOptions::default()
            };
            let found = layerwise(&problem, &options).map(|found| found.objective);
            println!("{algorithm:?} {rows} x {columns}: {found:?}");
            group.bench_function(name(&format!("{algorithm:?}")), |b| {
                b.iter(|| layerwise(&problem, &options).is_ok());
            });
        }
    }
    group.finish();
}

fn all(c: &mut Criterion) {
    if let Err(error) = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
    {
        eprintln!("not on one thread: {error}");
    }
    whole_tensors(c);
    many_groups(c);
    groups_of_f32(c);
    heavy_tails(c);
    weighted(c);
    pieces(c);
    vectors(c);
    soft(c);
    layers(c);
}

criterion_group!(benches, all);
criterion_main!(benches);
