//! Every kernel on every kind of values, at the sizes where something inside changes: nothing panics, and what comes out
//! is what it says it is.

use half::{bf16, f16};
use proptest::prelude::*;

use super::draws::{Bits, Draw};
use super::{assign, histogram, naive, vectors};
use crate::scalar::lagrangian;
use crate::{
    Attention, Element, Precision, Real, SoftElement, SoftGroup, SoftOptions, ValueHistogram,
    VectorOptions, Weights, assign_vectors, cluster_vectors, soft_backward, soft_forward,
    soft_nearest,
};

/// Lengths at which a block, a chunk, a task or a way to sort begins or ends.
const EDGES: [usize; 15] = [
    1,
    2,
    16,
    64,
    128,
    256,
    512,
    1 << 10,
    1 << 12,
    1 << 13,
    1 << 14,
    1 << 15,
    1 << 16,
    1 << 17,
    1 << 18,
];

/// Each edge, one less and one more.
fn sizes(most: usize) -> impl Iterator<Item = usize> {
    let edges = EDGES.into_iter().filter(move |&edge| edge <= most);
    edges.flat_map(|edge| [edge - 1, edge, edge + 1])
}

/// How much each value counts, as strange as the values.
fn weights(n: usize, seed: u64) -> Vec<f32> {
    let kinds = [
        Draw::Positive,
        Draw::Dead,
        Draw::Broken,
        Draw::Ladder,
        Draw::Subnormal,
        Draw::Extreme,
    ];
    kinds[seed as usize % kinds.len()].values(n, f32::MAX, seed)
}

/// Clusters and indices of one group of scalars.
fn scalars<T: Element>(values: &[T], given: Weights<'_>, precision: Precision, k: usize) {
    let finite = |i: usize| Some(f64::from(values[i].to_f32())).filter(|x| x.is_finite());
    let mut pairs = Vec::new();
    given.each(0, values.len(), |i, w| {
        pairs.extend(finite(i).map(|x| (x, w)))
    });
    if !pairs.iter().any(|pair| pair.1 > 0.0) {
        // if nothing counts, everything counts alike
        pairs = (0..values.len())
            .filter_map(finite)
            .map(|x| (x, 1.0))
            .collect();
    }
    let points = naive::points(&pairs);
    let group = ValueHistogram::new(values, given, precision);
    let found = group.cluster(k);
    let wanted = k.max(1).min(points.len());
    assert_eq!(found.centroids.len(), wanted);
    assert!(found.centroids.is_sorted());
    let ends = points.x.first().zip(points.x.last());
    if let (Some((low, high)), Some(first), Some(last)) =
        (ends, found.centroids.first(), found.centroids.last())
    {
        // a mean of equal values may be off by its rounding
        let room = 1e-9 * (high - low) + 1e-12 * low.abs().max(high.abs());
        assert!(*first >= low - room && *last <= high + room);
    }
    assert!(found.cost.is_finite() && found.cost >= 0.0);
    assert!(found.gap >= 0.0);
    // What rounding the largest square leaves in any cost.
    let total: f64 = points.w.iter().sum();
    let most = points.x.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let noise = 1e-12 * total * most * most;
    if points.len() > 0 {
        let optimum = lagrangian::cluster(&points, k);
        let gap = (found.gap + optimum.gap + 1e-9) * optimum.cost;
        assert!(
            (found.cost - optimum.cost).abs() <= gap + noise,
            "{} is not {}",
            found.cost,
            optimum.cost
        );
        let quantiles: Vec<f64> = (0..wanted)
            .map(|j| points.x[(2 * j + 1) * points.len() / (2 * wanted)])
            .collect();
        let plain = cost(&points, &quantiles);
        assert!(
            found.cost <= plain * (1.0 + 2e-6) + noise,
            "{} {plain}",
            found.cost
        );
    }
    let mut lut: Vec<f32> = found.centroids.iter().map(|&c| c as f32 + 0.0).collect();
    lut.truncate(256);
    if !lut.is_empty() {
        assign::check(values, &lut);
    }
}

pub(super) fn cost(points: &crate::scalar::points::Points<'_>, table: &[f64]) -> f64 {
    let nearest = |x: f64| {
        let at = table.partition_point(|&entry| entry < x);
        let around = [at.checked_sub(1), Some(at)].into_iter().flatten();
        let distances = around
            .filter_map(|at| table.get(at))
            .map(|entry| (x - entry).powi(2));
        distances.fold(f64::INFINITY, f64::min)
    };
    points
        .x
        .iter()
        .zip(points.w.iter())
        .map(|(&x, w)| w * nearest(x))
        .sum()
}

/// All dtypes of one draw.
fn every_dtype(draw: Draw, n: usize, k: usize, precision: Precision, seed: u64) {
    let each = weights(n, seed);
    let len = n / 7 + 1;
    let rows = Weights::Rows {
        len,
        weights: &each,
    };
    let given = [Weights::Equal, Weights::Each(&each), rows][seed as usize % 3];
    let wide = draw.values(n, f32::MAX, seed);
    scalars(&wide, given, precision, k);
    let values = draw.values(n, f16::MAX.to_f32(), seed);
    let narrow: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    scalars(&narrow, given, precision, k);
    let values = draw.values(n, bf16::MAX.to_f32(), seed);
    let narrow: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
    scalars(&narrow, given, precision, k);
    if n < 2000 {
        histogram::check(&wide);
        histogram::check(&narrow);
    }
}

#[test]
fn scalars_of_every_kind_at_every_edge() {
    let mut seed = 0;
    for draw in Draw::ALL {
        for n in sizes(1 << 17) {
            seed += 1;
            let k = [2, 16, 4, 1, 37, 256, 8][seed as usize % 7];
            let precision = [Precision::Refined, Precision::Exact][seed as usize % 2];
            every_dtype(draw, n, k, precision, seed);
        }
    }
}

/// Zeros of both signs at the end of a range: what the histogram once had no bin for.
#[test]
fn zeros_of_both_signs() {
    let kinds = [
        Draw::Masked,
        Draw::Dead,
        Draw::NegativeZero,
        Draw::Positive,
        Draw::Negative,
    ];
    for draw in kinds {
        for n in [1 << 14, 70_000, (1 << 18) + 1] {
            for (seed, k) in (0..).zip([1, 2, 4, 16]) {
                every_dtype(draw, n, k, Precision::Refined, seed);
                every_dtype(draw, n, k, Precision::Exact, seed + 1);
            }
        }
    }
}

/// Two values that have nearly all of the density, so that whatever selects borders by it finds next to none, and more clusters than those.
#[test]
fn all_density_in_the_tails() {
    let ordinary = Draw::Normal.values(30_000, f32::MAX, 5);
    for tails in [&[f32::MAX][..], &[f32::MAX, f32::MIN], &[3e38, -1e30, 2e38]] {
        let mut values = ordinary.clone();
        values.extend(tails);
        let each = weights(values.len(), 1);
        for k in [2, 5, 16, 39, 40, 41, 64, 256] {
            scalars(&values, Weights::Equal, Precision::Refined, k);
            scalars(&values, Weights::Each(&each), Precision::Refined, k);
        }
    }
}

/// Values so far apart that most of them are beyond the digits of the sums: prices that are lower may then buy fewer clusters, and the
/// search for a price once went round and round between two of them.
#[test]
fn values_beyond_each_others_digits() {
    let cases = [
        (Draw::Outlier, 4866, Draw::Tail, 881, 27, 391_854_938),
        (
            Draw::Constant,
            15_049,
            Draw::Subnormal,
            9584,
            39,
            838_039_223,
        ),
        (Draw::Ladder, 9000, Draw::Extreme, 6000, 14, 1),
        (Draw::Tail, 9000, Draw::Subnormal, 6000, 48, 2),
    ];
    for (one, n, other, m, k, seed) in cases {
        let mut values = one.values(n, f32::MAX, seed);
        values.extend(other.values(m, f32::MAX, seed + 1));
        scalars(&values, Weights::Equal, Precision::Refined, k);
        scalars(&values, Weights::Equal, Precision::Exact, k);
    }
}

/// So many values that they are counted by several tasks, and so many clusters that bins are filled by segments.
#[test]
fn very_many_scalars() {
    for (draw, n, k) in [
        (Draw::Masked, (1 << 21) + 1, 200),
        (Draw::Positive, 1 << 21, 190),
        (Draw::Broken, (1 << 20) + 1, 16),
        (Draw::Extreme, (1 << 21) + 1, 4),
        (Draw::Outlier, 1 << 20, 64),
    ] {
        let values = draw.values(n, f32::MAX, 3);
        let histogram = ValueHistogram::new(&values, Weights::Equal, Precision::Refined);
        let found = histogram.cluster(k);
        assert!(found.cost.is_finite() && found.centroids.is_sorted());
        let lut: Vec<f32> = found.centroids.iter().map(|&c| c as f32).collect();
        let mut indices = vec![255; n];
        let error = histogram.assign(&lut, &mut indices);
        assert!(
            (error - found.cost).abs() <= 1e-3 * found.cost,
            "{draw:?} {error} {}",
            found.cost
        );
        assert!(indices.iter().all(|&i| usize::from(i) < lut.len().max(1)));
    }
}

/// Vectors: all but the values that no mean can be taken of.
fn vectors_of(draw: Draw, n: usize, dim: usize, k: usize, seed: u64) {
    let most = if seed.is_multiple_of(2) {
        f32::MAX
    } else {
        60_000.0
    };
    let mut values = draw.values(n * dim + seed as usize % dim, most, seed);
    values
        .iter_mut()
        .filter(|x| !x.is_finite())
        .for_each(|x| *x = 1.0);
    let each = weights(n, seed);
    let given = (!seed.is_multiple_of(3)).then_some(each.as_slice());
    let found = cluster_vectors(
        &values,
        dim,
        k,
        given,
        VectorOptions {
            seed,
            ..VectorOptions::default()
        },
    );
    let count = found.centroids.len() / dim;
    assert!(found.centroids.len() == count * dim && count <= k && count > 0 || n == 0);
    assert!(
        found.centroids.iter().all(|c| c.is_finite()),
        "{draw:?} {n} {dim} {k}"
    );
    assert!(found.indices.len() == n && found.indices.iter().all(|&i| usize::from(i) < count));
    assert!(
        found.cost >= 0.0 && found.cost.is_finite(),
        "{draw:?} {n} {dim} {k}"
    );
    let mut indices = vec![255; n];
    let error = assign_vectors(&values, dim, &found.centroids, &mut indices, None);
    // Squares of 32-bit floats end at the root of the largest.
    let squares = values.iter().all(|x| x.abs() < 1e17);
    if squares {
        let (wanted, cost) = vectors::naive(&values[..n * dim], dim, &found.centroids, None);
        assert_eq!(indices, wanted, "{draw:?} {n} {dim} {k}");
        assert!((error - cost).abs() <= 1e-9 * cost);
    }
}

#[test]
fn vectors_of_every_kind_at_every_edge() {
    let mut seed = 0;
    for draw in Draw::ALL {
        for n in sizes(1 << 14) {
            seed += 1;
            let (dim, k) = [(2, 16), (4, 4), (3, 7), (1, 16), (8, 64), (5, 2)][seed as usize % 6];
            vectors_of(draw, n, dim, k, seed);
        }
    }
}

/// Soft k-means, forwards, backwards and nearest; `plain` values may not lead to anything but numbers.
fn soft<E: SoftElement>(
    draw: Draw,
    n: usize,
    seed: u64,
    narrow: impl Fn(f32) -> E,
    wide: impl Fn(E) -> f64,
    most: f32,
) {
    let (dim, k) = [(1, 16), (1, 64), (2, 4), (4, 16)][seed as usize % 4];
    let cols = n.max(1);
    let values: Vec<E> = draw
        .values(cols * dim, most, seed)
        .into_iter()
        .map(&narrow)
        .collect();
    let start: Vec<E::Real> = Draw::Normal
        .values(k * dim, most, seed + 1)
        .into_iter()
        .map(|x| E::Real::from_f64(f64::from(x)))
        .collect();
    let attention =
        [Attention::Softmax, Attention::Gumbel(seed), Attention::Hard][seed as usize % 3];
    let options = SoftOptions::<E::Real> {
        attention,
        temperature: [1e-4, 1e-30, 1e3][seed as usize % 5 % 3],
        floor: [1e-7, 0.0][seed as usize % 2],
        enforce_zero: seed.is_multiple_of(3),
        prune_threshold: [0.0, 1e-7][seed as usize / 2 % 2],
        implicit: seed.is_multiple_of(7),
        ..SoftOptions::default()
    };
    let group = SoftGroup {
        values: &values,
        cols,
        dim,
        scale: None,
    };
    let mut saved = vec![E::Real::ZERO; options.saved_len(k, dim)];
    let (mut out, mut back, mut next) = (values.clone(), values.clone(), start.clone());
    soft_forward(&group, &start, &options, &mut out, &mut next, &mut saved);
    let grad: Vec<E> = Draw::Normal
        .values(values.len(), most, seed + 2)
        .into_iter()
        .map(&narrow)
        .collect();
    soft_backward(&group, &saved, &options, &grad, &mut back);
    let mut indices = vec![255; cols];
    soft_nearest(&group, &next, options.prune_threshold, &mut indices);
    assert!(indices.iter().all(|&i| usize::from(i) < k));
    let plain = [
        Draw::Masked,
        Draw::Dead,
        Draw::NegativeZero,
        Draw::Positive,
        Draw::Negative,
        Draw::Two,
        Draw::Constant,
        Draw::Subnormal,
        Draw::Normal,
    ];
    if plain.contains(&draw) {
        assert!(
            next.iter().all(|c| c.to_f64().is_finite()),
            "{draw:?} {n} {options:?}",
            options = options.attention
        );
        assert!(
            out.iter().chain(&back).all(|&x| wide(x).is_finite()),
            "{draw:?} {n} {seed}"
        );
    }
}

#[test]
fn soft_k_means_of_every_kind_at_every_edge() {
    let mut seed = 0;
    for draw in Draw::ALL {
        for n in sizes(1 << 13).chain([(1 << 16) + 1]) {
            seed += 1;
            let narrow = bf16::MAX.to_f32();
            match seed % 4 {
                0 => soft(draw, n, seed, f64::from, |x| x, f32::MAX),
                1 => soft(draw, n, seed, |x| x, f64::from, f32::MAX),
                2 => soft(draw, n, seed, f16::from_f32, f16::to_f64, f16::MAX.to_f32()),
                _ => soft(draw, n, seed, bf16::from_f32, bf16::to_f64, narrow),
            }
        }
    }
}

fn any_draw() -> impl Strategy<Value = Draw> {
    (0..Draw::ALL.len()).prop_map(|at| Draw::ALL[at])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn scalars_of_any_kind(draw in any_draw(), n in 0_usize..40_000, k in 0_usize..257, exact: bool, seed: u32) {
        let precision = if exact { Precision::Exact } else { Precision::Refined };
        every_dtype(draw, n, k, precision, u64::from(seed));
    }

    /// Two kinds in one group.
    #[test]
    fn scalars_of_two_kinds(a in any_draw(), b in any_draw(), n in 0_usize..20_000, m in 0_usize..20_000, k in 1_usize..65, seed: u32) {
        let mut values = a.values(n, f32::MAX, seed.into());
        values.extend(b.values(m, f32::MAX, u64::from(seed) + 1));
        let turn = (Bits(seed.into()).unit() * values.len() as f32) as usize;
        let turn = turn.min(values.len());
        values.rotate_left(turn);
        scalars(&values, Weights::Equal, Precision::Refined, k);
        let each = weights(values.len(), seed.into());
        scalars(&values, Weights::Each(&each), Precision::Exact, k);
    }

    #[test]
    fn vectors_of_any_kind(draw in any_draw(), n in 0_usize..3000, dim in 1_usize..9, k in 1_usize..65, seed: u32) {
        vectors_of(draw, n, dim, k, u64::from(seed));
    }
}
