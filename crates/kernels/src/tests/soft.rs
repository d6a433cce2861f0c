//! Soft k-means against the formula written out, n × k and all, and against finite differences.

use half::{bf16, f16};

use super::Noise;
use crate::{
    Attention, Real, SoftElement, SoftGroup, SoftOptions, soft_backward, soft_forward, soft_nearest,
};

/// One group and what is asked of it.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    dim: usize,
    k: usize,
    scaled: bool,
    iterations: usize,
    temperature: f64,
    epsilon: f64,
    floor: f64,
    prune_threshold: f64,
    enforce_zero: bool,
    attention: Attention,
    implicit: bool,
}

impl Case {
    fn options<R>(&self) -> SoftOptions<'static, R> {
        SoftOptions {
            iterations: self.iterations,
            temperature: self.temperature,
            epsilon: self.epsilon,
            floor: self.floor,
            prune_threshold: self.prune_threshold,
            enforce_zero: self.enforce_zero,
            attention: self.attention,
            implicit: self.implicit,
            round_centroids: None,
        }
    }

    /// Values, centroids, scales, and a gradient of the soft weight.
    fn numbers(&self) -> [Vec<f64>; 4] {
        let mut noise = Noise(77);
        let n = self.rows * self.cols;
        let mut draw = |n: usize, by: f64| (0..n).map(|_| noise.normal() * by).collect::<Vec<_>>();
        let mut values = draw(n, 0.03);
        let centroids = draw(self.k * self.dim, 0.03);
        let scale: Vec<f64> = draw(self.rows, 0.3).iter().map(|s| s.abs() + 0.5).collect();
        if self.enforce_zero {
            values.iter_mut().step_by(5).for_each(|v| *v = 0.0);
        }
        let grad = draw(n, 1.0);
        [values, centroids, scale, grad]
    }
}

const PLAIN: Case = Case {
    rows: 12,
    cols: 11,
    dim: 1,
    k: 4,
    scaled: false,
    iterations: 3,
    temperature: 1e-3,
    epsilon: 0.0,
    floor: 1e-7,
    prune_threshold: 1e-7,
    enforce_zero: false,
    attention: Attention::Softmax,
    implicit: false,
};

fn cases() -> Vec<Case> {
    let vectors = |dim, k| Case { dim, k, ..PLAIN };
    vec![
        PLAIN,
        Case {
            scaled: true,
            ..PLAIN
        },
        Case {
            iterations: 1,
            ..PLAIN
        },
        Case {
            iterations: 8,
            epsilon: 1e-4,
            ..PLAIN
        },
        Case {
            floor: 1e-2,
            ..PLAIN
        },
        Case {
            floor: 0.0,
            ..PLAIN
        },
        Case {
            prune_threshold: 1e-3,
            ..PLAIN
        },
        Case {
            enforce_zero: true,
            ..PLAIN
        },
        Case {
            enforce_zero: true,
            prune_threshold: 0.0,
            ..PLAIN
        },
        Case {
            attention: Attention::Gumbel(9),
            ..PLAIN
        },
        Case {
            attention: Attention::Hard,
            ..PLAIN
        },
        vectors(2, 8),
        vectors(3, 5),
        vectors(4, 16),
        Case {
            scaled: true,
            enforce_zero: true,
            prune_threshold: 0.0,
            ..vectors(2, 4)
        },
        Case {
            attention: Attention::Gumbel(3),
            ..vectors(2, 4)
        },
        // Many clusters, of which a value attends to few: windows, and what the floor adds outside of them.
        Case {
            rows: 64,
            cols: 80,
            k: 64,
            temperature: 2e-6,
            ..PLAIN
        },
        Case {
            rows: 64,
            cols: 80,
            k: 64,
            temperature: 2e-6,
            floor: 1e-3,
            prune_threshold: 1e-4,
            scaled: true,
            ..PLAIN
        },
        Case {
            rows: 64,
            cols: 80,
            k: 64,
            temperature: 2e-6,
            floor: 0.0,
            enforce_zero: true,
            ..PLAIN
        },
    ]
}

struct Found {
    out: Vec<f64>,
    next: Vec<f64>,
    back: Vec<f64>,
}

/// Runs the kernels on some type of elements.
fn kernels<E: SoftElement>(case: &Case, narrow: fn(f64) -> E, wide: fn(E) -> f64) -> Found {
    let [values, centroids, scale, grad] = case.numbers();
    let real = |x: &[f64]| -> Vec<E::Real> { x.iter().map(|&x| E::Real::from_f64(x)).collect() };
    let element = |x: &[f64]| -> Vec<E> { x.iter().map(|&x| narrow(x)).collect() };
    let (values, grad, scale) = (element(&values), element(&grad), real(&scale));
    let group = SoftGroup {
        values: &values,
        cols: case.cols,
        dim: case.dim,
        scale: case.scaled.then_some(scale.as_slice()),
    };
    let options: SoftOptions<'_, E::Real> = case.options();
    let mut saved = vec![E::Real::ZERO; options.saved_len(case.k, case.dim)];
    let mut next = vec![E::Real::ZERO; case.k * case.dim];
    let (mut out, mut back) = (values.clone(), values.clone());
    soft_forward(
        &group,
        &real(&centroids),
        &options,
        &mut out,
        &mut next,
        &mut saved,
    );
    soft_backward(&group, &saved, &options, &grad, &mut back);
    Found {
        out: out.into_iter().map(wide).collect(),
        next: next.iter().map(|x| x.to_f64()).collect(),
        back: back.into_iter().map(wide).collect(),
    }
}

fn exact(case: &Case) -> Found {
    kernels::<f64>(case, |x| x, |x| x)
}

/// The vectors of a case, row block by row block.
fn vectors(case: &Case, values: &[f64], scale: &[f64]) -> Vec<Vec<f64>> {
    let mut found = Vec::new();
    for block in 0..case.rows / case.dim {
        for col in 0..case.cols {
            let element = |e: usize| {
                let row = block * case.dim + e;
                let by = if case.scaled { scale[row] } else { 1.0 };
                values[row * case.cols + col] / by
            };
            found.push((0..case.dim).map(element).collect());
        }
    }
    found
}

/// The formula: the soft weight and the last centroids.
fn naive(case: &Case, values: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let [_, centroids, scale, _] = case.numbers();
    let (k, dim) = (case.k, case.dim);
    let x = vectors(case, values, &scale);
    let mut c: Vec<Vec<f64>> = centroids.chunks(dim).map(<[f64]>::to_vec).collect();
    let keep = case.enforce_zero && case.prune_threshold == 0.0;
    if keep {
        c[0].fill(0.0);
    }
    let attend = |c: &[Vec<f64>], step: usize| -> (Vec<Vec<f64>>, f64) {
        let mut inertia = 0.0;
        let row = |(i, x): (usize, &Vec<f64>)| -> Vec<f64> {
            let mut d: Vec<f64> = c
                .iter()
                .map(|c| x.iter().zip(c).map(|(x, c)| (x - c).powi(2)).sum())
                .collect();
            d[0] -= case.prune_threshold;
            if keep && x.iter().any(|&x| x != 0.0) {
                d[0] = 1.0 / case.floor;
            }
            let least = d.iter().copied().fold(f64::INFINITY, f64::min);
            inertia += least;
            if case.attention == Attention::Hard {
                let at = d.iter().position(|&d| d == least).unwrap();
                return (0..k).map(|j| f64::from(u8::from(j == at))).collect();
            }
            let mut logits: Vec<f64> = d.iter().map(|d| -d / case.temperature).collect();
            if let Attention::Gumbel(seed) = case.attention {
                for (j, logit) in logits.iter_mut().enumerate() {
                    *logit += crate::soft::gumbel(seed, step, i, j);
                }
            }
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.iter().map(|l| (l - top).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let floor = match case.attention {
                Attention::Softmax => case.floor,
                _ => 0.0,
            };
            powers.iter().map(|p| (p / sum).max(floor)).collect()
        };
        (x.iter().enumerate().map(row).collect(), inertia)
    };
    let mut a = Vec::new();
    let mut last = 0.0;
    let mut steps = 0;
    for step in 0..case.iterations {
        let (attention, inertia) = attend(&c, step);
        for (j, c) in c.iter_mut().enumerate() {
            let column: f64 = attention.iter().map(|a| a[j]).sum();
            for (e, c) in c.iter_mut().enumerate() {
                let sum: f64 = attention.iter().zip(&x).map(|(a, x)| a[j] * x[e]).sum();
                if column > 0.0 {
                    *c = sum / column;
                }
            }
        }
        if case.enforce_zero {
            c[0].fill(0.0);
        }
        a = attention;
        steps += 1;
        if last != 0.0 && f64::abs(last - inertia) <= case.epsilon {
            break;
        }
        last = inertia;
    }
    if case.implicit {
        a = attend(&c, steps - 1).0;
    }
    let mut out = vec![0.0; values.len()];
    for (i, a) in a.iter().enumerate() {
        for e in 0..dim {
            let row = i / case.cols * dim + e;
            let by = if case.scaled { scale[row] } else { 1.0 };
            let w: f64 = a.iter().zip(&c).map(|(a, c)| a * c[e]).sum();
            out[row * case.cols + i % case.cols] = w * by;
        }
    }
    (out, c.concat())
}

/// Largest difference, relative to the largest number.
fn far(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(1e-300, |m: f64, b| m.max(b.abs()));
    let gap = |(a, b): (&f64, &f64)| (a - b).abs() / most;
    a.iter().zip(b).map(gap).fold(0.0, f64::max)
}

#[test]
fn the_soft_weight_is_that_of_the_formula() {
    for case in cases() {
        let [values, ..] = case.numbers();
        let (out, next) = naive(&case, &values);
        let found = exact(&case);
        assert!(far(&found.out, &out) < 1e-11, "{case:?}");
        assert!(far(&found.next, &next) < 1e-11, "{case:?}");
    }
}

/// ∂/∂values of Σ grad · soft weight, for some of the values, by central differences.
fn differences(case: &Case, at: &[usize], step: f64) -> Vec<f64> {
    let [values, _, _, grad] = case.numbers();
    let loss = |values: &[f64]| -> f64 {
        let (out, _) = naive(case, values);
        out.iter().zip(&grad).map(|(w, g)| w * g).sum()
    };
    let one = |&at: &usize| {
        let mut values = values.clone();
        values[at] += step;
        let above = loss(&values);
        values[at] -= 2.0 * step;
        (above - loss(&values)) / (2.0 * step)
    };
    at.iter().map(one).collect()
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    for case in cases() {
        let n = case.rows * case.cols;
        let every = (n / 40).max(1);
        // A value of exactly zero is on an edge where zeros are kept.
        let at: Vec<usize> = (0..n).step_by(every).filter(|i| i % 5 != 0).collect();
        let expected = differences(&case, &at, 1e-7);
        let found = exact(&case).back;
        let found: Vec<f64> = at.iter().map(|&at| found[at]).collect();
        assert!(
            far(&found, &expected) < 2e-5,
            "{case:?}: {}",
            far(&found, &expected)
        );
    }
}

#[test]
fn the_implicit_gradient_is_that_of_very_many_steps() {
    for case in [
        PLAIN,
        Case {
            dim: 2,
            k: 3,
            ..PLAIN
        },
        Case {
            scaled: true,
            enforce_zero: true,
            ..PLAIN
        },
    ] {
        let case = Case {
            iterations: 400,
            temperature: 1e-4,
            implicit: true,
            ..case
        };
        let [values, ..] = case.numbers();
        let (out, next) = naive(&case, &values);
        let found = exact(&case);
        assert!(
            far(&found.out, &out) < 1e-9 && far(&found.next, &next) < 1e-9,
            "{case:?}"
        );
        let at: Vec<usize> = (1..case.rows * case.cols)
            .step_by(7)
            .filter(|i| i % 5 != 0)
            .collect();
        let back: Vec<f64> = at.iter().map(|&at| found.back[at]).collect();
        let expected = differences(&case, &at, 1e-6);
        assert!(
            far(&back, &expected) < 1e-5,
            "{case:?}: {}",
            far(&back, &expected)
        );
    }
}

#[test]
fn narrower_weights_give_the_same_to_their_rounding() {
    for case in cases() {
        // Decisions that hang on the last digit are not for comparing.
        if case.attention == Attention::Hard || case.epsilon > 0.0 {
            continue;
        }
        let exact = exact(&case);
        let single = kernels::<f32>(&case, |x| x as f32, f64::from);
        assert!(
            far(&single.out, &exact.out) < 2e-5,
            "{case:?}: {}",
            far(&single.out, &exact.out)
        );
        assert!(
            far(&single.back, &exact.back) < 2e-3,
            "{case:?}: {}",
            far(&single.back, &exact.back)
        );
        if case.floor == PLAIN.floor && case.k < 64 {
            let half = kernels::<f16>(&case, f16::from_f64, f16::to_f64);
            assert!(
                far(&half.out, &exact.out) < 0.02,
                "{case:?}: {}",
                far(&half.out, &exact.out)
            );
            let brain = kernels::<bf16>(&case, bf16::from_f64, bf16::to_f64);
            assert!(
                far(&brain.out, &exact.out) < 0.1,
                "{case:?}: {}",
                far(&brain.out, &exact.out)
            );
        }
    }
}

#[test]
fn the_gradient_of_halves_is_rounded_once() {
    for case in cases() {
        let wide = kernels::<f32>(&case, |x| bf16::from_f64(x).to_f32(), f64::from);
        let narrow = kernels::<bf16>(&case, bf16::from_f64, bf16::to_f64);
        let gap = far(&narrow.back, &wide.back);
        assert!(gap < f64::exp2(-8.5), "{case:?}: {gap}");
    }
}

#[test]
fn straight_through_rounding_changes_values_and_not_gradients() {
    let case = PLAIN;
    let [values, centroids, _, grad] = case.numbers();
    let group = SoftGroup {
        values: &values,
        cols: case.cols,
        dim: 1,
        scale: None,
    };
    let coarse = |c: &mut [f64]| c.iter_mut().for_each(|c| *c = (*c * 50.0).round() / 50.0);
    let options = SoftOptions {
        round_centroids: Some(&coarse),
        iterations: 1,
        ..case.options()
    };
    let mut saved = vec![0.0; options.saved_len(case.k, 1)];
    let (mut out, mut next, mut back) = (values.clone(), vec![0.0; case.k], values.clone());
    soft_forward(
        &group, &centroids, &options, &mut out, &mut next, &mut saved,
    );
    soft_backward(&group, &saved, &options, &grad, &mut back);
    let plain = SoftOptions {
        round_centroids: None,
        ..options
    };
    let mut means = next.clone();
    let mut smooth = values.clone();
    soft_forward(
        &group,
        &centroids,
        &plain,
        &mut smooth,
        &mut means,
        &mut saved,
    );
    assert_ne!(next, means);
    coarse(&mut means);
    assert_eq!(next, means);
    // The formula: attention is not touched, centroids are replaced, and their gradient is that of the means.
    let mut plain_back = values.clone();
    soft_backward(&group, &saved, &plain, &grad, &mut plain_back);
    assert!(far(&back, &plain_back) > 1e-3, "G·c depends on what c is");
    assert!(far(&out, &smooth) > 1e-3);
}

#[test]
fn the_nearest_is_the_nearest() {
    for dim in [1, 2, 3] {
        let case = Case {
            dim,
            k: 6,
            rows: 6,
            cols: 900,
            scaled: true,
            ..PLAIN
        };
        let [values, centroids, scale, _] = case.numbers();
        let group = SoftGroup {
            values: &values,
            cols: case.cols,
            dim,
            scale: Some(&scale),
        };
        for prune_threshold in [0.0, 1e-3] {
            let mut indices = vec![0; group.vectors()];
            soft_nearest(&group, &centroids, prune_threshold, &mut indices);
            for (x, &index) in vectors(&case, &values, &scale).iter().zip(&indices) {
                let distance = |j: usize| -> f64 {
                    let c = &centroids[j * dim..(j + 1) * dim];
                    let d: f64 = x.iter().zip(c).map(|(x, c)| (x - c).powi(2)).sum();
                    d - if j == 0 { prune_threshold } else { 0.0 }
                };
                let best = (0..case.k).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
                assert_eq!(Some(usize::from(index)), best);
            }
        }
    }
}

/// Everything there is, as bits: see `same`.
pub(super) fn everything(out: &mut Vec<u64>) {
    let large = Case {
        rows: 8,
        cols: 40_000,
        ..PLAIN
    };
    let windows = Case {
        k: 128,
        temperature: 1e-6,
        ..large.clone()
    };
    let pairs = Case {
        dim: 2,
        scaled: true,
        ..large.clone()
    };
    for case in cases().into_iter().chain([large, windows, pairs]) {
        let single = kernels::<f32>(&case, |x| x as f32, f64::from);
        for numbers in [&single.out, &single.next, &single.back] {
            out.extend(numbers.iter().map(|x| x.to_bits()));
        }
    }
}
